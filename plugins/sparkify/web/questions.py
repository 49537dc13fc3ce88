"""What the warehouse answers to the questions in ``include/sql/analytics`` and ``include/sql/operations``."""

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition
from typing import Any

import redshift_connector
from airflow.exceptions import AirflowNotFoundException
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from airflow.sdk.bases.hook import BaseHook
from cachetools import TTLCache, cached
from cachetools.keys import hashkey

from sparkify.tables import SQL_FOLDER

#: The connection that questions go to, and the one that they go to where there is none of that name.
READ_ONLY, ELSE = "redshift_readonly", "redshift"
#: So long is an answer good: whoever keeps looking must not keep a Serverless warehouse awake.
KEPT_SECONDS = 300
#: The warehouse gives up a statement after so long; the connection is given so many seconds more, since the
#: driver has one time-out for connecting and for every answer.
ANSWER_MILLISECONDS = 45_000
MORE_SECONDS = 15


@dataclass(frozen=True)
class Question:
    """
    A query of one file.

    :param name: the file's name
    :param description: what its answer is, from the file's first line
    :param sql: the query, with a colon before the name of each parameter
    :param parameters: the parameters' names
    """

    name: str
    description: str
    sql: str
    parameters: frozenset[str]


@dataclass(frozen=True)
class Answer:
    """
    The rows of an answer.

    :param columns: the columns' names
    :param rows: the rows
    :param as_of: when the warehouse gave them
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    as_of: datetime


def read_question(file: Path) -> Question:
    """
    Return the question of a file.

    :param file: its first line is ``-- <its name>: <what the answer is>``
    """
    comment, sql = file.read_text().split("\n", 1)
    # A colon stands nowhere else in these files; the driver, too, takes any for a parameter's.
    return Question(file.stem, comment.split(": ", 1)[1], sql, frozenset(re.findall(r":(\w+)", sql)))


QUESTIONS = {
    file.stem: read_question(file)
    for folder in ("analytics", "operations")
    for file in sorted((SQL_FOLDER / folder).glob("*.sql"))
}


class _Hook(RedshiftSQLHook):
    """Connects once, and not five times with ever longer pauses: somebody is waiting."""

    def get_conn(self) -> redshift_connector.Connection:  # type: ignore[override]
        timeout = ANSWER_MILLISECONDS / 1000 + MORE_SECONDS
        parameters = {"timeout": timeout, **self._get_conn_params(), **self.conn.extra_dejson}
        return redshift_connector.connect(**parameters)


@cached(
    TTLCache(maxsize=500, ttl=KEPT_SECONDS),
    key=lambda question, values, loaded: hashkey(question.name, *sorted(values.items()), loaded),
    condition=Condition(),
)
def answer(question: Question, values: Mapping[str, Any], loaded: datetime | None) -> Answer:
    """
    Ask the warehouse, unless it has answered the same in the last five minutes and nothing was loaded since.

    :param question: what to ask
    :param values: a value for each of its parameters
    :param loaded: when a run last ended
    :raises AirflowNotFoundException: if there is no connection
    :raises redshift_connector.Error: if there is no answer
    """
    with closing(_Hook(_connection_id()).get_conn()) as connection:
        connection.autocommit = True  # else the driver begins a transaction of its own
        cursor = connection.cursor()
        cursor.paramstyle = "named"
        cursor.execute(f"SET statement_timeout TO {ANSWER_MILLISECONDS}")
        cursor.execute("BEGIN READ ONLY")
        cursor.execute(question.sql, {name: values[name] for name in question.parameters})
        columns = tuple(column[0] for column in cursor.description)
        return Answer(columns, tuple(map(tuple, cursor.fetchall())), datetime.now(UTC))


def _connection_id() -> str:
    try:
        BaseHook.get_connection(READ_ONLY)
    except AirflowNotFoundException:
        return ELSE
    return READ_ONLY
