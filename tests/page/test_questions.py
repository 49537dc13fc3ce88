"""What the page asks the warehouse, and how."""

import gc
import json
import os
from datetime import UTC, date, datetime
from typing import Any

import pytest
import redshift_connector

from sparkify.compat import HAS_PAGES

if not HAS_PAGES:
    pytest.skip("Airflow 3.0 has no place for a page", allow_module_level=True)

from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook

from sparkify.web import questions
from sparkify.web.questions import QUESTIONS, Question, answer
from tests.conftest import rows

EVER: dict[str, Any] = {
    "range_start": datetime(2018, 1, 1),
    "range_end": datetime(2019, 1, 1),
    "dataset": "",
    "run": "",
    "file": "",
    "reason": "",
    "page": 0,
}
PLAYS = (
    "INSERT INTO fact_songplays"
    " (songplay_id, start_time, user_id, level, session_id, item_in_session, song_title, artist_name,"
    " duration, location) VALUES"
    " ('a', '2018-11-01 10:00:00', '1', 'free', 1, 0, 'One', 'X', 60, 'Dallas, TX'),"
    " ('b', '2018-11-01 10:30:00', '1', 'paid', 1, 1, 'Two', 'X', 60, 'Dallas, TX'),"
    " ('c', '2018-11-02 00:00:00', '2', 'paid', 2, 0, 'Two', 'X', 60, 'Dallas, TX')"
)


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """Let each test ask anew, whatever other files of tests have asked in this process."""
    answer.cache.clear()


def asked(name: str, loaded: Any = None, **values: Any) -> list[tuple[Any, ...]]:
    question = QUESTIONS[name]
    relevant = {parameter: (EVER | values)[parameter] for parameter in question.parameters}
    return list(answer(question, relevant, loaded).rows)


# The answers about the second of the plays above.
OF_ONE_PLAY = {
    "active_users_by_day": (date(2018, 11, 1), 1, 1, 1),
    "catalogue_coverage": (datetime(2018, 11, 1), 1, 0, 0),
    "free_against_paid": ("paid", 1, 1, 1, 1, 0),
    "plays_by_day": (date(2018, 11, 1), 1, 0),
    "plays_by_hour": (10, 1, 100),
    "plays_by_weekday": (4, "Thu", 1, 1),
    "plays_by_weekday_and_hour": (4, 10, 1),
    "plays_of_unknown_songs": ("Two", "X", 60, 1),
    "session_length": ("paid", 1, 1, 1, 0, 0),
    "top_artists": ("X", 1, 1, 1),
    "top_locations": ("Dallas, TX", 1, 1, 1),
    "top_songs": ("Two", "X", 1, 1),
    "totals": (1, 1, 1, 1, 0, 0),
}


@pytest.mark.parametrize("name", [name for name in QUESTIONS if "range_start" in QUESTIONS[name].parameters])
def test_a_range_begins_with_its_start_and_ends_before_its_end(warehouse: RedshiftSQLHook, name: str) -> None:
    times = (
        "INSERT INTO dim_time (start_time, hour, day, week, month, year, weekday)"
        " SELECT start_time, EXTRACT(HOUR FROM start_time), 1, 1, 11, 2018, EXTRACT(DOW FROM start_time)"
        " FROM fact_songplays"
    )
    warehouse.run([PLAYS, times])
    within = {"range_start": datetime(2018, 11, 1, 10, 30), "range_end": datetime(2018, 11, 2)}
    assert asked(name, **within) == [OF_ONE_PLAY[name]]


def test_an_answer_is_kept_until_a_run_ends(warehouse: RedshiftSQLHook) -> None:
    statements = "SELECT COUNT(*) FROM local_statements WHERE statement LIKE '%oldest' || '_play%'"
    assert asked("span_of_plays")[0][0] == 0
    warehouse.run(PLAYS)
    ((before,),) = rows(warehouse, statements)
    assert asked("span_of_plays")[0][0] == 0
    assert rows(warehouse, statements) == [(before,)]
    assert asked("span_of_plays", loaded=datetime.now(UTC))[0][0] == 3


def test_nothing_can_be_changed(warehouse: RedshiftSQLHook) -> None:
    deletes = Question("delete", "", "DELETE FROM fact_songplays", frozenset())
    with pytest.raises(redshift_connector.Error, match="read-only transaction"):
        answer(deletes, {}, None)


def test_a_question_that_takes_too_long_is_given_up(
    warehouse: RedshiftSQLHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "ANSWER_MILLISECONDS", 50)
    numbers = "SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5"
    many = ", ".join(f"({numbers}) AS t{number}" for number in range(12))
    with pytest.raises(redshift_connector.Error, match="statement timeout"):
        answer(Question("slow", "", f"SELECT COUNT(*) FROM {many}", frozenset()), {}, None)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # which a refused login leaves
def test_the_read_only_connection_goes_before_the_pipelines(
    warehouse: RedshiftSQLHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"]) | {"login": "analyst"}
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT_READONLY", json.dumps(wrong))
    with pytest.raises(redshift_connector.Error, match='authentication failed for user "analyst"'):
        asked("span_of_plays")
    gc.collect()


REJECTED = (
    "INSERT INTO etl_rejected_rows"
    " (dataset, s3_key, line_number, column_name, reason, raw_line, run_id, rejected_at) VALUES"
)


def test_rejected_rows_come_fifty_at_a_time_the_latest_first(warehouse: RedshiftSQLHook) -> None:
    values = ", ".join(
        f"('staging_events', 's3://b/{number % 2}.json', {number}, 'ts', 'Too long', '{{}}', 'r',"
        f" '2018-11-01 00:{number // 60:02}:{number % 60:02}')"
        for number in range(120)
    )
    warehouse.run(f"{REJECTED} {values}")
    pages = [asked("rejected_rows", page=page) for page in range(4)]
    assert [len(page) for page in pages] == [50, 50, 20, 0]
    assert [row[2] for page in pages for row in page] == list(range(119, -1, -1))
    assert {row[-1] for row in pages[0]} == {120}
    assert {row[1] for row in asked("rejected_rows", file="/1.json")} == {"s3://b/1.json"}
    assert len(asked("rejected_rows", reason="too LONG")) == 50
    assert asked("rejected_rows", dataset="staging_songs") == []
    assert len(asked("rejected_rows", run="r")) == 50
    assert asked("rejected_rows", run="another") == []


@pytest.mark.parametrize("text", ["' OR '1' = '1", "\\", "%", "'; DROP TABLE fact_songplays; --"])
def test_a_filter_is_a_value_and_no_sql(warehouse: RedshiftSQLHook, text: str) -> None:
    row = "('staging_events', 's3://b/0.json', 1, 'ts', 'Too long', '{}', 'r', '2018-11-01')"
    warehouse.run(f"{REJECTED} {row}")
    for name in ("dataset", "run", "file", "reason"):
        assert asked("rejected_rows", **{name: text}) == []


LEDGER = (
    "INSERT INTO etl_files (dataset, s3_key, etag, size_bytes, last_modified, run_id, loaded_at, status,"
    " reason, rows_read, rows_rejected) VALUES"
)


def record(warehouse: RedshiftSQLHook, *versions: tuple[str, str, str]) -> None:
    """Record versions of files, each a minute after the one before, and each with an older date than it."""
    values = [
        f"('staging_events', '{key}', '{number}', 100, '2018-11-{30 - number}', 'run {number}',"
        f" '2018-12-01 00:{number:02}:00', '{status}', {reason}, 10, 4)"
        for number, (key, status, reason) in enumerate(versions)
    ]
    warehouse.run(f"{LEDGER} {', '.join(values)}")


def test_the_version_of_a_file_that_was_loaded_last_is_its_state(warehouse: RedshiftSQLHook) -> None:
    record(
        warehouse,
        ("log_data/corrected.json", "quarantined", "'Too long'"),
        ("log_data/spoilt.json", "loaded", "NULL"),
        ("log_data/corrected.json", "loaded", "NULL"),
        ("log_data/spoilt.json", "quarantined", "'Too short'"),
        ("log_data/a.csv", "ignored", "'its suffix is .csv'"),
        ("log_data/b.csv", "ignored", "'its suffix is .csv'"),
        ("log_data/c.txt", "ignored", "'its suffix is .txt'"),
    )
    assert asked("file_states") == [
        ("staging_events", "ignored", 3),
        ("staging_events", "loaded", 1),
        ("staging_events", "quarantined", 1),
    ]
    newest, loaded = datetime(2018, 11, 28), datetime(2018, 12, 1, 0, 2)
    assert asked("files_by_dataset") == [("staging_events", 1, 1, 3, 100, newest, loaded)]
    assert asked("quarantined_files") == [
        (
            *("staging_events", "log_data/spoilt.json", "Too short", 10, 4, 100),
            *(datetime(2018, 11, 27), datetime(2018, 12, 1, 0, 3), "run 3"),
        )
    ]
    assert asked("ignored_files") == [
        ("staging_events", "its suffix is .csv", 2, "log_data/a.csv", datetime(2018, 11, 26)),
        ("staging_events", "its suffix is .txt", 1, "log_data/c.txt", datetime(2018, 11, 24)),
    ]


def test_quarantined_files_come_the_newest_first(warehouse: RedshiftSQLHook) -> None:
    record(warehouse, *((f"log_data/{number}.json", "quarantined", "'Too long'") for number in range(3)))
    assert [row[1] for row in asked("quarantined_files")] == [
        f"log_data/{number}.json" for number in (2, 1, 0)
    ]
