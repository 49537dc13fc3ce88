"""What each kind of check finds (``tests/check_kinds.yaml``), and dbt's own test of that name beside it."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook

import sparkify.tables
from sparkify import declarations
from sparkify.checks import Check, count_broken
from sparkify.declarations import checks_of
from tests.conftest import REPOSITORY

CASES: list[dict[str, Any]] = yaml.safe_load((REPOSITORY / "tests" / "check_kinds.yaml").read_text())
#: dbt's macros, which are read and never imported.
DBT = Path(sys.prefix) / "dbt" / "dbt" / "include" / "global_project" / "macros"
DDL = {
    "pets": "id INTEGER,name VARCHAR(20),kind VARCHAR(10),weight DOUBLE PRECISION,owner_id INTEGER,"
    "seen_at TIMESTAMP",
    "owners": "id INTEGER",
}


def kind_of(case: Mapping[str, Any]) -> str:
    return next(kind for kind in case["check"] if kind in declarations.KINDS)


@pytest.fixture(scope="module")
def tables(created: RedshiftSQLHook) -> Iterator[RedshiftSQLHook]:
    """The warehouse with pets and owners."""
    created.run([f"CREATE TABLE {table} ({columns})" for table, columns in DDL.items()])
    yield created
    created.run([f"DROP TABLE {table}" for table in DDL])


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what declares one check of pets, and returns it."""
    (tmp_path / "ddl").mkdir()
    for table, columns in DDL.items():
        lines = "\n".join(f"    {column}," for column in columns.split(","))
        (tmp_path / "ddl" / f"{table}.sql").write_text(lines)
    (tmp_path / "owners.yaml").write_text("{advice: none, checks: [{sentence: one, not_null: id}]}")
    for module in (declarations, sparkify.tables):
        monkeypatch.setattr(module, "DDL", {table: f"ddl/{table}.sql" for table in DDL})
    monkeypatch.setattr(sparkify.tables, "SQL_FOLDER", tmp_path)
    monkeypatch.setattr(declarations, "CHECKS_FOLDER", tmp_path)

    def one(check: Mapping[str, Any], **file: Any) -> Check:
        declared = {"advice": "none", "checks": [{"sentence": "so it is", **check}], **file}
        (tmp_path / "pets.yaml").write_text(yaml.safe_dump(declared))
        declarations.read.cache_clear()
        sparkify.tables.column_names.cache_clear()
        return checks_of("pets", scope="table")[0]

    yield one
    declarations.read.cache_clear()
    sparkify.tables.column_names.cache_clear()


def fill(tables: RedshiftSQLHook, case: Mapping[str, Any]) -> None:
    for table in DDL:
        tables.run(f"DELETE FROM {table}")
        for row in case.get(table, []):
            places = ["DATEADD(HOUR, %s, SYSDATE)" if column == "seen_at" else "%s" for column in row]
            values = [
                int(value.split()[0]) if column == "seen_at" and value else value
                for column, value in row.items()
            ]
            insert = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(places)})"
            tables.run(insert, parameters=values)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{kind_of(case)}: {case['case']}")
def test_a_kind_finds(tables: RedshiftSQLHook, declare: Any, case: Mapping[str, Any]) -> None:
    fill(tables, case)
    check = declare(case["check"])
    ((_, broken, _),) = tables.get_records(count_broken([check]))
    assert broken == case["broken"]
    assert bool(broken) <= bool(tables.get_records(check.sql))  # so that there is an example


def test_every_kind_has_a_case_that_passes_and_one_that_fails() -> None:
    assert {kind_of(case) for case in CASES if case["broken"]} == set(declarations.KINDS)
    assert {kind_of(case) for case in CASES if not case["broken"]} == set(declarations.KINDS)


#: Those of dbt's tests, each of which is of one column.
DBT_CASES = [
    case
    for case in CASES
    if kind_of(case) in ("not_null", "unique", "accepted_values", "relationships")
    and not isinstance(case["check"][kind_of(case)], list)
]


@pytest.mark.parametrize("case", DBT_CASES, ids=lambda case: f"{kind_of(case)}: {case['case']}")
def test_dbt_finds_the_same(tables: RedshiftSQLHook, case: Mapping[str, Any]) -> None:
    kind = kind_of(case)
    argument = case["check"][kind]
    arguments = dict(argument) if isinstance(argument, dict) else {"column": argument}
    arguments["column_name"] = arguments.pop("column")
    if kind == "accepted_values" and isinstance(arguments["values"][0], int):
        arguments["quote"] = False
    where = case["check"].get("where")
    model = f"(SELECT * FROM pets AS p WHERE {where}) AS pets" if where else "pets"
    fill(tables, case)
    ((failures, *_),) = tables.get_records(dbt_test(kind, model=model, **arguments))
    assert failures == case.get("dbt", case["broken"])


@pytest.mark.parametrize(
    "case", [case for case in CASES if kind_of(case) == "fresh"], ids=lambda case: case["case"]
)
def test_dbt_finds_the_same_stale(tables: RedshiftSQLHook, case: Mapping[str, Any]) -> None:
    fill(tables, case)
    limit = case["check"]["fresh"]
    number, unit = limit["within"].split()
    hours = int(number) * {"minute": 1 / 60, "hour": 1, "day": 24}[unit.rstrip("s")]
    ((newest, asked),) = tables.get_records(dbt_freshness("pets", limit["column"]))
    # dbt takes NULL for the year 1, and compares so in Python (dbt.artifacts.resources.v1.components.Time)
    stale = newest is None or (asked.replace(tzinfo=None) - newest).total_seconds() > hours * 3600
    assert stale == bool(case["broken"])


def dbt_macros(file: str, **names: Any) -> Any:
    """Return the macros of one file of dbt's, without the tags that jinja2 does not know."""
    text = re.sub(r"{% test .*?{% endtest %}", "", (DBT / file).read_text(), flags=re.DOTALL)
    environment = jinja2.Environment(extensions=["jinja2.ext.do"])
    return environment.from_string(text, globals=names).module


def dbt_test(name: str, **arguments: Any) -> str:
    """Return the statement that dbt runs for a test: it selects the number of its failures."""
    macros = dbt_macros(
        f"generic_test_sql/{name}.sql",
        should_store_failures=lambda: False,
        execute=True,
        config=lambda **_: "",
    )
    main = getattr(macros, f"default__test_{name}")(**arguments)
    helpers = dbt_macros("materializations/tests/helpers.sql")
    return helpers.default__get_test_sql(main, "count(*)", "!= 0", "!= 0", None)


def dbt_freshness(source: str, loaded_at: str) -> str:
    """Return the statement by which dbt learns how fresh a source is, with dbt-redshift's clock."""
    said: list[str] = []

    def statement(*_: Any, caller: Any, **__: Any) -> str:
        said.append(caller())
        return ""

    macros = dbt_macros(
        "adapters/freshness.sql",
        statement=statement,
        current_timestamp=lambda: "GETDATE()",
        load_result=lambda _: "",
        **{"return": lambda _: ""},
    )
    macros.default__collect_freshness(source, loaded_at, None)
    return said[0]
