"""Every session of the pipeline is in UTC, whatever the time zone of the database user is."""

from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import Connection

from sparkify.compat import AirflowFailException
from sparkify.declarations import checks_of
from sparkify.operators import DataQualityOperator
from sparkify.sql import run_in_transaction, run_one_by_one, run_statement
from sparkify.tables import TABLES
from tests.conftest import rows
from tests.runs import EVENT

TIMES = {
    "etl_migrations": "recorded_at",
    "etl_batches": "staged_at",
    "etl_files": "loaded_at",
    "etl_quality_results": "checked_at",
    "etl_rejected_rows": "rejected_at",
}


@pytest.fixture
def in_tokyo(warehouse):
    """A warehouse that the pipeline logs in to as a user whose time zone is nine hours ahead of UTC."""
    warehouse.run("ALTER USER sparkify SET timezone TO 'Asia/Tokyo'")
    ((ahead,),) = rows(warehouse, "SELECT SYSDATE")
    assert ahead - now() > timedelta(hours=8)
    yield warehouse
    warehouse.run("ALTER USER sparkify RESET timezone")


def now():
    return datetime.now(UTC).replace(tzinfo=None)


@pytest.mark.parametrize("run", [run_in_transaction, run_one_by_one])
def test_sessions_are_in_utc(in_tokyo, run):
    def ask():
        return (yield "SELECT SYSDATE, GETDATE()").rows[0]

    for time in run(Connection.get("redshift").get_hook(), ask()):
        assert abs(time - now()) < timedelta(minutes=1)


def test_a_single_statement_is_run_in_utc_outside_of_a_transaction(in_tokyo):
    before = now()
    hook = Connection.get("redshift").get_hook()
    ((time,),) = run_statement(hook, ("SELECT SYSDATE WHERE %s = 1", [1])).rows
    assert abs(time - before) < timedelta(minutes=1)
    sent = in_tokyo.get_records(
        "SELECT statement FROM local_statements WHERE client = 'sparkify_etl' AND started_at >= %s"
        " ORDER BY started_at",
        parameters=[before],
    )
    assert [text for (text,) in sent[:2]] == ["SET timezone TO 'UTC'", "SELECT SYSDATE WHERE $1 = 1"]


def test_all_times_that_a_run_writes_are_utc(runs, in_tokyo):
    runs.put("log_data/2.json", EVENT | {"sessionId": 1, "userId": ""}, EVENT | {"sessionId": "no number"})
    in_tokyo.run([f"DROP TABLE {table}" for table in TABLES])
    runs()
    assert rows(in_tokyo, "SELECT start_time FROM fact_songplays ORDER BY start_time") == [
        (datetime(2018, 11, 21, 21, 56, 47, 796000),),
        (datetime(2018, 11, 21, 21, 56, 48, 796000),),
    ]
    for table, column in TIMES.items():
        ((oldest, newest),) = rows(in_tokyo, f"SELECT MIN({column}), MAX({column}) FROM {table}")
        assert now() - timedelta(minutes=5) < oldest <= newest <= now(), table


def test_every_session_of_a_run_sets_its_time_zone(runs, warehouse):
    runs()
    runs.put("log_data/2.json", EVENT | {"sessionId": 2})
    began = now()
    runs()
    of_the_run = "client = 'sparkify_etl' AND started_at >= %s"
    (sessions,) = warehouse.get_first(
        f"SELECT COUNT(*) FROM local_connections WHERE {of_the_run}", parameters=[began]
    )
    (told,) = warehouse.get_first(
        f"SELECT COUNT(*) FROM local_statements WHERE {of_the_run} AND statement = 'SET timezone TO ''UTC'''",
        parameters=[began],
    )
    assert told == sessions - 1  # but that of the first question


def test_an_event_five_hours_ahead_is_seen_whatever_the_time_zone(in_tokyo):
    late = now() + timedelta(hours=5)
    in_tokyo.run(
        [
            "INSERT INTO etl_batches VALUES ('staging_events', 'run 1', 1, SYSDATE)",
            "INSERT INTO staging_events (ts, page, sessionid, iteminsession)"
            f" VALUES ('{late}', 'Home', 1, 1)",
        ]
    )
    checks = checks_of("staging_events", scope="table")
    check = DataQualityOperator(task_id="check", checks=checks)
    with pytest.raises(AirflowFailException, match="more than an hour ahead of the clock"):
        check.execute({"run_id": "run 1"})
