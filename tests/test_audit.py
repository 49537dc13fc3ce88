"""The daily audit, of what a run has loaded and what was done to it since."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from sparkify import audit, findings
from sparkify.compat import AirflowFailException
from tests.conftest import rows
from tests.pipeline import Pipeline
from tests.test_runs import EVENT, PREFIXES, runs  # noqa: F401 - a fixture

PREFIX = {"staging_events": "s3://runs/log_data/", "staging_songs": "s3://runs/song_data/"}
CONNECTIONS = {"conn_id": "redshift", "aws_conn_id": "aws_default"}


@pytest.fixture(autouse=True)
def alerts(monkeypatch):
    """The texts of the alerts that were sent."""
    sent = []
    monkeypatch.setattr(findings, "warn", lambda context, texts: sent.extend(texts))
    return sent


@pytest.fixture
def loaded(runs):  # noqa: F811
    runs()
    return runs


def compare_ledger():
    return audit.compare_ledger(PREFIX, **CONNECTIONS, run_id="audit")


def compare_plays(run_id="audit"):
    return audit.compare_plays(PREFIX["staging_events"], **CONNECTIONS, run_id=run_id)


def test_a_warehouse_as_a_run_has_left_it_passes_all_of_it(loaded, warehouse, alerts):
    results = Pipeline("sparkify_audit").run("audit", variables=PREFIXES)
    assert results["compare_files"] == {audit.VANISHED.name: 0, audit.NOT_LOADED.name: 0}
    assert results["count_plays"] == {audit.LOST.name: 0, audit.DIFFERENT.name: 0}
    assert set(results["check_tables"].values()) == {0, 2}
    assert [alert.splitlines()[0] for alert in alerts] == [
        "warning: fact_songplays: one play in a hundred at least is of a known song: not so in 2 cases"
        " (2 rows checked; 1 are tolerated), such as"
    ]
    kept = rows(warehouse, "SELECT COUNT(*) FROM etl_quality_results WHERE run_id = 'audit'")
    assert kept == [(len(results["check_tables"]) + 4,)]


def test_before_the_first_run_there_is_nothing_to_audit(loaded, warehouse):
    assert audit.anything_to_audit("redshift")
    warehouse.run("ALTER TABLE etl_files RENAME TO etl_files_elsewhere")
    try:
        results = Pipeline("sparkify_audit").run("audit", variables=PREFIXES)
    finally:
        warehouse.run("ALTER TABLE etl_files_elsewhere RENAME TO etl_files")
    assert results == {"wait_for_load": None, "find_tables": False}


@pytest.mark.parametrize(("running", "goes_on"), [(0, True), (1, False)])
def test_it_waits_while_a_load_is_running(running, goes_on):
    asked = []

    def count(**of):
        asked.append(of)
        return running

    ti: Any = SimpleNamespace(get_dr_count=count)
    assert audit.no_load_is_running(ti, "sparkify_etl") is goes_on
    assert asked == [{"dag_id": "sparkify_etl", "states": ["running"]}]


def test_a_recorded_file_that_vanished_is_a_warning(loaded, alerts):
    loaded.s3.delete_objects("runs", "log_data/1.json")
    loaded.put("log_data/2.json", EVENT)
    assert compare_ledger() == {audit.VANISHED.name: 1, audit.NOT_LOADED.name: 0}
    assert "not so in 1 case (2 rows checked), such as\n  s3://runs/log_data/1.json\n" in alerts[0]


def test_what_was_recorded_of_another_prefix_has_not_vanished(loaded):
    elsewhere = {"staging_events": "s3://runs/log_data/2", "staging_songs": "s3://runs/song_data/"}
    loaded.put("log_data/2.json", EVENT)
    results = audit.compare_ledger(elsewhere, **CONNECTIONS, run_id="audit")
    assert results == {audit.VANISHED.name: 0, audit.NOT_LOADED.name: 0}


def test_a_file_that_was_not_loaded_for_a_day_fails(loaded, monkeypatch):
    loaded.put("log_data/2.json", EVENT | {"sessionId": 819})
    assert compare_ledger()[audit.NOT_LOADED.name] == 0
    monkeypatch.setattr(audit, "OVERDUE", timedelta(seconds=-60))  # as if it were tomorrow
    with pytest.raises(AirflowFailException, match=r"every file that is older than a day is loaded \(1\)"):
        compare_ledger()


def test_a_version_that_is_not_loaded_is_a_file_that_is_not(loaded, monkeypatch, logged):
    loaded.put("log_data/1.json", EVENT)
    monkeypatch.setattr(audit, "OVERDUE", timedelta(seconds=-60))
    with pytest.raises(AirflowFailException):
        compare_ledger()
    assert f"s3://runs/log_data/1.json, of {datetime.now(UTC):%Y-%m-%d} " in logged()


def test_plays_are_told_day_by_day(loaded, logged):
    compare_plays()
    assert "2018-11-21: 2 plays in s3://runs/log_data/1.json, 0 of them missing, 0 different" in logged()


def test_a_play_that_is_gone_fails(loaded, warehouse, logged):
    warehouse.run("DELETE FROM fact_songplays WHERE item_in_session = 1")
    with pytest.raises(
        AirflowFailException, match=r"1 of 2 .*every play of the sampled files is there \(1\)"
    ):
        compare_plays()
    assert "What to do: Trigger sparkify_etl with the address of these files as reload_prefix" in logged()


@pytest.mark.parametrize(
    "change",
    [
        *("start_time = '2017-01-01'", "user_id = '16'", "level = 'free'"),
        *("song_title = 'Setanta'", "artist_name = NULL", "duration = 269.5"),
    ],
)
def test_a_play_that_is_not_as_its_file_says_is_a_warning_wherever_it_is(loaded, warehouse, alerts, change):
    warehouse.run(f"UPDATE fact_songplays SET {change} WHERE item_in_session = 1")
    assert compare_plays() == {audit.LOST.name: 0, audit.DIFFERENT.name: 1}
    assert "1 different: session 818 item 1\n" in alerts[0]


def test_of_copies_of_a_play_the_one_that_is_loaded_is_compared(loaded):
    copies = [
        {"ts": EVENT["ts"] + more, "level": level} for more, level in ((5, "free"), (5, "paid"), (0, "z"))
    ]
    loaded.put("log_data/1.json", *(EVENT | {"song": "Setanta matins  "} | copy for copy in copies))
    loaded()
    assert compare_plays() == {audit.LOST.name: 0, audit.DIFFERENT.name: 0}


def test_what_was_rejected_and_what_is_no_play_of_a_user_is_not_missing(loaded, warehouse):
    loaded.put(
        "log_data/1.json",
        EVENT,
        EVENT | {"itemInSession": 2, "userId": ""},
        EVENT | {"itemInSession": 3, "page": "Home"},
        EVENT | {"itemInSession": "third"},
        EVENT | {"itemInSession": 5, "location": "x" * 600},
    )
    loaded()
    assert rows(warehouse, "SELECT COUNT(*) FROM etl_rejected_rows") == [(3,)]
    assert compare_plays()[audit.LOST.name] == 0
    warehouse.run("UPDATE etl_rejected_rows SET line_number = NULL WHERE column_name = 'iteminsession'")
    assert compare_plays()[audit.LOST.name] == 0


def test_files_that_are_not_loaded_yet_are_not_drawn(loaded):
    loaded.put("log_data/2.json", EVENT | {"sessionId": 819})
    assert compare_plays()[audit.LOST.name] == 0


def test_each_run_draws_other_files(loaded, monkeypatch):
    for number in range(audit.SAMPLED_FILES + 5):
        loaded.put(f"log_data/{number}.json", EVENT | {"sessionId": 900 + number})
    loaded()
    drawn = []
    read = audit.plays_of

    def noted(s3, hook, file):
        drawn.append(file.key)
        return read(s3, hook, file)

    monkeypatch.setattr(audit, "plays_of", noted)
    for run_id in ("monday", "tuesday", "tuesday"):
        compare_plays(run_id)
    monday, tuesday, again = (drawn[5 * number : 5 * number + 5] for number in range(3))
    assert len(drawn) == 3 * audit.SAMPLED_FILES
    assert set(monday) != set(tuesday) == set(again)
