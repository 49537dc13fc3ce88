"""The daily audit, of what a run has loaded and what was done to it since."""

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from sparkify import audit, findings
from sparkify.compat import AirflowException, AirflowFailException
from sparkify.state import WAREHOUSE
from sparkify.tables import DDL, SQL_FOLDER, TABLES
from tests.asset_state import AssetState, AssetStates
from tests.conftest import context, rows
from tests.pipeline import Pipeline, star
from tests.runs import EVENT, PREFIXES, SONG

PREFIX = {"staging_events": "s3://runs/log_data/", "staging_songs": "s3://runs/song_data/"}
CONNECTIONS = {"conn_id": "redshift", "aws_conn_id": "aws_default"}


@pytest.fixture(autouse=True)
def alerts(monkeypatch):
    """The texts of the alerts that were sent."""
    sent = []
    monkeypatch.setattr(findings, "warn", lambda context, texts: sent.extend(texts))
    return sent


@pytest.fixture
def loaded(runs):
    runs()
    return runs


@pytest.fixture
def seen(monkeypatch):
    """Let files count as seen by an earlier audit as soon as there was one."""
    monkeypatch.setattr(audit, "WAITED", timedelta(0))


@pytest.fixture
def of_audit():
    """The context of a task of the audit, whose state lasts for a test; no load is running."""
    ti: Any = SimpleNamespace(get_dr_count=lambda **_: 0)
    return context(run_id="audit", ti=ti, asset_state_store=AssetStates({WAREHOUSE.name: AssetState()}))


@pytest.fixture
def compare_ledger(of_audit):
    return lambda prefix=PREFIX: audit.compare_ledger(prefix, **CONNECTIONS, **of_audit)


@pytest.fixture
def compare_plays(of_audit):
    return lambda run_id="audit": audit.compare_plays(
        PREFIX["staging_events"], **CONNECTIONS, **of_audit | {"run_id": run_id}
    )


def audited(loaded, run_id="audit"):
    """Run the whole audit, which shares Airflow's state with the runs before it."""
    pipeline = Pipeline("sparkify_audit")
    pipeline.asset_state = loaded.pipeline.asset_state
    return pipeline.run(run_id, variables=PREFIXES)


def test_a_warehouse_as_a_run_has_left_it_passes_all_of_it(loaded, warehouse, alerts):
    results = Pipeline("sparkify_audit").run("audit", variables=PREFIXES)
    assert set(results["compare_files"].values()) == {0}
    assert results["count_plays"] == {audit.LOST.name: 0, audit.DIFFERENT.name: 0}
    assert set(results["check_tables"].values()) == {0, 2}
    assert [alert.splitlines()[0] for alert in alerts] == [
        "warning: fact_songplays: one play in a hundred at least is of a known song: not so in 2 cases"
        " (2 rows checked; 1 are tolerated), such as"
    ]
    kept = rows(warehouse, "SELECT COUNT(*) FROM etl_quality_results WHERE run_id = 'audit'")
    assert kept == [(len(results["check_tables"]) + 5,)]


@pytest.fixture
def nothing(warehouse):
    """The warehouse without any table."""
    warehouse.run([f"DROP TABLE IF EXISTS {table}" for table in TABLES])
    yield warehouse
    warehouse.run([f"DROP TABLE IF EXISTS {table}" for table in TABLES])
    warehouse.run([(SQL_FOLDER / DDL[table]).read_text() for table in TABLES])


def test_before_the_first_run_there_is_nothing_to_audit(nothing):
    assert Pipeline("sparkify_audit").run("audit", variables=PREFIXES) == {
        "wait_for_load": None,
        "find_tables": False,
    }


def of_events_or_songs(table):
    return "song" if table in ("dim_songs", "dim_artists") else "log"


RELOADED = ("fact_songplays", "dim_users", "dim_time", "dim_songs", "dim_artists")
REMEDIES = {table: {"check_ledger": True} for table in TABLES} | {
    table: {"reload_prefix": f"s3://runs/{of_events_or_songs(table)}_data/"} for table in RELOADED
}


@pytest.fixture
def emptied(loaded, warehouse):
    """A star with users, plays, times, songs and artists, to be compared with after a remedy."""
    loaded.put("song_data/1.json", SONG)
    loaded()
    before = star(warehouse)
    assert all(before.values())
    yield before
    warehouse.run([(SQL_FOLDER / DDL[table]).read_text() for table in TABLES])


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_was_dropped_is_named_with_a_remedy_that_brings_it_back(
    emptied, loaded, warehouse, table
):
    warehouse.run(f"DROP TABLE {table}")
    with pytest.raises(AirflowFailException) as failure:
        audited(loaded)
    ((name, value),) = REMEDIES[table].items()
    remedy = name if name == "check_ledger" else f"{name} {value}"
    assert f"The warehouse lacks {table}: " in str(failure.value)
    assert f"rigger sparkify_etl with {remedy}: it creates " in str(failure.value)
    if statement := re.search("Run (.*)[.] Then trigger", str(failure.value)):
        warehouse.run(statement[1])
    assert bool(statement) is (table == "etl_sessions")
    loaded(**REMEDIES[table])
    assert star(warehouse) == emptied
    assert audited(loaded, "again")["check_tables"]


def test_all_tables_that_were_dropped_are_noticed_however_long_ago_a_run_loaded(loaded, nothing):
    loaded.pipeline.asset_state[WAREHOUSE.name]["listings"]["recorded_at"] = "2018-11-01T00:00:00+00:00"
    with pytest.raises(
        AirflowFailException, match=r"lacks etl_batches, .*, dim_time: .* with check_ledger: "
    ):
        audited(loaded)
    loaded(check_ledger=True)
    assert audited(loaded, "again")["count_plays"] == {audit.LOST.name: 0, audit.DIFFERENT.name: 0}


@pytest.mark.parametrize("verb", ["DELETE FROM", "TRUNCATE"])
def test_plays_that_were_emptied_fail_with_a_remedy_that_brings_them_back(
    emptied, loaded, warehouse, logged, verb
):
    warehouse.run(f"{verb} fact_songplays")
    with pytest.raises(AirflowFailException, match="fact_songplays is not empty while files of plays are"):
        audited(loaded)
    assert "Somebody emptied fact_songplays. Trigger sparkify_etl with the value of the variable" in logged()
    loaded(reload_prefix=PREFIXES["sparkify_log_data"])
    assert star(warehouse) == emptied
    assert audited(loaded, "again")["check_tables"]


def test_files_without_plays_fill_no_table_and_are_no_failure(runs, warehouse):
    runs.put("log_data/1.json", EVENT | {"page": "Home"})
    runs()
    assert rows(warehouse, "SELECT COUNT(*) FROM fact_songplays") == [(0,)]
    results = audited(runs)
    assert (
        results["check_tables"]["etl_files: fact_songplays is not empty while files of plays are loaded"] == 0
    )


def test_a_column_that_was_dropped_is_named(emptied, loaded, warehouse):
    warehouse.run("ALTER TABLE dim_users DROP COLUMN gender")
    with pytest.raises(AirflowFailException, match="dim_users lacks the column gender"):
        audited(loaded)
    # At the end of the table, the column would take the values of another one.
    warehouse.run("ALTER TABLE dim_users ADD COLUMN gender VARCHAR(16)")
    with pytest.raises(AirflowFailException, match="dim_users has its columns in another order"):
        audited(loaded)
    warehouse.run("DROP TABLE dim_users")
    loaded(reload_prefix=PREFIXES["sparkify_log_data"])
    assert star(warehouse) == emptied


def test_a_column_that_was_dropped_and_added_again_is_a_warning(emptied, loaded, warehouse, alerts):
    column = "user_agent VARCHAR(1024)"
    assert column in (SQL_FOLDER / DDL["fact_songplays"]).read_text()
    warehouse.run(
        [
            "ALTER TABLE fact_songplays DROP COLUMN user_agent",
            f"ALTER TABLE fact_songplays ADD COLUMN {column}",
        ]
    )
    assert audited(loaded)["count_plays"] == {audit.LOST.name: 0, audit.DIFFERENT.name: 2}
    assert "2 different: session 818 item 0, session 818 item 1\n" in alerts[-1]
    loaded(reload_prefix=PREFIXES["sparkify_log_data"])
    assert star(warehouse) == emptied


@pytest.mark.parametrize(("running", "goes_on"), [(0, True), (1, False)])
def test_it_waits_while_a_load_is_running(running, goes_on):
    asked = []

    def count(**of):
        asked.append(of)
        return running

    ti: Any = SimpleNamespace(get_dr_count=count)
    assert audit.no_load_is_running(ti, "sparkify_etl") is goes_on
    assert asked == [{"dag_id": "sparkify_etl", "states": ["running"]}]


def between_tasks(loaded, warehouse):
    """Leave a load between two of its tasks: its plays are loaded, their times are not."""
    loaded.put("log_data/2.json", EVENT | {"sessionId": 819, "ts": EVENT["ts"] + 7000})
    loaded.pipeline.run("half", variables=PREFIXES, to_task="load_fact_songplays")


TASKS = ("check_tables", "compare_files", "count_plays")
LOADS = {
    "that is running": [{"running": 1, "success": 5}] * 2,
    "that has ended": [{"running": 1, "success": 5}, {"running": 0, "success": 6}],
    "that began": [{"running": 0, "success": 5}, {"running": 1, "success": 5}],
    "that began and ended": [{"running": 0, "success": 5}, {"running": 0, "success": 6}],
}


@pytest.mark.parametrize("load", LOADS)
def test_a_check_that_fails_beside_a_load_is_retried_and_not_told(loaded, warehouse, alerts, load, logged):
    between_tasks(loaded, warehouse)
    pipeline = Pipeline("sparkify_audit")
    counts = [count[state] for count in LOADS[load] for state in ("running", "success")]
    pipeline.count_runs = lambda **_: counts.pop(0)
    with pytest.raises(AirflowException, match="sparkify_etl was loading while this task") as failure:
        pipeline.run("audit", variables=PREFIXES, from_task="check_tables", to_task="check_tables")
    assert not isinstance(failure.value, AirflowFailException)  # which is not retried
    assert "every start_time is in dim_time" in str(failure.value)
    assert "clear it after the run of sparkify_etl has ended" in str(failure.value)
    assert "FAILED" not in logged()
    assert alerts == []
    assert rows(warehouse, "SELECT COUNT(*) FROM etl_quality_results WHERE run_id = 'audit'") == [(0,)]
    loaded.pipeline.run("half", variables=PREFIXES, from_task="load_dim_time")
    pipeline.count_runs = lambda **_: 0
    assert pipeline.run("audit", variables=PREFIXES, from_task="check_tables")["check_tables"]


def test_a_check_that_fails_without_a_load_fails(loaded, warehouse):
    between_tasks(loaded, warehouse)
    with pytest.raises(AirflowFailException, match="every start_time is in dim_time"):
        Pipeline("sparkify_audit").run("audit", variables=PREFIXES, from_task="check_tables")


@pytest.mark.parametrize("compare", ["compare_ledger", "compare_plays"])
def test_so_are_comparisons_with_files(loaded, warehouse, of_audit, request, monkeypatch, seen, compare):
    monkeypatch.setattr(audit, "OVERDUE", timedelta(seconds=-60))
    loaded.put("log_data/2.json", EVENT)
    request.getfixturevalue("compare_ledger")()
    warehouse.run("DELETE FROM fact_songplays")
    of_audit["ti"].get_dr_count = lambda dag_id, states: int("running" in states)
    with pytest.raises(AirflowException, match="sparkify_etl was loading") as failure:
        request.getfixturevalue(compare)()
    assert not isinstance(failure.value, AirflowFailException)


def test_checks_that_pass_beside_a_load_count(loaded, of_audit, compare_ledger):
    of_audit["ti"].get_dr_count = lambda **_: 1
    assert set(compare_ledger().values()) == {0}


def test_a_recorded_file_that_vanished_is_a_warning(loaded, alerts, compare_ledger):
    loaded.s3.delete_objects("runs", "log_data/1.json")
    loaded.put("log_data/2.json", EVENT)
    assert compare_ledger() == {audit.VANISHED.name: 1, audit.NOT_LOADED.name: 0, audit.QUARANTINED.name: 0}
    assert "not so in 1 case (2 rows checked), such as\n  s3://runs/log_data/1.json\n" in alerts[0]


def test_what_was_recorded_of_another_prefix_has_not_vanished(loaded, compare_ledger):
    elsewhere = {"staging_events": "s3://runs/log_data/2", "staging_songs": "s3://runs/song_data/"}
    loaded.put("log_data/2.json", EVENT)
    assert set(compare_ledger(elsewhere).values()) == {0}


def test_a_file_that_was_not_loaded_for_a_day_fails(loaded, monkeypatch, seen, compare_ledger):
    loaded.put("log_data/2.json", EVENT | {"sessionId": 819})
    assert compare_ledger()[audit.NOT_LOADED.name] == 0
    monkeypatch.setattr(audit, "OVERDUE", timedelta(seconds=-60))  # as if it were tomorrow
    with pytest.raises(AirflowFailException, match=r"every file that is older than a day is loaded \(1\)"):
        compare_ledger()


def test_a_version_that_is_not_loaded_is_a_file_that_is_not(
    loaded, monkeypatch, logged, seen, compare_ledger
):
    loaded.put("log_data/1.json", EVENT)
    compare_ledger()
    monkeypatch.setattr(audit, "OVERDUE", timedelta(seconds=-60))
    with pytest.raises(AirflowFailException):
        compare_ledger()
    assert f"s3://runs/log_data/1.json, of {datetime.now(UTC):%Y-%m-%d} " in logged()


def test_a_file_that_arrives_under_an_old_date_is_not_overdue_at_once(
    loaded, monkeypatch, of_audit, compare_ledger
):
    loaded.put("log_data/2.json", EVENT | {"sessionId": 819})
    monkeypatch.setattr(audit, "OVERDUE", timedelta(seconds=-60))  # as if its date were two days old
    for _ in range(2):  # a second audit at once proves no more than the first
        assert compare_ledger()[audit.NOT_LOADED.name] == 0
    state = of_audit["asset_state_store"][WAREHOUSE]
    assert [url for url, *_ in state.get(audit.WAITING)] == ["s3://runs/log_data/2.json"]
    state.set(
        audit.WAITING, [[url, etag, "2018-11-01T00:30:00"] for url, etag, _ in state.get(audit.WAITING)]
    )
    with pytest.raises(AirflowFailException, match="older than a day is loaded"):
        compare_ledger()
    loaded()
    assert set(compare_ledger().values()) == {0}
    assert state.get(audit.WAITING) == []


def test_of_many_waiting_files_the_oldest_are_remembered(loaded, monkeypatch, of_audit, compare_ledger):
    monkeypatch.setattr(audit, "MOST_WAITING", 2)
    for key in "cba":
        loaded.put(f"log_data/{key}.json", EVENT | {"sessionId": 819})
    compare_ledger()
    assert len(of_audit["asset_state_store"][WAREHOUSE].get(audit.WAITING)) == 2


def test_the_version_that_was_recorded_last_is_current_whatever_its_date(
    loaded, warehouse, monkeypatch, seen, compare_ledger, compare_plays
):
    monkeypatch.setattr(audit, "OVERDUE", timedelta(seconds=-60))
    record(warehouse, etag="newer date", last_modified="2099-01-01", loaded_at="2018-11-01")
    for _ in range(2):
        assert compare_ledger()[audit.NOT_LOADED.name] == 0
    assert compare_plays()[audit.LOST.name] == 0


def record(warehouse, **changes):
    """Record a version of the loaded file, by default the one that S3 has, as a run does."""
    ((etag, size, modified),) = rows(
        warehouse,
        "SELECT etag, size_bytes, last_modified FROM etl_files WHERE s3_key = 'log_data/1.json' LIMIT 1",
    )
    row = {
        "dataset": "staging_events",
        "s3_key": "log_data/1.json",
        "etag": etag,
        "size_bytes": size,
        "last_modified": modified,
        "run_id": "by hand",
        "loaded_at": datetime.now(UTC).replace(tzinfo=None),
    } | changes
    key = ("dataset", "s3_key", "etag", "last_modified")
    warehouse.run(
        f"DELETE FROM etl_files WHERE {' AND '.join(f'{column} = %s' for column in key)}",
        parameters=[row[column] for column in key],
    )
    warehouse.run(
        f"INSERT INTO etl_files ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})",
        parameters=list(row.values()),
    )


REASON = "150 of its 200 rows were rejected; at most 100 may be. Correct the file."
QUARANTINED = {"status": "quarantined", "reason": REASON}
A_DAY_AGO = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=25)


@pytest.fixture
def replaced(loaded, warehouse):
    """A loaded file that is older than a day."""
    warehouse.run("UPDATE etl_files SET loaded_at = '2018-11-01'")
    return loaded


def test_a_file_that_is_quarantined_for_more_than_a_day_fails(replaced, warehouse, logged, compare_ledger):
    record(warehouse, loaded_at=A_DAY_AGO, **QUARANTINED)
    with pytest.raises(
        AirflowFailException, match=r"no file is quarantined for more than a day \(1\)"
    ) as failure:
        compare_ledger()
    since = f"{A_DAY_AGO:%Y-%m-%d %H:%M} UTC"
    # The alert shows it.
    _, to_do, which = str(failure.value).splitlines()
    assert to_do.startswith("Upload a corrected version of the file")
    assert which == f"  s3://runs/log_data/1.json, since {since}: {REASON}"
    assert f"\n  s3://runs/log_data/1.json, since {since}: {REASON}\n  What to do: Upload" in logged()


def test_a_file_that_is_quarantined_since_today_is_no_failure(replaced, warehouse, compare_ledger):
    record(warehouse, **QUARANTINED)
    assert set(compare_ledger().values()) == {0}


@pytest.mark.parametrize("solution", ["corrected", "uploaded as it was", "loaded", "deleted"])
def test_a_quarantined_file_is_solved(replaced, warehouse, compare_ledger, solution):
    record(warehouse, loaded_at=A_DAY_AGO, **QUARANTINED)
    if solution == "corrected":
        replaced.put("log_data/1.json", EVENT)
    elif solution == "uploaded as it was":
        warehouse.run("UPDATE etl_files SET last_modified = '2018-11-01' WHERE status = 'quarantined'")
    elif solution == "loaded":
        record(warehouse, last_modified="2018-11-01")  # an older date, recorded later
    else:
        replaced.s3.delete_objects("runs", "log_data/1.json")
        replaced.put("log_data/2.json", EVENT)
    assert compare_ledger() == {audit.VANISHED.name: 0, audit.NOT_LOADED.name: 0, audit.QUARANTINED.name: 0}


@pytest.mark.parametrize("status", ["quarantined", "ignored"])
def test_only_loaded_files_are_compared_and_the_others_are_recorded(
    replaced, warehouse, monkeypatch, seen, compare_ledger, compare_plays, status
):
    record(warehouse, status=status, reason=REASON)
    warehouse.run("DELETE FROM fact_songplays")
    assert compare_plays() == {audit.LOST.name: 0, audit.DIFFERENT.name: 0}
    replaced.s3.delete_objects("runs", "song_data/other.json")
    replaced.put("song_data/2.json", SONG)
    record(warehouse, dataset="staging_songs", s3_key="song_data/other.json", status=status, reason=REASON)
    monkeypatch.setattr(audit, "OVERDUE", timedelta(days=-1))
    monkeypatch.setattr(audit, "WAITED", timedelta(days=1))
    if status == "ignored":
        assert set(compare_ledger().values()) == {0}
    else:
        with pytest.raises(AirflowFailException, match=r"1 of 3 .* quarantined for more than a day \(1\)"):
            compare_ledger()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"status": "lost", "reason": "x"}, "every status is known"),
        ({"status": "quarantined"}, "every file that is not loaded has a reason"),
        ({"status": "ignored", "reason": ""}, "every file that is not loaded has a reason"),
        ({"size_bytes": 0}, "no file that is not ignored is smaller than a byte"),
        ({"size_bytes": 0, **QUARANTINED}, "no file that is not ignored is smaller than a byte"),
        ({"size_bytes": 0, "status": "ignored", "reason": "it is empty"}, None),
    ],
)
def test_the_ledger_is_checked(replaced, warehouse, logged, change, sentence):
    record(warehouse, **change)
    if sentence is None:
        assert audited(replaced)["check_tables"]
        return
    with pytest.raises(AirflowFailException, match=rf"^1 of \d+ checks failed: etl_files: {sentence}"):
        audited(replaced)
    assert REASON not in logged()  # it may quote a row


def test_plays_are_told_day_by_day(loaded, logged, compare_plays):
    compare_plays()
    assert "2018-11-21: 2 plays in s3://runs/log_data/1.json, 0 of them missing, 0 different" in logged()


def test_a_play_that_is_gone_fails(loaded, warehouse, logged, compare_plays):
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
        *("location = 'Dallas'", "user_agent = NULL"),
    ],
)
def test_a_play_that_is_not_as_its_file_says_is_a_warning_wherever_it_is(
    loaded, warehouse, alerts, change, compare_plays
):
    warehouse.run(f"UPDATE fact_songplays SET {change} WHERE item_in_session = 1")
    assert compare_plays() == {audit.LOST.name: 0, audit.DIFFERENT.name: 1}
    assert "1 different: session 818 item 1\n" in alerts[0]


def test_of_copies_of_a_play_the_one_that_is_loaded_is_compared(loaded, compare_plays):
    copies = [
        {"ts": EVENT["ts"] + more, "level": level} for more, level in ((5, "free"), (5, "paid"), (0, "z"))
    ]
    loaded.put("log_data/1.json", *(EVENT | {"song": "Setanta matins  "} | copy for copy in copies))
    loaded()
    assert compare_plays() == {audit.LOST.name: 0, audit.DIFFERENT.name: 0}


def test_what_was_rejected_and_what_is_no_play_of_a_user_is_not_missing(loaded, warehouse, compare_plays):
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


def test_files_that_are_not_loaded_yet_are_not_drawn(loaded, compare_plays):
    loaded.put("log_data/2.json", EVENT | {"sessionId": 819})
    assert compare_plays()[audit.LOST.name] == 0


def test_each_run_draws_other_files(loaded, monkeypatch, compare_plays):
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
