"""The files of ``include/checks``, and what a wrong one is told."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkify import declarations
from sparkify.declarations import DeclarationError, checks_of
from sparkify.tables import BOOKKEEPING, CHECKS_FOLDER, STAGING, STAR, TABLES
from tests.conftest import REPOSITORY

GOOD = {"sentence": "every user has a level", "not_null": "level"}
DECLARED = sorted(path.stem for path in CHECKS_FOLDER.glob("*.yaml"))


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what writes a file for dim_users and returns its checks."""
    monkeypatch.setattr(declarations, "CHECKS_FOLDER", tmp_path)

    def of(*checks: Any, scope: Any = "batch", **file: Any) -> Any:
        content = {"advice": "Look at it.", "checks": list(checks), **file}
        (tmp_path / "dim_users.yaml").write_text(yaml.safe_dump(content))
        declarations.read.cache_clear()
        return checks_of("dim_users", scope=scope)

    yield of
    declarations.read.cache_clear()


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"sentence": "x"}, "give exactly one of not_null, unique, .*, not none"),
        ({**GOOD, "unique": "user_id"}, "give exactly one of .*, not not_null and unique"),
        ({"not_null": "level"}, "checks.0.sentence: Field required"),
        ({"sentence": "x", "not_nul": "level"}, "checks.0.not_nul: Extra inputs are not permitted"),
        ({"sentence": "x", "not_null": []}, "checks.0.not_null: Value should have at least 1 item"),
        ({"sentence": "x", "not_null": "levle"}, r"'x': dim_users has no column levle: did you mean level\?"),
        (
            {"sentence": "x", "not_null": "z"},
            "'x': dim_users has no column z; there are user_id, first_name,",
        ),
        ({"sentence": "x", "unique": ["user_id", "; DROP"]}, "has no column ; DROP"),
        ({**GOOD, "severity": "warning"}, "checks.0.severity: Input should be 'error' or 'warn'"),
        ({**GOOD, "tolerance": {"rows": -1}}, "checks.0.tolerance.rows: Input should be greater than or"),
        ({**GOOD, "tolerance": {"share": 1}}, "checks.0.tolerance.share: Input should be less than 1"),
        ({**GOOD, "scope": "run"}, "checks.0.scope: Input should be 'batch' or 'table'"),
        ({"sentence": "x", "in_range": {"column": "last_event_at"}}, "in_range: Value error, give min, max"),
        (
            {"sentence": "x", "accepted_values": {"column": "level", "values": []}},
            "accepted_values.values: Tuple should have at least 1 item",
        ),
        (
            {"sentence": "x", "accepted_values": {"column": "level", "values": ["it's"]}},
            "has a quote, a backslash or a control character",
        ),
        (
            {"sentence": "x", "relationships": {"column": "user_id", "to": "dim_user", "field": "user_id"}},
            r"'x': there is no table dim_user: did you mean dim_users\?",
        ),
        (
            {"sentence": "x", "relationships": {"column": "user_id", "to": "dim_songs", "field": "user_id"}},
            "'x': dim_songs has no column user_id",
        ),
        ({"sentence": "x", "row_count": {"max": "dim_user"}}, "there is no table dim_user"),
        (
            {"sentence": "x", "fresh": {"column": "last_event_at", "within": "a day"}},
            "checks.0.fresh.within: String should match pattern",
        ),
        ({"sentence": "x", "sql": "SELECT * FROM {dim_user} AS users"}, "there is no table dim_user"),
        ({"sentence": "x", "sql": "SELECT 1", "where": "1 = 1"}, "sql has its own WHERE"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(declare, check, message):
    with pytest.raises(DeclarationError, match=message) as raised:
        declare(check)
    assert str(raised.value).startswith("include/checks/dim_users.yaml")


def test_an_empty_list_is_refused(declare):
    with pytest.raises(DeclarationError, match=r"dim_users.yaml: checks: Tuple should have at least 1 item"):
        declare()


def test_a_scope_for_which_nothing_is_declared_is_refused(declare):
    with pytest.raises(DeclarationError, match=r"dim_users.yaml declares no check of the scope batch"):
        declare({**GOOD, "scope": "table"})


def test_two_checks_of_one_sentence_are_refused(declare):
    with pytest.raises(DeclarationError, match=r"checks\.1, 'every user has a level': another"):
        declare(GOOD, GOOD)


def test_what_is_personal_must_be_there_to_be_masked(declare):
    with pytest.raises(DeclarationError, match="dim_users has no column firstname: did you mean first_name"):
        declare(GOOD, personal=["firstname"])


@pytest.mark.parametrize("text", ["checks: [", "- a list", ""])
def test_what_is_no_mapping_is_refused(declare, tmp_path, text):
    declare(GOOD)
    (tmp_path / "dim_users.yaml").write_text(text)
    declarations.read.cache_clear()
    with pytest.raises(DeclarationError, match=r"include/checks/dim_users.yaml: "):
        checks_of("dim_users", scope="batch")


def test_a_table_without_a_file_is_refused():
    with pytest.raises(DeclarationError, match=r"include/checks/etl_quality_results.yaml: .*No such file"):
        checks_of("etl_quality_results", scope="table")


def test_a_check_is_of_the_scopes_it_is_declared_for(declare):
    checks = [
        {**GOOD, "sentence": scope or "both", **({"scope": scope} if scope else {})} for scope in SCOPES
    ]
    assert [check.name for check in declare(*checks)] == ["dim_users: batch", "dim_users: both"]
    assert [check.name for check in declare(*checks, scope="table")] == [
        "dim_users: table",
        "dim_users: both",
    ]


SCOPES = ("batch", "table", None)


def test_a_batch_is_bounded_wherever_the_table_is_named(declare):
    batch = "user_id = '8'"
    checks = [GOOD, {"sentence": "x", "sql": "SELECT * FROM {dim_users} AS users"}]
    bounded = "(SELECT * FROM dim_users WHERE user_id = '8')"
    level, selected = declare(*checks, batch=batch)
    assert (level.rows, level.broken) == (bounded, "level IS NULL")
    assert selected.sql == f"SELECT * FROM {bounded} AS users"
    level, selected = declare(*checks, batch=batch, scope="table")
    assert (level.rows, selected.sql) == ("dim_users", "SELECT * FROM dim_users AS users")


def test_examples_mask_what_is_personal_in_any_table_that_a_check_reads(declare, tmp_path):
    (tmp_path / "staging_events.yaml").write_text(
        "{advice: none, personal: [firstname], checks: [{sentence: x, not_null: ts}]}"
    )
    (check,) = declare({"sentence": "x", "sql": "SELECT * FROM {staging_events} AS e"}, personal=["gender"])
    assert check.masked == ("firstname", "gender")


def test_every_key_that_a_table_declares_is_checked():
    for table in DECLARED:
        ddl = (REPOSITORY / "include" / "sql" / "ddl" / f"{table}.sql").read_text()
        key = re.search(r"PRIMARY KEY \((.+)\)", ddl)
        if key:
            unique = [check.columns for check in checks_of(table, scope="table") if check.kind == "unique"]
            assert tuple(key[1].split(", ")) in unique, table


def test_every_table_is_checked_but_that_of_the_results():
    assert set(DECLARED) == set(TABLES) - {"etl_quality_results"}
    assert all(checks_of(table, scope="table") for table in (*STAR, *BOOKKEEPING[:-1]))
    assert all(checks_of(table, scope="batch") for table in STAGING)


def test_every_check_says_what_to_do_and_names_of_people_are_masked():
    for table in DECLARED:
        assert all(check.advice for check in checks_of(table, scope="table" if table[0] != "s" else "batch"))
    assert {"firstname", "lastname", "location"} <= set(declarations.read("staging_events").personal)
    assert {"first_name", "last_name"} <= set(declarations.read("dim_users").personal)


def test_no_statement_of_an_hour_reads_a_large_table_but_where_the_batch_lies():
    large = ("fact_songplays", "dim_time", "etl_sessions", "etl_files", "etl_rejected_rows")
    for check in checks_of(*STAGING, *STAR, "etl_sessions", "etl_files", "etl_rejected_rows", scope="batch"):
        for sql in (check.sql, check.rows, check.count):
            bounded = re.sub(r"\(SELECT \* FROM (\w+) WHERE [^()]*(\([^()]*\)[^()]*)*\)", "", sql)
            assert not re.search(rf"FROM ({'|'.join(large)})\b", bounded), check.name
