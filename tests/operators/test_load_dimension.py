import pytest

from sparkify.operators import LoadDimensionOperator
from tests.conftest import context, rows


@pytest.fixture
def pets(warehouse):
    warehouse.run(
        [
            "DROP TABLE IF EXISTS pets",
            "CREATE TABLE pets (id INTEGER, name VARCHAR(10))",
            "INSERT INTO pets VALUES (1, 'old'), (2, 'same'), (4, NULL)",
        ]
    )
    yield lambda: rows(warehouse, "SELECT id, name FROM pets ORDER BY id")
    warehouse.run("DROP TABLE pets")


EVERYWHERE = {"within": "1 = 1", "indexed": "1 = 1"}


def counts(inserted, updated, unchanged):
    return {"inserted": inserted, "updated": updated, "unchanged": unchanged, **EVERYWHERE}


def load(sql, **changes):
    arguments = {"task_id": "load", "table": "pets", "key": ["id"], "sql": sql, **changes}
    return LoadDimensionOperator(**arguments)


def test_rows_of_the_select_replace_those_of_the_same_key(pets):
    new = "SELECT 1, 'new' UNION ALL SELECT 2, 'same' UNION ALL SELECT 3, 'third' UNION ALL SELECT 4, NULL"
    assert load(new).execute(context()) == counts(1, 1, 2)
    assert pets() == [(1, "new"), (2, "same"), (3, "third"), (4, None)]


def test_loading_again_changes_nothing(pets):
    new = "SELECT 1, 'new' UNION ALL SELECT 5, NULL"
    load(new).execute(context())
    assert load(new).execute(context()) == counts(0, 0, 2)


def test_a_failed_load_keeps_the_old_rows(pets):
    with pytest.raises(Exception, match="division by zero"):
        load("SELECT 1 / 0, 'new'").execute(context())
    assert pets() == [(1, "old"), (2, "same"), (4, None)]


def test_a_failed_insert_keeps_the_old_rows(pets, warehouse, monkeypatch):
    operator = load("SELECT 1, 'new'")
    loading = operator.transaction

    def broken(run_id):
        yield from loading(run_id)
        yield "INSERT INTO pets SELECT 1 / 0, 'new'"

    monkeypatch.setattr(operator, "transaction", broken)
    with pytest.raises(Exception, match="division by zero"):
        operator.execute(context())
    assert pets() == [(1, "old"), (2, "same"), (4, None)]


def test_a_dimension_needs_a_key():
    with pytest.raises(ValueError, match="at least one key column"):
        load("SELECT 1", key=[])


def test_a_table_that_is_no_identifier_never_reaches_sql():
    with pytest.raises(Exception, match="not a lower-case SQL identifier"):
        load("SELECT 1", table="pets; DROP TABLE pets").execute(context())
