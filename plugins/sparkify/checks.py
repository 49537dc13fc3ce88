"""Data-quality checks as plain data: each is a SELECT of the rows that break it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from sparkify.sql import identifier


@dataclass
class Check:
    """
    A sentence that should be true of the warehouse, and the rows for which it is not.

    :param name: the sentence; it begins with the table's name and a colon
    :param sql: a SELECT of the rows that break it (templated)
    :param severity: ``error`` fails the task, ``warn`` is logged and stored
    """

    name: str
    sql: str
    severity: Literal["error", "warn"] = "error"

    template_fields: ClassVar[Sequence[str]] = ("sql",)

    @property
    def table(self) -> str:
        """The table that the check is about."""
        return self.name.partition(":")[0]


def not_null(table: str, *columns: str, where: str = "1 = 1") -> Check:
    """
    Check that columns are never NULL.

    :param table: the table
    :param columns: its columns
    :param where: a condition on the rows to check (templated)
    """
    condition = " OR ".join(f"{identifier(column)} IS NULL" for column in columns)
    return Check(
        f"{table}: {', '.join(columns)} not null",
        f"SELECT * FROM {identifier(table)} WHERE {where} AND ({condition})",
    )


def unique(table: str, *key: str, where: str = "1 = 1") -> Check:
    """
    Check that a key identifies one row, which Redshift declares but does not enforce.

    https://docs.aws.amazon.com/redshift/latest/dg/t_Defining_constraints.html

    :param table: the table
    :param key: the key's columns
    :param where: a condition on the rows to check (templated)
    """
    table, columns = identifier(table), ", ".join(identifier(column) for column in key)
    return Check(
        f"{table}: one row per {', '.join(key)}",
        f"SELECT {columns}, COUNT(*) AS copies FROM {table} WHERE {where}"
        f" GROUP BY {columns} HAVING COUNT(*) > 1",
    )


def references(table: str, column: str, *, to: str, where: str = "1 = 1", to_where: str = "1 = 1") -> Check:
    """
    Check that every value of a column is in the table that has a column of the same name as its key.

    :param table: the referring table
    :param column: the column's name in both tables
    :param to: the table referred to
    :param where: a condition on the referring rows to check (templated)
    :param to_where: a condition that holds for all rows that these may refer to (templated)
    """
    table, column, to = identifier(table), identifier(column), identifier(to)
    return Check(
        f"{table}: every {column} is in {to}",
        f"SELECT referring.* FROM (SELECT * FROM {table} WHERE {where}) AS referring"
        f" LEFT JOIN (SELECT {column} FROM {to} WHERE {to_where}) AS referred"
        f" ON referring.{column} = referred.{column}"
        f" WHERE referring.{column} IS NOT NULL AND referred.{column} IS NULL",
    )


def not_empty(table: str) -> Check:
    """
    Check that a table has rows, for checks that find nothing in an empty table prove nothing.

    :param table: the table
    """
    return Check(
        f"{table}: has rows",
        f"SELECT COUNT(*) AS row_count FROM {identifier(table)} HAVING COUNT(*) = 0",
    )
