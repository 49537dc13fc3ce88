"""Tables as the first release left them become those of now, with their rows."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.common.sql.hooks.sql import DbApiHook

from sparkify.operators import CreateTablesOperator
from sparkify.tables import DDL, MIGRATIONS, SQL_FOLDER, TABLES
from tests.conftest import REPOSITORY, context, rows
from tests.pipeline import star
from tests.runs import EVENT, PREFIXES, SONG, Runs

OLDEST = (REPOSITORY / "tests" / "migrations" / "before_0001.sql").read_text()
NEW_TABLES = ["etl_migrations", "etl_sessions"]
# The other migrations are about rows.
OF_DEFINITIONS = ["0001_longer_examples", "0003_file_status"]
SQL = {name: (SQL_FOLDER / file).read_text() for name, file in {**DDL, **MIGRATIONS}.items()}


def statements(script: str) -> list[str]:
    return DbApiHook.split_sql_string(script, strip_semicolon=True)


def create_tables() -> dict[str, list[str]]:
    operator = CreateTablesOperator(
        task_id="create_tables",
        ddl={table: SQL[table] for table in DDL},
        migrations={name: SQL[name] for name in MIGRATIONS},
    )
    return operator.execute(context())


def definitions(hook: RedshiftSQLHook) -> dict[str, list[tuple[Any, ...]]]:
    """Return each table's columns in order, with all that PG_TABLE_DEF says of them."""
    columns = rows(
        hook,
        'SELECT c.table_name, c.column_name, d.type, d.encoding, d.distkey, d.sortkey, d."notnull"'
        " FROM information_schema.columns AS c INNER JOIN pg_table_def AS d"
        ' ON c.table_name = d.tablename AND c.column_name = d."column"'
        " WHERE c.table_schema = CURRENT_SCHEMA() ORDER BY c.table_name, c.ordinal_position",
    )
    return {table: [column[1:] for column in columns if column[0] == table] for table in TABLES}


@pytest.fixture
def newest(warehouse: RedshiftSQLHook) -> dict[str, list[tuple[Any, ...]]]:
    return definitions(warehouse)


@pytest.fixture
def oldest(newest: object, warehouse: RedshiftSQLHook) -> Iterator[RedshiftSQLHook]:
    drop = [f"DROP TABLE IF EXISTS {table}" for table in TABLES]
    warehouse.run([*drop, *statements(OLDEST)])
    yield warehouse
    warehouse.run([*drop, *(SQL[table] for table in TABLES)])


def test_migrations_make_the_oldest_tables_those_that_are_created_now(
    newest: dict[str, list[tuple[Any, ...]]], oldest: RedshiftSQLHook
) -> None:
    assert definitions(oldest) != newest
    assert create_tables() == {"created": NEW_TABLES, "applied": OF_DEFINITIONS}
    assert definitions(oldest) == newest


def test_migrations_find_nothing_to_change_in_tables_of_now(warehouse: RedshiftSQLHook) -> None:
    for name in MIGRATIONS:
        assert rows(warehouse, statements(SQL[name])[0]) == [], name


@pytest.mark.parametrize("name", MIGRATIONS)
def test_a_migration_tells_its_reason_then_finds_then_changes(name: str) -> None:
    find, *changes = statements(SQL[name])
    assert SQL[name].startswith("-- ")
    assert find.startswith("SELECT")
    assert changes
    assert "etl_migrations" not in SQL[name]


def test_migrations_are_numbered_without_gap() -> None:
    for number, name in enumerate(MIGRATIONS, start=1):
        assert re.fullmatch(rf"{number:04}_[a-z0-9_]+", name)


@pytest.fixture
def runs(oldest: RedshiftSQLHook, s3: S3Hook) -> Iterator[Runs]:
    """One run of the first release: what it loaded, in its tables."""
    s3.create_bucket("runs", region_name="us-west-2")
    runs = Runs(s3)
    runs.put("song_data/1.json", SONG)
    runs.put("log_data/1.json", EVENT, EVENT | {"itemInSession": 1, "ts": EVENT["ts"] + 1000})
    # Today's load needs a table and columns that the first release lacks.
    file_status = statements(SQL["0003_file_status"])[1:]
    oldest.run([SQL["etl_sessions"], *file_status])
    runs.pipeline.run("old", variables=PREFIXES, from_task="stage_events")  # without create_tables
    added = [statement.split("ADD COLUMN ")[1].split()[0] for statement in file_status]
    oldest.run(["DROP TABLE etl_sessions", *(f"ALTER TABLE etl_files DROP COLUMN {name}" for name in added)])
    yield runs
    s3.delete_bucket("runs", force_delete=True)


def test_a_warehouse_that_the_first_release_filled_goes_on_with_its_rows(
    runs: Runs, oldest: RedshiftSQLHook
) -> None:
    before, ledger = star(oldest), rows(oldest, "SELECT s3_key, etag FROM etl_files ORDER BY s3_key")
    assert all(before.values())
    runs.put("log_data/2.json", EVENT | {"sessionId": 819})
    second = runs()
    assert second["create_tables"] == {"created": NEW_TABLES, "applied": list(MIGRATIONS)}
    assert (second["stage_events"]["files"], second["stage_songs"]["files"]) == (1, 0)
    after = star(oldest)
    assert all(set(before[table]) <= set(after[table]) for table in before)
    assert len(after["fact_songplays"]) == len(before["fact_songplays"]) + 1
    assert set(ledger) < set(rows(oldest, "SELECT s3_key, etag FROM etl_files"))
    assert runs() == {"find_new_files": False}


def test_a_play_that_the_first_release_loaded_is_found_though_its_time_is_corrected(
    runs: Runs, oldest: RedshiftSQLHook
) -> None:
    runs.put("log_data/1.json", EVENT | {"ts": EVENT["ts"] + 10**9}, EVENT | {"itemInSession": 1})
    assert runs()["load_fact_songplays"]["updated"] == 2
    assert len(star(oldest)["fact_songplays"]) == 2


def test_migrations_that_were_cut_off_before_they_were_recorded_have_nothing_left_to_change(
    runs: Runs, oldest: RedshiftSQLHook
) -> None:
    assert create_tables()["applied"] == list(MIGRATIONS)
    oldest.run("DELETE FROM etl_migrations")
    assert create_tables() == {"created": [], "applied": []}
