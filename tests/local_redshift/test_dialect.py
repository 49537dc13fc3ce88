"""What is no matter of one statement and its result: those are in ``conformance/*.yaml``."""

from decimal import Decimal

import psycopg
import pytest

from local.redshift import dialect
from local.redshift.errors import SqlError


def test_a_quoted_name_is_folded_too(warehouse: psycopg.Connection) -> None:
    cursor = warehouse.execute('SELECT 1 AS "Open"')
    assert [column.name for column in cursor.description or ()] == ["open"]


def test_a_syntax_error_says_where() -> None:
    with pytest.raises(SqlError, match=r"line 2, column 4: Expected table") as error:
        dialect.translate("SELECT 1\nFROM")
    assert error.value.sqlstate == "42601"


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("", []),
        (" ; -- nothing\n;", []),
        ("SELECT ';' ; /* ; */ SELECT 2;", ["SELECT ';'", "SELECT 2"]),
        ("BEGIN; COPY t FROM 's3://b/;x'", ["BEGIN", "COPY t FROM 's3://b/;x'"]),
        ("INSERT INTO t VALUES ($1,$2)", ["INSERT INTO t VALUES ($1,$2)"]),
        ("DO $$ it's; $$; SELECT 2", ["DO $$ it's; $$", "SELECT 2"]),
    ],
)
def test_a_script_is_split_at_its_semicolons(script: str, statements: list[str]) -> None:
    assert dialect.split(script) == statements


def test_an_open_quote_is_a_syntax_error() -> None:
    with pytest.raises(SqlError, match="does not end"):
        dialect.split("SELECT 'a")


@pytest.mark.parametrize("name", ["pets", "PETS", '"Pets"', " pets "])
def test_names_are_folded_to_lower_case(name: str) -> None:
    assert dialect.relation(name) == '"pets"'


def test_backslashes_escape_in_strings(warehouse: psycopg.Connection) -> None:
    cursor = psycopg.ClientCursor(warehouse)
    row = cursor.execute(r"SELECT 'it\'s', '\\d', %s", [r"a\b"]).fetchone()
    assert row == ("it's", r"\d", r"a\b")


def test_qualify_adds_no_column(warehouse: psycopg.Connection) -> None:
    cursor = warehouse.execute("SELECT n FROM (SELECT 1 AS n) t QUALIFY ROW_NUMBER() OVER (ORDER BY n) = 1")
    assert ([c.name for c in cursor.description or ()], cursor.fetchall()) == (["n"], [(1,)])


@pytest.mark.parametrize(("value", "quotient"), [(2, 3), (2.0, 3.5)])
def test_a_parameter_has_the_type_that_the_client_gives_it(
    warehouse: psycopg.Connection, value: float, quotient: float
) -> None:
    assert warehouse.execute("SELECT 7 / %s", [value]).fetchone() == (quotient,)


def test_a_decimal_parameter_has_no_digits_to_compute_a_quotient_by(warehouse: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="a quotient of a type that is not known"):
        warehouse.execute("SELECT 7 / %s", [Decimal("2.5")])
    row = warehouse.execute("SELECT 7 / %s::DECIMAL(2,1)", [Decimal("2.5")]).fetchone()
    assert row == (Decimal("2.8000"),)
