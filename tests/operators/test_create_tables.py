import os
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from sparkify.compat import AirflowFailException
from sparkify.operators import CreateTablesOperator
from tests.conftest import REPOSITORY, context, rows
from tests.test_crash import CUT_OFF

FAULT = Path(os.environ["LOCAL_REDSHIFT_FAULTS"])
RECORD = (REPOSITORY / "include" / "sql" / "ddl" / "etl_migrations.sql").read_text()
PETS = "CREATE TABLE IF NOT EXISTS pets (name VARCHAR(20), age INTEGER, born INTEGER)"
OLD_PETS = "CREATE TABLE pets (name VARCHAR(10), age INTEGER)"

COLUMNS = "SELECT 1 FROM pg_table_def WHERE tablename = 'pets' AND \"column\" = "
LONGER = (
    f"{COLUMNS} 'name' AND type = 'character varying(10)';\n"
    "ALTER TABLE pets ALTER COLUMN name TYPE VARCHAR(20)"
)
BORN = (
    f"SELECT 1 WHERE NOT EXISTS ({COLUMNS} 'born');\n"
    "ALTER TABLE pets ADD COLUMN born INTEGER;\n"
    "UPDATE pets SET born = 2018 - age;\n"
)
MIGRATIONS = {"0001_longer": LONGER, "0002_born": BORN}


def create_tables(**changes):
    arguments = {"ddl": {"etl_migrations": RECORD, "pets": PETS}, "migrations": MIGRATIONS, **changes}
    return CreateTablesOperator(task_id="create_tables", **arguments)


def empty(hook):
    hook.run([f"DROP TABLE IF EXISTS {table}" for table in ("pets", "etl_migrations")])


@pytest.fixture
def nothing(warehouse):
    empty(warehouse)
    yield warehouse
    FAULT.unlink(missing_ok=True)
    empty(warehouse)
    warehouse.run(RECORD)


@pytest.fixture
def old(nothing):
    nothing.run([OLD_PETS, "INSERT INTO pets VALUES ('Rex', 3)"])
    return nothing


def definition(hook):
    return rows(hook, "SELECT \"column\", type FROM pg_table_def WHERE tablename = 'pets' ORDER BY 1")


NEWEST = [("age", "integer"), ("born", "integer"), ("name", "character varying(20)")]


def recorded(hook):
    return rows(hook, "SELECT migration, run_id FROM etl_migrations ORDER BY migration")


def test_tables_that_are_missing_are_created_with_nothing_left_to_migrate(nothing, logged):
    assert create_tables().execute(context()) == {"created": ["etl_migrations", "pets"], "applied": []}
    assert definition(nothing) == NEWEST
    assert recorded(nothing) == [("0001_longer", "run 1"), ("0002_born", "run 1")]


def test_a_table_without_a_record_of_migrations_is_brought_up_to_date_with_its_rows(old):
    assert create_tables().execute(context())["applied"] == ["0001_longer", "0002_born"]
    assert definition(old) == NEWEST
    assert rows(old, "SELECT name, age, born FROM pets") == [("Rex", 3, 2015)]


def test_only_migrations_that_are_new_are_applied(old, logged):
    create_tables(migrations={"0001_longer": LONGER}).execute(context())
    assert create_tables().execute(context(run_id="run 2"))["applied"] == ["0002_born"]
    assert recorded(old) == [("0001_longer", "run 1"), ("0002_born", "run 2")]


def test_a_table_that_is_newer_than_the_record_is_left_alone(old):
    create_tables().execute(context())
    old.run("DROP TABLE etl_migrations")
    assert create_tables().execute(context()) == {"created": ["etl_migrations"], "applied": []}
    assert rows(old, "SELECT name, age, born FROM pets") == [("Rex", 3, 2015)]


def test_a_table_that_is_lost_is_created_again(old):
    create_tables().execute(context())
    old.run("DROP TABLE pets")
    assert create_tables().execute(context()) == {"created": ["pets"], "applied": []}


def test_tables_of_a_newer_release_are_not_touched(old):
    create_tables().execute(context())
    with pytest.raises(AirflowFailException, match="does not know: 0002_born"):
        create_tables(migrations={"0001_longer": LONGER}).execute(context())


def test_an_hour_with_nothing_to_create_asks_two_questions(nothing, logged):
    create_tables().execute(context())
    counts = "SELECT COUNT(*) FROM local_statements UNION ALL SELECT COUNT(*) FROM local_connections"
    asked = [rows(nothing, counts), rows(nothing, counts)]
    assert create_tables().execute(context()) == {"created": [], "applied": []}
    asked.append(rows(nothing, counts))
    # Counting itself adds statements and connections: what there is more of, the operator asked.
    without, with_it = (
        [after - before for (before,), (after,) in zip(*pair, strict=True)] for pair in pairwise(asked)
    )
    assert [more - less for less, more in zip(without, with_it, strict=True)] == [3, 1]
    assert "All 2 tables and 2 migrations are there" in logged()


def cut_off():
    try:
        create_tables().execute(context())
    except Exception as error:
        return re.search(CUT_OFF, str(error))


@pytest.mark.parametrize(
    ("before", "pets", "statements"),
    [([], [], 21), ([OLD_PETS, "INSERT INTO pets VALUES ('Rex', 3)"], [("Rex", 3, 2015)], 27)],
    ids=["nothing", "old"],
)
def test_cut_off_after_any_statement_and_run_again_it_ends_the_same(nothing, before, pets, statements):
    number = 0
    while True:
        number += 1
        empty(nothing)
        nothing.run([*before, "SELECT 1"])
        FAULT.write_text(f"after {number}")
        if not cut_off():
            break
        create_tables().execute(context())
        assert definition(nothing) == NEWEST
        assert [name for name, _ in recorded(nothing)] == list(MIGRATIONS)
        assert rows(nothing, "SELECT name, age, born FROM pets") == pets
    assert number == statements + 1


@pytest.mark.parametrize("state", ["nothing", "old"])
def test_two_runs_at_once_create_and_change_once(state, request):
    hook = request.getfixturevalue(state)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda run: create_tables().execute(context(run_id=run)), ["1", "2"]))
    assert definition(hook) == NEWEST
    assert len(recorded(hook)) == 2
    applied = sorted(result["applied"] for result in results)
    assert applied == ([[], ["0001_longer", "0002_born"]] if state == "old" else [[], []])


def test_the_lock_comes_before_all_that_two_runs_could_do_at_once(warehouse):
    operator = create_tables()
    first = [next(operator.create(["pets"], [])), next(operator.migrate(warehouse, "run 1"))]
    assert first == ["LOCK etl_migrations"] * 2


def test_the_lock_makes_a_second_run_wait_for_the_first(old):
    create_tables(migrations={}).execute(context())
    first = old.get_conn()
    first.cursor().execute("LOCK etl_migrations")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(create_tables().execute, context())
        with pytest.raises(TimeoutError):
            second.result(timeout=1)
        first.commit()
        assert second.result(timeout=30)["applied"] == ["0001_longer", "0002_born"]
    first.close()


def test_a_record_that_another_run_creates_at_the_same_moment_is_no_failure(nothing):
    first = nothing.get_conn()
    first.cursor().execute(RECORD)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(create_tables().execute, context())
        with pytest.raises(TimeoutError):
            second.result(timeout=1)
        first.commit()
        assert second.result(timeout=30)["created"] == ["etl_migrations", "pets"]
    first.close()


def test_a_migration_that_fails_leaves_all_of_it_undone_and_what_came_before_it_done(old):
    broken = BORN.replace("2018 - age", "2018 / (age - 3)")
    with pytest.raises(Exception, match="division by zero"):
        create_tables(migrations=MIGRATIONS | {"0002_born": broken}).execute(context())
    assert definition(old) == [("age", "integer"), ("name", "character varying(20)")]
    assert create_tables().execute(context())["applied"] == ["0002_born"]


NOTE = "CREATE TABLE IF NOT EXISTS notes (note VARCHAR(10));\nINSERT INTO notes VALUES ('granted')"


@pytest.fixture
def notes(old):
    yield lambda: rows(old, "SELECT COUNT(*) FROM notes")
    old.run("DROP TABLE IF EXISTS notes")


def test_what_is_to_follow_runs_whenever_a_table_was_created_or_changed(notes, old):
    # Once, after the migrations: before them, a table may lack a column that a GRANT names.
    create_tables(afterwards=[NOTE, ""]).execute(context())
    assert notes() == [(1,)]
    create_tables(afterwards=[NOTE]).execute(context())
    assert notes() == [(1,)]
    old.run("DROP TABLE pets")
    create_tables(afterwards=[NOTE]).execute(context())
    assert notes() == [(2,)]


def test_what_is_to_follow_is_not_forgotten_when_it_fails(notes, old):
    create_tables(migrations={}).execute(context())
    with pytest.raises(Exception, match="division by zero"):
        create_tables(afterwards=["SELECT 1 / 0"]).execute(context())
    assert create_tables(afterwards=[NOTE]).execute(context())["applied"] == []
    assert notes() == [(1,)]


def test_it_works_on_a_postgres_connection_too(old, monkeypatch, stack):
    monkeypatch.setenv("AIRFLOW_CONN_AS_POSTGRES", stack.redshift_dsn)
    result = create_tables(conn_id="as_postgres").execute(context())
    assert result == {"created": ["etl_migrations"], "applied": ["0001_longer", "0002_born"]}


def test_migrations_need_a_table_to_be_recorded_in():
    with pytest.raises(ValueError, match="without etl_migrations"):
        create_tables(ddl={"pets": PETS})


def test_a_table_that_lacks_a_column_is_named_and_nothing_is_changed(nothing):
    ddl = "CREATE TABLE IF NOT EXISTS pets (\n    name VARCHAR(20),\n    born INTEGER\n)"
    create_tables(ddl={"etl_migrations": RECORD, "pets": ddl}).execute(context())
    nothing.run("ALTER TABLE pets DROP COLUMN born")
    with pytest.raises(AirflowFailException) as failure:
        create_tables(ddl={"etl_migrations": RECORD, "pets": ddl}).execute(context())
    assert str(failure.value) == (
        "pets is not as defined (lacks born). Trigger sparkify_check_setup: it lists every difference."
    )
