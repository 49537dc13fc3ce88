import pytest

from sparkify.checks import Check, not_empty, not_null, references, unique
from sparkify.compat import AirflowException, AirflowFailException
from sparkify.operators import DataQualityOperator
from tests.conftest import rows

CONTEXT = {"run_id": "run 1"}


def check(*checks, **changes):
    return DataQualityOperator(task_id="check", checks=checks, **changes)


@pytest.fixture
def users(warehouse):
    warehouse.run(
        "INSERT INTO dim_users (user_id, level, last_event_at) VALUES"
        " ('8', 'free', '2018-11-01'), ('8', 'paid', '2018-11-02'), ('9', NULL, '2018-11-01')"
    )
    return warehouse


def test_every_failing_check_is_reported_with_an_example_before_the_task_fails(users, logged):
    checks = (unique("dim_users", "user_id"), not_null("dim_users", "level"), not_empty("dim_users"))
    with pytest.raises(
        AirflowException, match="2 of 3 checks failed: dim_users: one row per user_id; dim_users: lev"
    ):
        check(*checks).execute(CONTEXT)
    assert "FAILED: dim_users: one row per user_id: 1 rows do not, such as" in logged()
    assert "'9'" in logged()


def test_results_are_stored_also_when_the_task_fails_and_once_per_run(users):
    for _ in range(2):
        with pytest.raises(AirflowException):
            check(unique("dim_users", "user_id"), not_empty("dim_users")).execute(CONTEXT)
    stored = "SELECT run_id, check_name, table_name, severity, failed_rows FROM etl_quality_results"
    assert rows(users, f"{stored} ORDER BY failed_rows") == [
        ("run 1", "dim_users: has rows", "dim_users", "error", 0),
        ("run 1", "dim_users: one row per user_id", "dim_users", "error", 1),
    ]


def test_a_warning_does_not_fail_the_task(users, logged):
    doubtful = Check(
        "dim_users: nobody pays", "SELECT * FROM dim_users WHERE level = 'paid'", severity="warn"
    )
    assert check(doubtful).execute(CONTEXT) == {"dim_users: nobody pays": 1}
    assert "warning: dim_users: nobody pays: 1 rows do not" in logged()


def test_bad_data_is_not_retried_when_told_so(users):
    with pytest.raises(AirflowFailException):
        check(unique("dim_users", "user_id"), retry_on_failure=False).execute(CONTEXT)


def test_checks_of_what_another_run_has_staged_fail_by_its_name_and_not_by_its_rows(warehouse):
    warehouse.run("INSERT INTO etl_batches VALUES ('staging_songs', 'run 2', 1, SYSDATE)")
    with pytest.raises(AirflowFailException, match="staging_songs holds the files of run run 2"):
        check(not_empty("staging_songs"), reads=["staging_songs"]).execute(CONTEXT)
    assert rows(warehouse, "SELECT COUNT(*) FROM etl_quality_results") == [(0,)]


def test_an_empty_table_fails_has_rows(warehouse):
    with pytest.raises(AirflowException, match="dim_songs: has rows"):
        check(not_empty("dim_songs")).execute(CONTEXT)


def test_references_finds_the_orphans_only(users):
    users.run(
        "INSERT INTO fact_songplays (songplay_id, start_time, user_id, session_id, item_in_session, song_id)"
        " VALUES"
        " ('a', '2018-11-01', '8', 1, 0, NULL), ('b', '2018-11-01', '77', 1, 1, 'SO1')"
    )
    by_user, by_song = (
        references("fact_songplays", "user_id", to="dim_users"),
        references("fact_songplays", "song_id", to="dim_songs"),
    )
    with pytest.raises(AirflowException, match="2 of 2 checks failed"):
        check(by_user, by_song).execute(CONTEXT)
    assert rows(users, "SELECT failed_rows FROM etl_quality_results") == [(1,), (1,)]


def test_a_task_without_checks_is_refused():
    with pytest.raises(ValueError, match="nothing is checked"):
        check()


def test_the_longest_row_is_shown_as_an_example(warehouse):
    # Control characters, of which the real data has some, take four times their length as a row's text
    text = "'" + "\x18" * 1024 + "'"
    warehouse.run(
        "INSERT INTO staging_events (artist, song, useragent, iteminsession, sessionid, ts)"
        f" VALUES ({text}, {text}, {text}, 0, 0, '2018-11-01')"
    )
    longest = Check("staging_events: has no rows", "SELECT * FROM staging_events", severity="warn")
    assert check(longest).execute(CONTEXT) == {longest.name: 1}
    assert len(rows(warehouse, "SELECT example FROM etl_quality_results")[0][0]) > 3 * 4 * 1024
