import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from sparkify.operators import LoadFactOperator
from sparkify.sql import run_in_transaction
from tests.conftest import context, rows

REJECTED = "SELECT 'userid' AS column_name, 'no user' AS reason, 7 AS sessionid, '' AS userid"


@pytest.fixture
def events(warehouse):
    warehouse.run(
        [
            "DROP TABLE IF EXISTS events",
            "CREATE TABLE events (id INTEGER, what VARCHAR(10), begun TIMESTAMP) SORTKEY (begun)",
        ]
    )
    yield lambda: rows(warehouse, "SELECT id, what FROM events ORDER BY id")
    warehouse.run("DROP TABLE events")


def facts(**facts):
    return " UNION ALL ".join(
        f"SELECT {name[1:]}, '{what}', TIMESTAMP '2018-11-01 10:59:59'" for name, what in facts.items()
    )


def load(sql, **changes):
    defaults = {"task_id": "load", "table": "events", "key": ["id"], "sql": sql, "time_column": "begun"}
    return LoadFactOperator(**defaults | changes)


def test_a_batch_loaded_twice_is_there_once(events):
    for expected in ({"inserted": 2, "unchanged": 0}, {"inserted": 0, "unchanged": 2}):
        counts = load(facts(_1="play", _2="play")).execute(context(run_id="1"))
        where = {
            "within": "begun > '2018-11-01 09:00:00' AND begun < '2018-11-01 11:00:00'",
            "indexed": "1 = 1",
        }
        assert counts == {"updated": 0, "rejected": 0, "deleted": 0, **where, **expected}
    assert events() == [(1, "play"), (2, "play")]


def test_identical_copies_in_a_batch_collapse(events):
    load(f"{facts(_1='play')} UNION ALL {facts(_1='play')}").execute(context(run_id="1"))
    assert events() == [(1, "play")]


def test_facts_of_other_batches_stay_and_a_changed_one_is_replaced(events):
    load(facts(_1="play", _2="play")).execute(context(run_id="1"))
    assert load(facts(_2="stop")).execute(context(run_id="2"))["updated"] == 1
    assert events() == [(1, "play"), (2, "stop")]


def test_a_try_beside_one_that_airflow_has_given_up_waits_for_it(events, warehouse):
    loaded, given_up = Event(), Event()

    def first():
        yield from load(facts(_1="play")).transaction("1")
        loaded.set()
        given_up.wait(timeout=60)

    with ThreadPoolExecutor() as pool:
        pool.submit(run_in_transaction, warehouse, first())
        loaded.wait(timeout=60)
        second = pool.submit(load(facts(_1="play")).execute, context(run_id="1"))
        with pytest.raises(TimeoutError):
            second.result(timeout=2)
        given_up.set()
        assert second.result()["unchanged"] == 1
    assert events() == [(1, "play")]


def test_rejected_rows_of_a_run_are_kept_once(events, warehouse):
    for run in ("1", "1", "2"):
        result = load(facts(_1="play"), rejected_sql=REJECTED).execute(context(run_id=run))
        assert result["rejected"] == 1
    kept = rows(warehouse, "SELECT run_id, reason FROM etl_rejected_rows ORDER BY run_id")
    assert kept == [("1", "no user"), ("2", "no user")]


def test_a_rejected_row_is_kept_with_the_file_and_line_it_came_from(events, warehouse, s3):
    s3.create_bucket("fact-tests", region_name="us-west-2")
    lines = ['{"sessionId": 7, "userId": "8"}', "not json", '{"sessionId": 7, "userId": "", "song": "Élan"}']
    for name, text in (("a", lines[:1]), ("b", lines), ("c", ["[]", lines[2]])):
        s3.load_string("\n".join(text), f"{name}.json", "fact-tests", replace=True)
    entries = [{"url": f"s3://fact-tests/{name}.json", "mandatory": True} for name in "abc"]
    s3.load_string(json.dumps({"entries": entries}), "m", "fact-tests", replace=True)
    thrice = " UNION ALL ".join([REJECTED] * 3)
    load(facts(_1="play"), rejected_sql=thrice, manifest="s3://fact-tests/m").execute(context())
    assert rows(
        warehouse,
        "SELECT s3_key, line_number, column_name, reason, raw_value, raw_line"
        " FROM etl_rejected_rows ORDER BY s3_key",
    ) == [
        ("b.json", 3, "userid", "no user", "", lines[2]),
        ("c.json", 2, "userid", "no user", "", lines[2]),
        (None, None, "userid", "no user", "", '{"sessionid": "7", "userid": ""}'),
    ]


def test_facts_and_rejected_rows_are_one_transaction(events):
    with pytest.raises(Exception, match="division by zero"):
        load(facts(_1="play"), rejected_sql="SELECT 1 / 0").execute(context(run_id="1"))
    assert events() == []


def test_a_run_id_that_could_end_a_string_does_not(events, warehouse):
    run_id = "'; DROP TABLE events; --"
    load(facts(_1="play"), rejected_sql=REJECTED).execute(context(run_id=run_id))
    assert events() == [(1, "play")]
    assert rows(warehouse, "SELECT run_id FROM etl_rejected_rows") == [(run_id,)]
