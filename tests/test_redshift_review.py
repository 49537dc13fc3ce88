"""Holds every statement that is sent against the review of what Redshift makes of it."""

from collections.abc import Iterator

import psycopg
import pytest
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from local.settings import Settings
from sparkify.compat import HAS_PAGES
from sparkify.tables import SQL_FOLDER, TABLES
from tests import redshift_review
from tests.conftest import EVER, bound
from tests.pipeline import Pipeline
from tests.test_migrations import OLDEST, statements
from tests.test_roles import USER, admin, settings  # noqa: F401 - fixtures
from tests.test_runs import EVENT, OTHER_SONG, PREFIXES, SONG, Runs

WITHOUT_SESSION = EVENT | {"sessionId": None}


@pytest.fixture(scope="module")
def warehouse(stack: Settings, admin: object) -> Iterator[psycopg.Connection]:  # noqa: F811
    """The local Redshift, asked under another name than the pipeline's."""
    with psycopg.connect(stack.redshift_dsn, autocommit=True) as connection:
        connection.execute("SET search_path TO sparkify")
        yield connection


@pytest.fixture(scope="module")
def sent(stack: Settings, warehouse: psycopg.Connection) -> list[str]:
    """Everything that the DAGs can send, as the local Redshift was asked it."""
    (began,) = warehouse.execute("SELECT SYSDATE").fetchone() or ()
    s3 = S3Hook(aws_conn_id="aws_default")
    s3.create_bucket("runs", region_name="us-west-2")
    Pipeline("sparkify_create_roles").run("roles")
    runs = Runs(s3)
    runs.put("song_data/other.json", OTHER_SONG)
    runs.put("log_data/1.json", EVENT, EVENT | {"itemInSession": 1, "ts": EVENT["ts"] + 1000})
    runs(dry_run=True)
    runs()
    runs()
    audit = Pipeline("sparkify_audit")
    audit.run("audit", variables=PREFIXES)
    warehouse.execute("DELETE FROM fact_songplays WHERE item_in_session = 1")
    with pytest.raises(Exception, match="every play of the sampled files is there"):
        audit.run("audit", variables=PREFIXES, from_task="count_plays")
    runs(check_ledger=True)
    runs.put(
        "log_data/1.json",
        *(
            EVENT | {"ts": EVENT["ts"] + 5, "level": "free"},
            EVENT | {"itemInSession": 2, "ts": 1300000000000},
        ),
        *(EVENT | {"itemInSession": 3, "userId": ""}, WITHOUT_SESSION),
    )
    runs.put("song_data/late.json", SONG, OTHER_SONG | {"year": 1999})
    runs()
    window = {"replace_from": "2018-11-21T00:00:00Z", "replace_to": "2018-11-23T00:00:00Z"}
    runs(reload_prefix="s3://runs/log_data/", **window)
    runs.put("log_data/2.json", *[WITHOUT_SESSION] * 101)
    with pytest.raises(Exception, match="COPY rejected"):
        runs()
    runs.put("log_data/2.json", EVENT | {"sessionId": 819})
    for statement in [*(f"DROP TABLE {table}" for table in TABLES), *statements(OLDEST)]:
        warehouse.execute(statement.encode())
    for (table,) in warehouse.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'sparkify'"
    ).fetchall():
        warehouse.execute(f"ALTER TABLE {table} OWNER TO {USER}".encode())
    warehouse.execute(
        "INSERT INTO fact_songplays (songplay_id, start_time, user_id, session_id, item_in_session)"
        " VALUES ('x', '2018-11-01', '15', 1, 1)"
    )
    runs(check_ledger=True)
    Pipeline("sparkify_create_roles").run("again")
    Pipeline("sparkify_check_setup").run("setup")
    if HAS_PAGES:
        from sparkify.web.questions import QUESTIONS, answer

        answer(QUESTIONS["span_of_plays"], {}, None)
    Pipeline("sparkify_create_tables").run("drop", params={"drop_all_tables": True})
    asked = warehouse.execute(
        "SELECT statement FROM local_statements WHERE client LIKE 'sparkify_%%' AND started_at >= %s", [began]
    ).fetchall()
    s3.delete_bucket("runs", force_delete=True)
    questions = [
        bound(file, EVER)
        for folder in ("analytics", "operations")
        for file in (SQL_FOLDER / folder).glob("*.sql")
    ]
    return [*(statement for (statement,) in asked), *questions]


def test_each_statement_is_one_line_of_the_review(sent: list[str]) -> None:
    found = {redshift_review.kind(statement): redshift_review.matching(statement) for statement in sent}
    assert {statement: lines for statement, lines in found.items() if len(lines) != 1} == {}


@pytest.mark.skipif(not HAS_PAGES, reason="Airflow 3.0 has no place for the page, which sends some of them")
def test_each_line_of_the_review_is_a_statement_that_is_sent(sent: list[str]) -> None:
    lines = {line for statement in sent for line in redshift_review.matching(statement)}
    assert set(redshift_review.LINES) - lines == set()


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("SELECT 1,\n -2.5 -- why\n, 'x, y', t1.c2", "SELECT ?, ? , ?, t1.c2"),
        ("VALUES (%s, 1, 'a'), ($1, $2, NULL)".replace("%s", "$1"), "VALUES (?), (?, ?, NULL)"),
        ("WHERE s > -1000 AND s < 2000", "WHERE near(s)"),
        (
            "ON t.a = u.a AND t.s > 1 AND t.s < 9 AND ((t.s > 1 AND t.s < 2) OR (t.s > 7 AND t.s < 9))",
            "ON t.a = u.a AND near(t.s)",
        ),
    ],
)
def test_values_make_no_kinds(statement: str, kind: str) -> None:
    assert redshift_review.kind(statement) == kind


def test_the_page_shows_the_review() -> None:
    assert redshift_review.PAGE.read_text() == redshift_review.page(), "run `python -m tests.redshift_review`"
