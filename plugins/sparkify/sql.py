"""SQL that several operators share: what may stand in a statement, COPY, and transactions of statements."""

import logging
import re
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, Union

from sparkify.files import split_url
from sparkify.sessions import connect, watching

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

T = TypeVar("T")

log = logging.getLogger(__name__)

# Bound values are counted in 16 bits, with a sign by redshift_connector
# (https://www.postgresql.org/docs/current/protocol-message-formats.html).
MOST_VALUES = 32767
# A statement may have 16 MB (https://docs.aws.amazon.com/redshift/latest/dg/r_INSERT_30.html). Whether bound
# values count is not documented, and psycopg2 writes them into the statement.
MOST_BYTES = 8_000_000

# A statement, since a login cannot say it: Redshift takes the time zone of a session only from SET
# (https://docs.aws.amazon.com/redshift/latest/dg/r_timezone_config.html).
UTC_SESSION = "SET timezone TO 'UTC'"

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,126}")
_QUOTED_NAME = re.compile(r"[\w:+=,.@-]{1,127}", re.ASCII)
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+", re.ASCII)
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")


def identifier(name: str) -> str:
    """
    Return a table or column name that may stand in a statement without quotes.

    :param name: lower-case letters, digits and underscores, at most 127 bytes as Redshift allows
        (https://docs.aws.amazon.com/redshift/latest/dg/r_names.html); a schema may precede a table's name
    :raises ValueError: if it is anything else, such as the start of an injection
    """
    if not all(_IDENTIFIER.fullmatch(part) for part in name.split(".", maxsplit=1)):
        raise ValueError(f"{name!r} is not a lower-case SQL identifier")
    return name


def quoted(name: str) -> str:
    """
    Return a user's or a database's name in quotes, which keep the case of ``IAMR:Role``.

    :param name: letters, digits and what else may stand in the name of an IAM role
        (https://docs.aws.amazon.com/redshift/latest/APIReference/API_GetClusterCredentialsWithIAM.html)
    :raises ValueError: if it is anything else
    """
    if not _QUOTED_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a database user or a database")
    return f'"{name}"'


def literal(text: str) -> str:
    """
    Return a text as a string constant.

    :param text: anything without quotes, control characters and backslashes, which Redshift and PostgreSQL
        read differently
    :raises ValueError: if it has one
    """
    if re.search(r"['\\\x00-\x1f]", text):
        raise ValueError(
            f"{text!r} has a quote, a backslash or a control character and may not stand in a statement"
        )
    return f"'{text}'"


def role(arn: str) -> str:
    """
    Return what follows IAM_ROLE.

    :param arn: ARN of an IAM role, or ``default``
    :raises ValueError: if it is anything else
    """
    if arn != "default" and not _ROLE_ARN.fullmatch(arn):
        raise ValueError(
            f"{arn!r} is not the ARN of an IAM role, such as arn:aws:iam::123456789012:role/name:"
            " set the Airflow variable sparkify_iam_role"
        )
    return arn if arn == "default" else literal(arn)


def aws_region(name: str) -> str:
    """
    Return what follows REGION.

    :param name: an AWS region
    :raises ValueError: if it is anything else
    """
    if not _REGION.fullmatch(name):
        raise ValueError(
            f"{name!r} is not an AWS region, such as us-west-2: set the Airflow variable sparkify_s3_region"
        )
    return literal(name)


def utc(text: str) -> datetime:
    """
    Return a moment as the warehouse keeps it: UTC, without zone.

    :param text: ISO 8601, in UTC unless it names a zone
    :raises ValueError: if it is anything else
    """
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def copy_json(
    table: str, source: str, *, iam_role: str, region: str, json: str = "auto", options: Sequence[str] = ()
) -> str:
    """
    Return a COPY of JSON from S3, as Redshift accepts it (https://docs.aws.amazon.com/redshift/latest/dg/r_COPY.html).

    It holds no credential. It does without the choice of encodings and the statistics that a load of an empty
    table begins and ends with, which cost more than a small load itself
    (https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-load.html).

    :param table: the table to load
    :param source: ``s3://…`` of a prefix or a manifest
    :param iam_role: ARN of the role that COPY reads S3 with, or ``default`` for the cluster's own
    :param region: AWS region of the source
    :param json: ``auto``, ``auto ignorecase``, or ``s3://…`` of a JSONPaths file
    :param options: further clauses, such as ``MANIFEST``
    :raises ValueError: if one of them is not of the form that may stand in the statement
    """
    split_url(source)
    if json not in ("auto", "auto ignorecase"):
        split_url(json)
    return "\n".join(
        [
            f"COPY {identifier(table)}",
            f"FROM {literal(source)}",
            f"IAM_ROLE {role(iam_role)}",
            f"REGION {aws_region(region)}",
            f"FORMAT AS JSON {literal(json)}",
            *options,
            "COMPUPDATE OFF",
            "STATUPDATE OFF",
        ]
    )


@dataclass(frozen=True)
class Result:
    """
    What one statement answered.

    :param columns: the names of a query's columns
    :param rows: the rows of a query
    :param row_count: how many rows the statement changed
    """

    columns: list[str]
    rows: list[Any]
    row_count: int


#: A statement, alone or with the values of its ``%s``.
Statement = str | tuple[str, Sequence[Any]]
#: Statements of one transaction, each of which is sent its :class:`Result` before the next is asked for.
Transaction = Generator[Statement, Result, T]


class Session:
    """
    A session of the warehouse for several transactions, one after the other. Its time zone is UTC.

    :param hook: the warehouse's hook
    """

    def __init__(self, hook: "DbApiHook") -> None:
        self._hook, self._connection = hook, connect(fresh(hook))
        try:
            hook.set_autocommit(self._connection, True)
            with closing(self._connection.cursor()) as cursor:
                cursor.execute(UTC_SESSION)
        except Exception:
            self.close()
            raise

    def execute(self, transaction: Transaction[T], *, autocommit: bool) -> T:
        """
        Run statements, and roll back what they changed if one fails.

        :param transaction: the statements
        :param autocommit: whether each is a transaction of its own
        :return: what the generator returns
        """
        self._hook.set_autocommit(self._connection, autocommit)
        try:
            with closing(self._connection.cursor()) as cursor:
                try:
                    statement = next(transaction)
                    while True:
                        statement = transaction.send(_execute(self._connection, cursor, statement))
                except StopIteration as end:
                    returned = end.value
            if not autocommit:
                self._connection.commit()
        except Exception:
            with suppress(Exception):  # the server rolls back for a lost connection
                self._connection.rollback()
            raise
        return returned

    def close(self) -> None:
        """End the session."""
        self._connection.close()


#: Where statements run: in a session of their own, or in one that is open.
Warehouse = Union["DbApiHook", Session]


def run_in_transaction(warehouse: Warehouse, transaction: Transaction[T]) -> T:
    """
    Run a transaction's statements in one session, with one commit after the last.

    :param warehouse: the warehouse's hook, or a session
    :param transaction: its statements, one each, as Redshift takes only one per call
    :return: what the generator returns
    """
    return _run(warehouse, transaction, autocommit=False)


def run_one_by_one(warehouse: Warehouse, statements: Transaction[T]) -> T:
    """
    Run statements in one session, each of which is a transaction of its own.

    :param warehouse: the warehouse's hook, or a session
    :param statements: the statements
    :return: what the generator returns
    """
    return _run(warehouse, statements, autocommit=True)


def run_statement(warehouse: Warehouse, statement: Statement) -> Result:
    """
    Run one statement, outside of a transaction.

    :param warehouse: the warehouse's hook, or a session
    :param statement: the statement
    """

    def only() -> Transaction[Result]:
        return (yield statement)

    return run_one_by_one(warehouse, only())


def _run(warehouse: Warehouse, transaction: Transaction[T], *, autocommit: bool) -> T:
    if isinstance(warehouse, Session):
        return warehouse.execute(transaction, autocommit=autocommit)
    with closing(Session(warehouse)) as session:
        return session.execute(transaction, autocommit=autocommit)


def _execute(connection: Any, cursor: Any, statement: Statement) -> Result:
    text, values = (statement, ()) if isinstance(statement, str) else statement
    # Without its values: rows that were rejected hold personal data.
    log.info("Running statement: %s", text)
    with watching(connection, text):
        cursor.execute(text, tuple(values)) if values else cursor.execute(text)
        columns = [column[0] for column in cursor.description or ()]
        result = Result(columns, list(cursor.fetchall()) if columns else [], cursor.rowcount)
    if result.row_count >= 0:
        log.info("Rows affected: %d", result.row_count)
    return result


def each_statement(hook: "DbApiHook", texts: Sequence[str]) -> Transaction[None]:
    """
    Yield the statements of texts that may hold several, as Redshift takes only one per call.

    :param hook: the warehouse's hook
    :param texts: statements, each but a text's last ended by a semicolon
    """
    for text in texts:
        for statement in hook.split_sql_string(text, strip_semicolon=True):  # noqa: UP028 - no results to a list
            yield statement


def fresh(hook: "DbApiHook") -> "DbApiHook":
    """
    Return a hook that has not logged in yet; use it for every connection but a hook's first.

    Airflow's Redshift hook keeps the temporary login that it is given on a cluster in place of its user, and
    asks for the next one under that name (amazon provider 9.12, which Amazon MWAA installs).

    It does not log its statements, since it would log their bound values, too.

    :param hook: the warehouse's hook
    """
    hook.__dict__.pop("conn", None)
    hook.log_sql = False
    return hook


def constant(value: object) -> str:
    """
    Return a value that a query yielded as a constant of SQL.

    :param value: a whole number, a timestamp or a text
    :raises ValueError: if it is a text that may not stand in a statement
    """
    return str(value) if isinstance(value, int) else literal(str(value))


def insert_rows(table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Transaction[None]:
    """
    Insert rows by bound values, as many at a time as one statement may hold.

    For up to thousands of rows; more should be a COPY.

    :param table: the table to insert into
    :param columns: the columns' names
    :param rows: the values of each row, in the columns' order
    """
    one_row = f"({', '.join(['%s'] * len(columns))})"
    names = ", ".join(identifier(column) for column in columns)
    some: list[Any] = []
    size = 0
    for number, row in enumerate(rows, start=1):
        some += row
        size += sum(len(str(value).encode()) for value in row)
        if number == len(rows) or len(some) + len(row) > MOST_VALUES or size > MOST_BYTES:
            count = len(some) // len(row)
            yield f"INSERT INTO {identifier(table)} ({names}) VALUES {', '.join([one_row] * count)}", some
            some, size = [], 0
