import pytest

from sparkify import findings
from sparkify.checks import Check
from sparkify.compat import AirflowException, AirflowFailException
from sparkify.declarations import checks_of
from sparkify.operators import DataQualityOperator
from tests.conftest import rows

CONTEXT = {"run_id": "run 1"}
ONE_ROW = Check(
    "dim_users: one row per user_id",
    "SELECT user_id, COUNT(*) AS copies FROM dim_users GROUP BY user_id HAVING COUNT(*) > 1",
    advice="Delete the copies.",
)
LEVELS = Check(
    "dim_users: every user has a level",
    "SELECT * FROM dim_users AS users WHERE level IS NULL",
    rows="dim_users",
    broken="level IS NULL",
    masked=("gender", "last_name"),
)
PAYING = Check(
    "dim_users: nobody pays",
    "SELECT user_id FROM dim_users AS users WHERE level = 'paid'",
    severity="warn",
    rows="dim_users",
)


def check(*checks, **changes):
    return DataQualityOperator(task_id="check", checks=checks, **changes)


@pytest.fixture(autouse=True)
def alerts(monkeypatch):
    """The texts of the alerts that were sent."""
    sent = []
    monkeypatch.setattr(findings, "warn", lambda context, texts: sent.extend(texts))
    return sent


@pytest.fixture
def users(warehouse):
    warehouse.run(
        "INSERT INTO dim_users (user_id, last_name, level, last_event_at) VALUES ('8', 'Koch', 'free',"
        " '2018-11-01'), ('8', 'Koch', 'paid', '2018-11-02'), ('9', 'Oe', NULL, '2018-11-01')"
    )
    return warehouse


def test_every_failing_check_is_told_before_the_task_fails(users, logged):
    with pytest.raises(AirflowFailException) as raised:
        check(ONE_ROW, LEVELS, PAYING).execute(CONTEXT)
    one_row = (
        "FAILED: dim_users: one row per user_id: not so in 1 case, such as\n"
        '  {"user_id": "8", "copies": 2}\n'
        "  What to do: Delete the copies.\n"
    )
    assert str(raised.value) == (
        "2 of 3 checks failed: dim_users: one row per user_id (1); dim_users: every user has a level (1)\n"
        "Delete the copies.\n"
        '  {"user_id": "8", "copies": 2}\n'
        '  {"user_id": "9", "first_name": null, "last_name": "***", "gender": null, "level": null,'
        ' "last_event_at": "2018-11-01 00:00:00"}'
    )
    assert one_row in logged()
    assert "FAILED: dim_users: every user has a level: not so in 1 case (3 rows checked), such as" in logged()


def test_examples_hide_what_is_masked_but_for_what_is_missing(users, logged):
    with pytest.raises(AirflowException):
        check(LEVELS).execute(CONTEXT)
    assert (
        '{"user_id": "9", "first_name": null, "last_name": "***", "gender": null, "level": null,' in logged()
    )
    assert "Oe" not in rows(users, "SELECT example FROM etl_quality_results")[0][0]


def test_up_to_five_examples_are_shown(users, logged):
    users.run(
        "INSERT INTO dim_users (user_id, level, last_event_at) SELECT '1' || user_id, 'paid', last_event_at"
        " FROM dim_users UNION ALL SELECT '2' || user_id, 'paid', last_event_at FROM dim_users"
    )
    assert check(PAYING).execute(CONTEXT) == {"dim_users: nobody pays": 7}
    assert logged().count('  {"user_id": "') == 5
    assert rows(users, "SELECT REGEXP_COUNT(example, 'user_id') FROM etl_quality_results") == [(5,)]


def test_results_are_kept_also_when_the_task_fails_and_once_per_run(users):
    for _ in range(2):
        with pytest.raises(AirflowException):
            check(ONE_ROW, LEVELS, PAYING).execute(CONTEXT)
    kept = "SELECT run_id, check_name, table_name, severity, failed_rows FROM etl_quality_results"
    assert rows(users, f"{kept} ORDER BY check_name") == [
        ("run 1", "dim_users: every user has a level", "dim_users", "error", 1),
        ("run 1", "dim_users: nobody pays", "dim_users", "warn", 1),
        ("run 1", "dim_users: one row per user_id", "dim_users", "error", 1),
    ]


def test_a_warning_does_not_fail_the_task_and_is_sent(users, logged, alerts):
    check(PAYING).execute(CONTEXT)
    assert "warning: dim_users: nobody pays: not so in 1 case (3 rows checked), such as" in logged()
    assert [alert.splitlines()[1] for alert in alerts] == ['  {"user_id": "8"}']


def test_beside_a_failure_no_warning_is_sent_but_the_failure(users, alerts):
    with pytest.raises(AirflowException):
        check(ONE_ROW, PAYING).execute(CONTEXT)
    assert alerts == []


@pytest.mark.parametrize(
    ("severity", "tolerance", "outcome"),
    [
        ("error", {}, "failed"),
        ("error", {"tolerated_rows": 1}, "warning"),
        ("error", {"tolerated_share": 0.34}, "warning"),
        ("error", {"tolerated_share": 0.33}, "failed"),
        ("error", {"tolerated_rows": 1, "tolerated_share": 0.1}, "warning"),
        ("warn", {}, "warning"),
        ("warn", {"tolerated_rows": 1}, "passed"),
    ],
)
def test_what_is_tolerated_makes_a_warning_of_an_error_and_nothing_of_a_warning(
    users, alerts, severity, tolerance, outcome
):
    levels = Check(
        LEVELS.name, LEVELS.sql, severity=severity, rows="dim_users", broken=LEVELS.broken, **tolerance
    )
    task = check(levels)
    if outcome == "failed":
        with pytest.raises(AirflowException):
            task.execute(CONTEXT)
    else:
        task.execute(CONTEXT)
    assert len(alerts) == (outcome == "warning")
    # Whoever reads severity with failed_rows learns what became of the run.
    kept_as = {"failed": "error", "warning": "warn", "passed": "pass"}[outcome]
    assert rows(users, "SELECT severity, failed_rows FROM etl_quality_results") == [(kept_as, 1)]


def test_bad_data_is_not_retried_unless_told_so(users):
    with pytest.raises(AirflowException) as raised:
        check(ONE_ROW, retry_on_failure=True).execute(CONTEXT)
    assert not isinstance(raised.value, AirflowFailException)


def test_checks_of_what_another_run_has_staged_fail_by_its_name_and_not_by_its_rows(warehouse):
    warehouse.run("INSERT INTO etl_batches VALUES ('staging_songs', 'run 2', 1, SYSDATE)")
    with pytest.raises(AirflowFailException, match="staging_songs holds the files of run run 2"):
        check(ONE_ROW, reads=["staging_songs"]).execute(CONTEXT)
    assert rows(warehouse, "SELECT COUNT(*) FROM etl_quality_results") == [(0,)]


def test_a_task_without_checks_is_refused():
    with pytest.raises(ValueError, match="nothing is checked"):
        check()


def test_what_passes_is_asked_in_one_statement(warehouse):
    (began,) = warehouse.get_first("SELECT SYSDATE")
    check(*checks_of("fact_songplays", "dim_time", scope="table")).execute(CONTEXT)
    sent = warehouse.get_records(
        "SELECT statement FROM local_statements WHERE client <> '' AND started_at >= %s ORDER BY started_at",
        parameters=[began],
    )
    own = [statement.split()[0] for (statement,) in sent if "check" in statement]
    assert own == ["WITH", "DELETE", "INSERT"]


def test_results_are_handed_to_airflow(users):
    task = check(ONE_ROW, LEVELS, PAYING)
    with pytest.raises(AirflowException):
        task.execute(CONTEXT)
    handed = [
        (each.table, each.check_type, each.success, each.severity, each.actual) for each in task.check_results
    ]
    assert handed == [
        ("dim_users", "sql", False, "error", "1"),
        ("dim_users", "sql", False, "error", "1"),
        ("dim_users", "sql", False, "warn", "1"),
    ]


def test_the_longest_row_is_shown_as_an_example(warehouse):
    # Control characters, of which the real data has some, take six times their length as a row's text
    text = "'" + "\x18" * 1024 + "'"
    for _ in range(6):
        warehouse.run(
            "INSERT INTO staging_events (artist, song, useragent, iteminsession, sessionid, ts)"
            f" VALUES ({text}, {text}, {text}, 0, 0, '2018-11-01')"
        )
    longest = Check("staging_events: has no rows", "SELECT * FROM staging_events", severity="warn")
    assert check(longest).execute(CONTEXT) == {longest.name: 6}
    assert len(rows(warehouse, "SELECT example FROM etl_quality_results")[0][0]) == 65535
