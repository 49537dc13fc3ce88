"""A run that is cut off anywhere, and done again, leaves what an undisturbed run leaves."""

import copy
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from local.airflow import AIRFLOW, database_url
from local.settings import REGION, Settings
from sparkify.tables import STAR, TABLES
from tests.asset_state import AssetState
from tests.conftest import REPOSITORY, rows
from tests.expected_star import expected_star
from tests.pipeline import Pipeline

FAULT = Path(os.environ["LOCAL_REDSHIFT_FAULTS"])
NEVER = 1_000_000
ALL = "SPARKIFY_ALL_FAULTS" in os.environ
# "Before" a statement is, for what is in the tables, the same as "after" the one before it.
MOMENTS = ("before", "after") if ALL else ("after",)
# How Amazon's driver says that its connection was closed; the second, while it waits for the answer to BEGIN.
CUT_OFF = "server socket closed|unpack_from requires a buffer"

BUCKET = "crash"
VARIABLES = {
    "sparkify_log_data": f"s3://{BUCKET}/log_data/",
    "sparkify_song_data": f"s3://{BUCKET}/song_data/",
    "sparkify_work_prefix": f"s3://{BUCKET}/runs/",
}

Json = dict[str, Any]
Delivery = dict[str, list[Json]]
State = dict[str, list[tuple[Any, ...]]]


def event(session: int, item: int, minute: int, **fields: Any) -> Json:
    who = {"userId": "8", "firstName": "Ada", "lastName": "Bell", "gender": "F", "level": "free"}
    what = {"page": "NextSong", "song": f"Song {item}", "artist": "Elena", "length": 200.5 + item}
    when = {"sessionId": session, "itemInSession": item, "ts": 1541106000796 + minute * 60_000}
    return who | what | when | fields


def song(number: int, **fields: Any) -> Json:
    what = {"song_id": f"SO{number}", "title": f"Song {number}", "duration": 200.5 + number, "year": 2000}
    who = {"artist_id": "AR1", "artist_name": "Elena", "artist_location": ""}
    where = {"artist_latitude": None, "artist_longitude": None}
    return what | who | where | fields


LOGGED_OUT = event(2, 0, 5, userId="", firstName=None, lastName=None, gender=None)
WITHOUT_SESSION = event(3, 0, 6, sessionId=None)
FIRST_DELIVERY: Delivery = {
    "log_data/2018/10/2018-10-31-events.json": [event(7, 1, -1500), event(7, 2, -1490)],
    "log_data/2018/11/2018-11-01-events.json": [
        *(event(1, item, minute=4 * item) for item in range(3)),
        event(1, 3, 13, page="Home", song=None, artist=None, length=None),
        *(LOGGED_OUT, WITHOUT_SESSION),
    ],
    "song_data/A/A/A/TRAAA1.json": [song(0)],
}
# The first of November again, where a play now begins later and another is new; a second day; the songs of
# plays that were loaded without; and a record of a song and its artist that wins over theirs.
SECOND_DELIVERY: Delivery = {
    "log_data/2018/11/2018-11-01-events.json": [
        *(event(1, item, minute=4 * item + item // 2) for item in range(3)),
        *(LOGGED_OUT, WITHOUT_SESSION, event(1, 4, 15)),
    ],
    "log_data/2018/11/2018-11-02-events.json": [
        event(4, 0, 1500, level="paid"),
        event(4, 1, 1504, userId="9", firstName="Max"),
        event(5, 0, 1506, userId=None),
        event(6, 0, 1507) | {"ts": None},
    ],
    "song_data/A/A/A/TRAAA1.json": [song(0, year=2001, artist_latitude=1.5, artist_longitude=2.25)],
    "song_data/A/A/B/TRAAB1.json": [song(1)],
    "song_data/A/A/B/TRAAB2.json": [song(2, artist_id="AR2", artist_location="Oslo")],
}
DELIVERIES = {"first load": [FIRST_DELIVERY], "second delivery": [FIRST_DELIVERY, SECOND_DELIVERY]}


def deliver(s3: S3Hook, files: Delivery) -> None:
    for key, objects in files.items():
        s3.load_string("\n".join(map(json.dumps, objects)), key, BUCKET, replace=True)


def state(hook: RedshiftSQLHook, *, of_one_run: bool) -> State:
    """Return what a run must leave; each of two runs keeps what it rejects, under its own run_id."""
    distinct = "" if of_one_run else "DISTINCT"
    queries = {table: f"SELECT * FROM {table}" for table in STAR} | {
        "etl_files": "SELECT dataset, s3_key, etag, size_bytes, last_modified FROM etl_files",
        "etl_rejected_rows": f"SELECT {distinct} dataset, s3_key, line_number, column_name, reason,"
        " raw_value, raw_line FROM etl_rejected_rows",
    }
    return {table: sorted(rows(hook, sql), key=repr) for table, sql in queries.items()}


@dataclass(frozen=True)
class Scenario:
    """
    Deliveries, of which the last waits on S3, and what loading it comes to if nothing disturbs it.

    :param before: statements that bring the tables back to where they were before the last delivery
    :param asset_state: what Airflow knew then
    :param statements: what a run asks the warehouse
    """

    deliveries: list[Delivery]
    hook: RedshiftSQLHook
    before: list[str]
    asset_state: dict[str, AssetState]
    statements: list[str]
    expected: State
    expected_of_two_runs: State

    def restore(self) -> Pipeline:
        self.hook.run(self.before)
        pipeline = Pipeline()
        pipeline.asset_state = copy.deepcopy(self.asset_state)
        return pipeline

    def points(self) -> list[tuple[str, int]]:
        """Return every moment at which to cut off, or a sample: after every fourth commit of changes."""
        if ALL:
            return [(moment, n + 1) for n in range(len(self.statements)) for moment in MOMENTS]
        commits, changes = [], False
        for number, statement in enumerate(self.statements, start=1):
            if statement == "commit" and changes:
                commits.append(("after", number))
            changes = statement != "commit" and (
                changes or statement.startswith(("DELETE", "INSERT", "COPY"))
            )
        return commits[::4]


@pytest.fixture(scope="module", params=DELIVERIES)
def scenario(request: pytest.FixtureRequest, stack: Settings, created: RedshiftSQLHook) -> Iterator[Scenario]:
    s3, pipeline = S3Hook(aws_conn_id="aws_default"), Pipeline()
    s3.create_bucket(BUCKET, region_name=REGION)
    before = [f"DROP TABLE IF EXISTS {table}" for table in TABLES]
    created.run([*before, "CREATE SCHEMA saved"])
    *earlier, last = DELIVERIES[request.param]
    for files in earlier:
        deliver(s3, files)
        pipeline.run("earlier", variables=VARIABLES)
        created.run([f"CREATE TABLE saved.{table} AS SELECT * FROM {table}" for table in TABLES])
        empty = [f"DELETE FROM {table}" for table in TABLES]
        before = [*empty, *(f"INSERT INTO {table} SELECT * FROM saved.{table}" for table in TABLES)]
    deliver(s3, last)
    asset_state, began = copy.deepcopy(pipeline.asset_state), datetime.now(UTC).replace(tzinfo=None)
    FAULT.write_text(f"before {NEVER}")
    pipeline.run("first", variables=VARIABLES)
    count = NEVER - int(FAULT.read_text().split()[1])
    FAULT.unlink()
    asked = created.get_records(
        "SELECT statement FROM local_statements WHERE started_at >= %s ORDER BY started_at",
        parameters=[began],
    )
    yield Scenario(
        deliveries=DELIVERIES[request.param],
        hook=created,
        before=before,
        asset_state=asset_state,
        statements=[statement for (statement,) in asked[:count]],
        expected=state(created, of_one_run=True),
        expected_of_two_runs=state(created, of_one_run=False),
    )
    FAULT.unlink(missing_ok=True)
    created.run("DROP SCHEMA saved CASCADE")
    s3.get_bucket(BUCKET).objects.all().delete()
    s3.get_bucket(BUCKET).delete()


def cut_off(pipeline: Pipeline, moment: str, number: int, from_task: str | None = None) -> bool:
    """Run until the statement of that number, counted from here, cuts it off; return whether there is one."""
    FAULT.write_text(f"{moment} {number}")
    try:
        pipeline.run("first", variables=VARIABLES, from_task=from_task)
    except Exception as error:
        if not re.search(CUT_OFF, str(error)):
            raise
        assert not FAULT.exists()
        return True
    FAULT.unlink()
    return False


def objects(deliveries: list[Delivery], prefix: str) -> list[Json]:
    return [
        item
        for files in deliveries
        for key, content in files.items()
        if key.startswith(prefix)
        for item in content
    ]


def test_an_undisturbed_run_builds_the_star_by_all_that_a_run_can_do(scenario: Scenario) -> None:
    ever, latest = scenario.deliveries, [{k: v for files in scenario.deliveries for k, v in files.items()}]
    expected = expected_star(objects(ever, "log_data"), objects(ever, "song_data"))
    of_latest = expected_star(objects(latest, "log_data"), objects(latest, "song_data"))
    expected |= {table: of_latest[table] for table in ("fact_songplays", "dim_time")}
    for table in STAR:
        assert scenario.expected[table] == sorted(expected[table], key=repr), table
    assert {row[0] for row in scenario.expected["etl_rejected_rows"]} == {"staging_events", "fact_songplays"}
    replaced = [text for text in scenario.statements if text.startswith("DELETE FROM fact_songplays USING")]
    assert len(replaced) == (
        2 if len(ever) > 1 else 0
    )  # by changed plays, and by songs that came after plays


def test_a_run_whose_tasks_are_cut_off_at_each_statement_in_turn_ends_as_undisturbed(
    scenario: Scenario,
) -> None:
    pipeline = scenario.restore()
    task, point, faults = None, 0, 0
    while cut_off(pipeline, MOMENTS[point % len(MOMENTS)], point // len(MOMENTS) + 1, from_task=task):
        faults, point = faults + 1, point + 1
        if pipeline.current_task != task:  # the one before has no such statement, and is done
            task, point = pipeline.current_task, 0
    # Of creating tables, a try sends fewer statements once they are there; no others are fewer after a fault.
    loading = [text.startswith("SELECT s3_key") for text in scenario.statements].index(True)
    assert faults >= len(MOMENTS) * len(scenario.statements[loading:])
    assert state(scenario.hook, of_one_run=True) == scenario.expected


@pytest.mark.skipif(not ALL, reason="slow, so only where SPARKIFY_ALL_FAULTS is set: `make soak`")
def test_a_run_that_is_cut_off_once_ends_as_undisturbed_when_its_failed_task_is_retried(
    scenario: Scenario,
) -> None:
    for moment, number in scenario.points():
        pipeline = scenario.restore()
        assert cut_off(pipeline, moment, number)
        pipeline.run("first", variables=VARIABLES, from_task=pipeline.current_task)
        assert state(scenario.hook, of_one_run=True) == scenario.expected, (moment, number)


def test_a_run_after_one_that_was_cut_off_ends_as_undisturbed(scenario: Scenario) -> None:
    for moment, number in scenario.points():
        pipeline = scenario.restore()
        assert cut_off(pipeline, moment, number)
        pipeline.run("second", variables=VARIABLES)
        assert state(scenario.hook, of_one_run=False) == scenario.expected_of_two_runs, (moment, number)


@pytest.mark.parametrize("scenario", ["second delivery"], indirect=True)
def test_an_airflow_that_is_killed_while_it_replaces_plays_ends_as_undisturbed_when_run_again(
    scenario: Scenario, stack: Settings, new_metadata: Callable[[str], None]
) -> None:
    variables = {f"AIRFLOW_VAR_{name.upper()}": value for name, value in VARIABLES.items()}
    command = [AIRFLOW, "dags", "test", "sparkify_etl"]
    # A metadata database of its own: the run that is killed stays "running" there, and holds up others
    new_metadata("killed")
    metadata = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url(stack, "killed")}
    environment = os.environ | variables | metadata | {"PYTHONUNBUFFERED": "1"}
    scenario.restore()
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as airflow:
        too_late = Timer(120, os.killpg, (airflow.pid, signal.SIGKILL))
        too_late.start()
        log = airflow.stdout
        assert log
        assert any("COPY staging_songs" in line for line in log)
        blocker = scenario.hook.get_conn()
        # The run's DELETE waits for this to end
        blocker.cursor().execute("UPDATE fact_songplays SET level = level")
        assert any("DELETE FROM fact_songplays USING" in line for line in log)
        os.killpg(airflow.pid, signal.SIGKILL)
        too_late.cancel()
    blocker.close()
    assert state(scenario.hook, of_one_run=True)["fact_songplays"] != scenario.expected["fact_songplays"]
    again = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout
    assert state(scenario.hook, of_one_run=False) == scenario.expected_of_two_runs


@pytest.fixture
def pets(warehouse: RedshiftSQLHook) -> Iterator[RedshiftSQLHook]:
    warehouse.run(["CREATE TABLE pets (name VARCHAR(10))", "INSERT INTO pets VALUES ('Rex')"])
    yield warehouse
    FAULT.unlink(missing_ok=True)
    warehouse.run("DROP TABLE pets")


@pytest.mark.parametrize(
    ("fault", "kept"), [("before 3", "Rex"), ("after 3", "Rex"), ("before 4", "Rex"), ("after 4", "Tom")]
)
def test_a_transaction_that_is_cut_off_counts_only_if_its_commit_ran(
    pets: RedshiftSQLHook, fault: str, kept: str
) -> None:
    FAULT.write_text(fault)  # of BEGIN, DELETE, INSERT and COMMIT
    with pytest.raises(Exception, match=CUT_OFF):
        pets.run(["DELETE FROM pets", "INSERT INTO pets VALUES ('Tom')"], autocommit=False)
    assert not FAULT.exists()
    assert rows(pets, "SELECT name FROM pets") == [(kept,)]


@pytest.mark.parametrize(("fault", "kept"), [("before 1", 1), ("after 1", 0)])
def test_a_statement_of_its_own_that_is_cut_off_counts_only_if_it_ran(
    pets: RedshiftSQLHook, fault: str, kept: int
) -> None:
    FAULT.write_text(fault)
    with pytest.raises(Exception, match=CUT_OFF):
        pets.run("DELETE FROM pets", autocommit=True)
    assert rows(pets, "SELECT COUNT(*) FROM pets") == [(kept,)]
