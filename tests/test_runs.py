"""What one run after another does: idle hours, late songs, corrections, reloads, overlapping runs."""

import json
from itertools import pairwise

import psycopg
import pytest

from local.redshift.postgres import Postgres
from local.settings import REDSHIFT_DATABASE
from sparkify.compat import AirflowFailException
from sparkify.files import list_prefix, split_url
from sparkify.operators import RecordFilesOperator
from sparkify.state import WAREHOUSE, fingerprint, forget
from sparkify.tables import TABLES
from tests.asset_state import AssetStates
from tests.conftest import context, rows
from tests.pipeline import Pipeline
from tests.runs import EVENT, OTHER_SONG, PREFIXES, SONG, asked

# They grow by the hour; the other tables grow with users, songs and what is wrong.
LARGE = ("fact_songplays", "dim_time", "etl_sessions", "etl_files")


def test_an_hour_without_news_asks_the_warehouse_nothing(runs, warehouse):
    assert runs()["record_files"]["staging_events"]["files"] == 1
    counts = [asked(warehouse), asked(warehouse)]
    assert runs() == {"find_new_files": False}
    counts.append(asked(warehouse))
    # Counting itself adds statements and connections: the same number with the run as without.
    without, with_run = (
        [after - before for before, after in zip(*pair, strict=True)] for pair in pairwise(counts)
    )
    assert with_run == without


def test_a_run_lists_each_prefix_once(runs, s3_requests):
    runs()
    assert s3_requests["ListObjectsV2", "runs"] == 2


def test_an_hour_without_news_lists_each_prefix_once_and_writes_nothing(runs, s3_requests):
    runs()
    s3_requests.clear()
    assert runs() == {"find_new_files": False}
    assert s3_requests == {("ListObjectsV2", "runs"): 2}


@pytest.fixture
def postgres(stack, created):
    """The PostgreSQL behind the local Redshift; it scans a table from end to end only where it must."""
    server = Postgres(stack)
    server.start()  # adopts the one that runs
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {REDSHIFT_DATABASE} SET enable_seqscan = off")
        yield connection
        connection.execute(f"ALTER DATABASE {REDSHIFT_DATABASE} RESET enable_seqscan")


@pytest.fixture
def scans(postgres):
    """Return how often each table was scanned from end to end."""
    return lambda: dict(postgres.execute("SELECT relname, seq_scan FROM pg_stat_user_tables").fetchall())


@pytest.fixture
def pages(postgres, warehouse):
    """Return how many pages of the large tables were read, now that they hold the plays of 250 days."""
    # Ten plays an hour, two to a session. As in the real logs, a session has the number that was next when
    # its listener stopped listening the last time: for every tenth, up to a hundred days before.
    postgres.execute(
        "INSERT INTO fact_songplays SELECT MD5(session || '-' || play % 2), moment, '15', 'free', NULL, NULL,"
        " session, play % 2, 'Song', 'Artist', 200.5, 'Chicago', REPEAT('Mozilla ', 12)"
        " FROM GENERATE_SERIES(100000, 159999) AS play, LATERAL (SELECT play / 2"
        " - CASE WHEN play / 2 % 10 = 0 THEN play / 2 * 7919 % 12000 + 1 ELSE 0 END AS session,"
        " TIMESTAMP '2017-01-01' + (play - 100000) * INTERVAL '6 minutes' AS moment) AS computed"
    )
    postgres.execute(
        "INSERT INTO etl_sessions SELECT DISTINCT session_id, DATE_TRUNC('hour', start_time)"
        " FROM fact_songplays ORDER BY session_id"
    )
    for table in LARGE:
        postgres.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")  # it reads pages, too
        postgres.execute(f"VACUUM ANALYZE {table}")

    def read():
        counted = postgres.execute(
            "SELECT relname, heap_blks_read + heap_blks_hit FROM pg_statio_user_tables"
        ).fetchall()
        return sum(count for name, count in counted if name in LARGE)

    yield read
    for table in LARGE:
        postgres.execute(f"ALTER TABLE {table} RESET (autovacuum_enabled)")


def test_an_hour_of_events_reaches_the_large_tables_by_their_zone_maps_alone(runs, scans):
    runs()
    before = scans()
    # A play that is there already, corrected, and a new one
    runs.put("log_data/1.json", EVENT | {"ts": EVENT["ts"] + 5}, EVENT | {"itemInSession": 2})
    result = runs()
    assert (result["load_fact_songplays"]["inserted"], result["load_fact_songplays"]["updated"]) == (1, 1)
    after = scans()
    assert after["dim_users"] > before["dim_users"]
    assert {table: after[table] - before[table] for table in LARGE} == dict.fromkeys(LARGE, 0)


@pytest.mark.parametrize(
    "odd_one",
    [
        pytest.param({"sessionId": 65_000}, id="of_a_listener_who_comes_back"),
        pytest.param({"sessionId": 65_000, "ts": 1488000000796}, id="of_a_device_that_was_offline"),
    ],
)
def test_one_odd_play_in_an_hour_costs_no_scan(runs, pages, odd_one):
    hour = [EVENT | {"sessionId": 80_000, "itemInSession": item, "ts": 1505088000796} for item in range(20)]
    costs = []
    for name, events in ("1", hour[:5]), ("2", hour[5:10]), ("3", [*hour[10:15], hour[15] | odd_one]):
        before = pages()
        runs.put(f"log_data/{name}.json", *events)
        assert runs()["load_fact_songplays"]["inserted"] == len(events)
        costs.append(pages() - before)
    assert costs[2] < 4 * costs[1]  # a second place in each table, rather than all of it


def test_a_warehouse_emptied_behind_its_back_is_noticed_when_the_ledger_is_checked(runs, warehouse):
    runs()
    warehouse.run(["DELETE FROM etl_files", "DELETE FROM fact_songplays"])
    assert runs() == {"find_new_files": False}
    assert runs(check_ledger=True)["load_fact_songplays"]["inserted"] == 2


def test_what_was_recorded_is_not_believed_for_longer_than_a_day(runs):
    runs()
    state = runs.pipeline.asset_state[WAREHOUSE.name]
    state["listings"]["recorded_at"] = "2020-01-01T00:00:00+00:00"
    again = runs()
    assert again["stage_events"]["files"] == 0
    assert again["record_files"]["staging_events"]["files"] == 0


def test_a_run_that_failed_before_the_end_is_done_again(runs, monkeypatch):
    def fail(self, context):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(RecordFilesOperator, "execute", fail)
        with pytest.raises(RuntimeError, match="killed"):
            runs()
    assert runs()["load_fact_songplays"]["unchanged"] == 2


def test_only_new_and_changed_files_are_staged(runs):
    runs()
    runs.put("log_data/2.json", EVENT | {"sessionId": 819})
    assert runs()["stage_events"]["files"] == 1
    runs.put("log_data/2.json", EVENT | {"sessionId": 819}, EVENT | {"sessionId": 819, "itemInSession": 1})
    third = runs()
    assert (third["stage_events"]["files"], third["stage_songs"]["files"]) == (1, 0)
    assert third["load_fact_songplays"]["inserted"] == third["load_fact_songplays"]["unchanged"] == 1


def candidates(runs, run):
    """Return the names of the files that the first task of a run handed over to stage_events."""
    bucket, key = split_url(run["find_new_files"]["staging_events"]["objects"])
    lines = runs.s3.read_key(key, bucket).splitlines()
    return [json.loads(line)["key"].removeprefix("log_data/") for line in lines]


def test_only_what_the_ledger_may_lack_or_is_wanted_again_is_handed_over(runs):
    assert candidates(runs, runs()) == ["1.json"]
    runs.put("log_data/2.json", EVENT | {"sessionId": 819})
    recorded = runs.pipeline.asset_state[WAREHOUSE.name]["listings"]["datasets"]["staging_events"]
    listed = list_prefix(runs.s3, PREFIXES["sparkify_log_data"]).objects
    recorded |= {"before": "2100-01-01T00:00:00", "older": fingerprint(listed)}
    again = runs(reload_prefix="s3://runs/log_data/1")
    assert (candidates(runs, again), again["stage_events"]["files"]) == (["1.json"], 1)
    assert candidates(runs, runs(check_ledger=True)) == ["1.json", "2.json"]


def test_a_file_that_was_corrected_is_loaded_when_the_run_is_cleared_from_staging_on(runs, warehouse):
    first = runs()
    runs.put("log_data/1.json", EVENT | {"level": "free"})
    runs.s3.delete_objects("runs", "song_data/other.json")
    runs.put("song_data/another.json", OTHER_SONG)
    again = runs.pipeline.run("run-1", variables=PREFIXES, from_task="stage_events")
    assert again["load_fact_songplays"]["updated"] == 1
    assert again["stage_events"]["listing"] != first["find_new_files"]["staging_events"]["listing"]
    assert runs() == {"find_new_files": False}  # what was listed last is what is remembered


def test_a_file_that_changes_after_it_was_listed_is_loaded_in_the_end(runs, warehouse):
    runs.pipeline.run("run-0", variables=PREFIXES, to_task="create_tables")
    runs.put("log_data/1.json", EVENT)
    runs.put("log_data/2.json", EVENT | {"itemInSession": 1})
    runs.pipeline.run("run-0", variables=PREFIXES, from_task="stage_events")
    assert rows(warehouse, "SELECT item_in_session FROM fact_songplays") == [(0,)]
    assert runs()["stage_events"]["files"] == 2
    assert rows(warehouse, "SELECT COUNT(*) FROM fact_songplays") == [(2,)]


def test_a_run_that_began_with_an_older_release_is_finished_by_this_one(runs, s3_requests):
    runs.pipeline.run("run-0", variables=PREFIXES, to_task="create_tables")["find_new_files"] = True
    s3_requests.clear()
    run = runs.pipeline.run("run-0", variables=PREFIXES, from_task="stage_events")
    assert (run["load_fact_songplays"]["inserted"], s3_requests["ListObjectsV2", "runs"]) == (2, 2)


def test_tables_that_are_dropped_after_the_listing_are_loaded_with_everything(runs, warehouse):
    runs()
    runs.pipeline.asset_state[WAREHOUSE.name]["listings"]["datasets"]["staging_events"]["newest"] = (
        "2100-01-01T00:00:00"
    )
    runs.put("song_data/late.json", SONG)
    runs.pipeline.run("run-2", variables=PREFIXES, to_task="create_tables")
    warehouse.run([f"DELETE FROM {table}" for table in TABLES])
    forget(context(asset_state_store=AssetStates(runs.pipeline.asset_state)))
    again = runs.pipeline.run("run-2", variables=PREFIXES, from_task="stage_events")
    assert again["load_fact_songplays"]["inserted"] == 2


def test_other_objects_are_ignored_counted_and_recorded_with_the_rule(runs, warehouse):
    runs.put("log_data/empty.json")
    runs.put("log_data/_SUCCESS", {})
    assert runs()["stage_events"]["ignored"] == 2
    assert rows(warehouse, "SELECT s3_key, reason FROM etl_files WHERE status = 'ignored' ORDER BY 1") == [
        ("log_data/_SUCCESS", "its name begins with . or _"),
        ("log_data/empty.json", "it is empty"),
    ]
    assert runs() == {"find_new_files": False}


def test_plays_find_a_song_that_arrives_later(runs, warehouse):
    runs()
    runs.put("song_data/late.json", SONG)
    assert runs()["relink_songplays"]["updated"] == 2
    assert rows(warehouse, "SELECT DISTINCT song_id, artist_id FROM fact_songplays") == [("SO1", "AR1")]


def test_plays_that_keep_their_song_are_not_even_selected(runs):
    runs.put("song_data/early.json", SONG)
    relinked = [runs()["relink_songplays"]]
    runs.put("song_data/another.json", OTHER_SONG)
    relinked.append(runs()["relink_songplays"])
    counts = [[counted[what] for what in ("inserted", "updated", "unchanged")] for counted in relinked]
    assert counts == [[0, 0, 0], [0, 0, 0]]


def test_without_new_songs_nothing_is_relinked(runs, warehouse):
    relinked = "SELECT COUNT(*) FROM local_statements WHERE statement LIKE %s"
    statement = "INSERT INTO fact_songplays_batch%loaded at any time%"
    runs()
    ((before,),) = warehouse.get_records(relinked, parameters=[statement])
    runs.put("log_data/2.json", EVENT | {"sessionId": 819})
    runs()
    assert before > 0
    assert warehouse.get_first(relinked, parameters=[statement])[0] == before


def test_a_corrected_time_leaves_no_orphan_in_dim_time(runs, warehouse):
    runs()
    runs.put("log_data/1.json", EVENT | {"ts": 1543000000796}, EVENT | {"itemInSession": 1})
    assert runs()["load_fact_songplays"]["updated"] == 2
    plays = rows(warehouse, "SELECT DISTINCT start_time FROM fact_songplays ORDER BY start_time")
    assert len(plays) == 2
    assert rows(warehouse, "SELECT start_time FROM dim_time ORDER BY start_time") == plays


def test_a_file_that_lost_a_line_replaces_a_window_of_plays(runs, warehouse):
    runs()
    runs.put("log_data/1.json", EVENT)
    assert runs()["load_fact_songplays"]["unchanged"] == 1
    again = runs(
        reload_prefix="s3://runs/log_data/",
        replace_from="2018-11-21T00:00:00+00:00",
        replace_to="2018-11-21T19:00:00-05:00",
    )
    assert again["load_fact_songplays"]["deleted"] == 2
    assert rows(warehouse, "SELECT item_in_session FROM fact_songplays") == [(0,)]
    assert rows(warehouse, "SELECT COUNT(*) FROM dim_time") == [(1,)]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"replace_from": "2018-11-21T00:00:00Z"}, "go together"),
        (
            {"replace_from": "2018-11-21T00:00:00Z", "replace_to": "2018-11-22T00:00:00Z"},
            "give reload_prefix",
        ),
        (
            {
                "reload_prefix": "s3://runs/",
                "replace_from": "2018-11-22T00:00:00Z",
                "replace_to": "2018-11-21T00:00:00Z",
            },
            "must be before",
        ),
        ({"reload_prefix": "log_data/"}, "reload_prefix"),
        ({"replace_from": "yesterday"}, "yesterday"),
        ({"reload_prefx": "s3://runs/"}, r"no parameter 'reload_prefx'. Did you mean 'reload_prefix'\?"),
        ({"full_refresh": True}, "no parameter 'full_refresh'. Trigger a new run: the parameters are check"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(runs, params, message):
    with pytest.raises(Exception, match=message):
        runs(**params)


def test_files_below_a_prefix_are_loaded_again_when_asked_for(runs):
    runs()
    again = runs(reload_prefix="s3://runs/log_data/")
    assert (again["stage_events"]["files"], again["stage_songs"]["files"]) == (1, 0)
    assert again["load_fact_songplays"]["unchanged"] == 2


def test_a_dry_run_lists_the_files_and_loads_nothing(runs, warehouse, logged):
    assert runs(dry_run=True) == {"find_new_files": False}
    assert "staging_events would stage 1 files" in logged()
    assert "s3://runs/log_data/1.json" in logged()
    assert rows(warehouse, "SELECT COUNT(*) FROM fact_songplays") == [(0,)]


def test_two_runs_at_once_do_not_mix_their_staging(runs):
    runs()
    runs.put("log_data/2.json", EVENT | {"sessionId": 819})
    first = runs.pipeline
    runs()
    with pytest.raises(AirflowFailException, match="staging_events holds the files of run run-2"):
        first.run("run-1", variables=PREFIXES, from_task="load_fact_songplays")


def test_of_runs_at_once_the_last_to_stage_is_right_and_the_others_say_so(runs, warehouse):
    runs.put("song_data/late.json", SONG)
    pipelines = {name: Pipeline() for name in ("first", "second", "third")}
    for name, pipeline in pipelines.items():
        pipeline.run(name, variables=PREFIXES, to_task="stage_events")
    for name in ("first", "second"):
        with pytest.raises(AirflowFailException, match="staging_events holds the files of run third"):
            pipelines[name].run(name, variables=PREFIXES, from_task="stage_songs")
    assert pipelines["third"].run("third", variables=PREFIXES, from_task="stage_songs")["record_files"]
    assert rows(warehouse, "SELECT COUNT(*), COUNT(song_id) FROM fact_songplays") == [(2, 2)]
    assert runs() != {"find_new_files": False}  # this pipeline remembers nothing
    assert rows(warehouse, "SELECT COUNT(*) FROM fact_songplays") == [(2,)]


def test_a_run_that_is_reset_before_it_records_its_files_records_none(runs, warehouse):
    runs.pipeline.run("run-0", variables=PREFIXES, to_task="check_star")
    reset = Pipeline("sparkify_create_tables")
    reset.asset_state = runs.pipeline.asset_state
    reset.run("reset", params={"drop_all_tables": True})
    with pytest.raises(AirflowFailException, match="etl_batches has no row of staging_events, staging_songs"):
        runs.pipeline.run("run-0", variables=PREFIXES, from_task="record_files")
    assert rows(warehouse, "SELECT * FROM etl_files") == []
    assert runs()["load_fact_songplays"]["inserted"] == 2


def test_a_reset_forgets_the_listing_also_of_a_run_that_records_until_the_tables_are_dropped(runs, warehouse):
    reset = Pipeline("sparkify_create_tables")
    reset.asset_state = runs.pipeline.asset_state
    reset.run("reset", params={"drop_all_tables": True}, to_task="confirm")
    runs()
    reset.run("reset", params={"drop_all_tables": True}, from_task="drop_tables")
    assert runs()["load_fact_songplays"]["inserted"] == 2
