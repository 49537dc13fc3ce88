"""
Runs every case of ``conformance/*.yaml`` as Airflow's driver does, and compares it with AWS's documentation.

A file is a ``group`` of ``cases``; ``differs`` says that Redshift does otherwise. A case has a ``statement``,
and what is to come of it: ``expect``, a value or a list of rows, compared with their types; or ``error``, how
the message begins, with its ``sqlstate``.
Before it run the statements that the group, and then the case, has ``given``, on a bucket with the case's
``objects``: keys with text or ``!!binary``. All is rolled back. ``page`` is the page of
docs.aws.amazon.com/redshift/latest/dg that says so.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import redshift_connector

from local.redshift.allowlist import RESERVED_WORDS
from local.redshift.server import Server
from local.settings import REDSHIFT_DATABASE, REDSHIFT_PASSWORD, REDSHIFT_USER
from tests.local_redshift import conformance_table
from tests.local_redshift.conformance import GROUPS

SYNTAX_ERROR = "42601"

CASES = [
    pytest.param(group.get("given", []), case, id=f"{name}: {case['statement']}")
    for name, group in GROUPS.items()
    for case in group["cases"]
]


@pytest.fixture(scope="module")
def connection(server: Server) -> Iterator[redshift_connector.Connection]:
    """A connection whose tables are made in a schema of their own."""
    with redshift_connector.connect(
        host="127.0.0.1",
        port=server.port,
        user=REDSHIFT_USER,
        password=REDSHIFT_PASSWORD,
        database=REDSHIFT_DATABASE,
        application_name="conformance",
        ssl=False,
    ) as connection:
        for statement in ("CREATE SCHEMA test", "SET search_path TO test, public"):
            connection.cursor().execute(statement)
        connection.commit()
        yield connection
        connection.cursor().execute("DROP SCHEMA test")
        connection.commit()


@pytest.fixture
def cursor(connection: redshift_connector.Connection) -> Iterator[Any]:
    with connection.cursor() as cursor:
        yield cursor
    connection.rollback()


@pytest.mark.parametrize(("given", "case"), CASES)
def test_it_does_what_amazon_documents(
    cursor: Any, bucket: Any, given: list[str], case: dict[str, Any]
) -> None:
    assert ("expect" in case) != ("error" in case)
    assert case["page"]
    for key, content in case.get("objects", {}).items():
        bucket.put_object(Key=key, Body=content if isinstance(content, bytes) else content.encode())
    for statement in (*given, *case.get("given", [])):
        cursor.execute(statement)
    if "error" in case:
        with pytest.raises(redshift_connector.ProgrammingError) as refusal:
            cursor.execute(case["statement"])
        (fields,) = refusal.value.args
        assert fields["M"].startswith(case["error"]), fields
        assert fields["C"] == case["sqlstate"], fields
        return
    cursor.execute(case["statement"])
    found = [list(row) for row in cursor.fetchall()]
    expected = case["expect"] if isinstance(case["expect"], list) else [[case["expect"]]]
    assert found == expected
    assert [[type(value) for value in row] for row in found] == [
        [type(value) for value in row] for row in expected
    ]


@pytest.mark.parametrize("word", sorted(RESERVED_WORDS))
@pytest.mark.parametrize("statement", ["CREATE TABLE {} (a INT)", "SELECT 1 AS {}"])
def test_a_reserved_word_is_a_name_only_in_quotes(cursor: Any, statement: str, word: str) -> None:
    cursor.execute(statement.format(f'"{word}"'))
    with pytest.raises(redshift_connector.ProgrammingError) as refusal:
        cursor.execute(statement.format(word))
    (fields,) = refusal.value.args
    assert fields["C"] == SYNTAX_ERROR, fields
    assert fields["M"].startswith("syntax error at or near "), fields


def test_the_documentation_shows_these_cases() -> None:
    message = "run `python -m tests.local_redshift.conformance_table`"
    assert conformance_table.PAGE.read_text() == conformance_table.page(), message
