"""
The checks of each table, declared in ``include/checks/<table>.yaml`` in the words of dbt's tests.

A test that dbt or its package dbt_utils has under the same name, or as ``accepted_range``,
``unique_combination_of_columns`` and ``equal_rowcount``, treats NULLs and boundaries as they do
(https://docs.getdbt.com/reference/resource-properties/data-tests, https://github.com/dbt-labs/dbt-utils).
"""

import functools
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sparkify.checks import Check, Severity
from sparkify.sql import constant
from sparkify.tables import CHECKS_FOLDER, DDL, column_names

#: ``batch``: what this run touched, as a table's ``batch`` says. ``table``: all there is.
Scope = Literal["batch", "table"]

_ROWS_OF = re.compile(r"(?<!\{)\{(\w+)\}(?!\})")


class DeclarationError(ValueError):
    """What a file of ``include/checks`` says cannot be checked."""


class Strict(BaseModel):
    """A mapping without any key that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Columns = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(min_length=1),
]


class Tolerance(Strict):
    """Up to how many rows may break a check, as a number or as a share of the rows: the greater of both."""

    rows: Annotated[int, Field(ge=0)] = 0
    share: Annotated[float, Field(ge=0, lt=1)] = 0.0


class AcceptedValues(Strict):
    """The values that a column may have. NULL is accepted."""

    column: str
    values: tuple[str | int, ...] = Field(min_length=1)


class Relationships(Strict):
    """The table, and its column, in which every value of a column is. NULL need not be."""

    column: str
    to: str
    field: str


class Ends(Strict):
    """What has a least value, a greatest, or both; they are within."""

    min: int | float | str | None = None
    max: int | float | str | None = None

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        return self


class InRange(Ends):
    """The ends of a column's values, as numbers or as SQL. NULL is within."""

    column: str


class RowCount(Ends):
    """The ends of the number of rows, as numbers or as tables that have so many."""


class Fresh(Strict):
    """How long ago the greatest time of a column may be. In an empty table, nothing is fresh."""

    column: str
    within: str = Field(pattern=r"^[1-9]\d* (minute|hour|day)s?$")


class Reconciles(Strict):
    """Two SELECTs of one number each that must agree; a sum of nothing is 0."""

    left: str
    right: str


class Declaration(Strict):
    """
    One check: its sentence, what becomes of it, and exactly one of the kinds, which are the last ten.

    ``where`` restricts the rows that are checked. Within it, ``expression_is_true``, ``sql`` and
    ``reconciles``, ``{table}`` stands for the rows of a table that are in scope.
    """

    sentence: str = Field(min_length=1, max_length=400)
    severity: Severity = "error"
    tolerance: Tolerance = Tolerance()
    scope: Scope | None = None
    advice: str = ""
    where: str = ""
    not_null: Columns | None = None
    unique: Columns | None = None
    accepted_values: AcceptedValues | None = None
    relationships: Relationships | None = None
    in_range: InRange | None = None
    expression_is_true: str | None = None
    row_count: RowCount | None = None
    fresh: Fresh | None = None
    reconciles: Reconciles | None = None
    sql: str | None = None

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}, not {' and '.join(given) or 'none'}")
        if self.where and given[0] in ("reconciles", "sql"):
            raise ValueError(f"{given[0]} has its own WHERE: leave out where")
        return self

    @property
    def kind(self) -> str:
        """Which kind is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)


class TableChecks(Strict):
    """
    A file.

    :param batch: a condition on the rows that a run touched, by the sort key (templated); without it, all of
        the table is looked at, as is right for a small one
    :param personal: columns whose values examples do not show
    :param advice: what to do when a check fails that has no advice of its own
    :param checks: the checks
    """

    batch: str = ""
    personal: tuple[str, ...] = ()
    advice: str
    checks: tuple[Declaration, ...] = Field(min_length=1)


class Rows:
    """
    The rows of a table that are checked.

    :param table: the table
    :param scope: which rows
    :raises DeclarationError: if there is no such table
    """

    def __init__(self, table: str, scope: Scope) -> None:
        if table not in DDL:
            raise DeclarationError(f"there is no table {table}{_meant(table, DDL)}")
        self.table, self.scope = table, scope

    def __str__(self) -> str:
        batch = "" if self.scope == "table" else read(self.table).batch
        return f"(SELECT * FROM {self.table} WHERE {batch})" if batch else self.table

    def column(self, name: str) -> str:
        """
        Return the name of a column of the table.

        :param name: the name
        :raises DeclarationError: if the table's definition has no such column
        """
        columns = column_names(self.table)
        if name not in columns:
            raise DeclarationError(f"{self.table} has no column {name}{_meant(name, columns)}")
        return name


def checks_of(*tables: str, scope: Scope) -> list[Check]:
    """
    Return the checks that are declared for tables.

    Neither the network nor the warehouse is asked, so that a DAG may call it while it is parsed.

    :param tables: the tables
    :param scope: which rows to check; what is declared for the other scope alone is left out
    :raises DeclarationError: if something is declared that cannot be checked, or nothing for this scope
    """
    return [check for table in tables for check in _checks_of(table, scope)]


@functools.cache
def read(table: str) -> TableChecks:
    """
    Return what a table's file declares.

    :param table: the table
    :raises DeclarationError: if there is no such file, or it is of another form
    """
    path = CHECKS_FOLDER / f"{table}.yaml"
    try:
        return TableChecks.model_validate(yaml.load(path.read_text(), Loader=_LOADER))
    except (OSError, yaml.YAMLError) as error:
        raise DeclarationError(f"include/checks/{path.name}: {error}") from error
    except ValidationError as error:
        places = [
            f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()
        ]
        raise DeclarationError(f"include/checks/{path.name}: {'; '.join(places)}") from error


def _checks_of(table: str, scope: Scope) -> list[Check]:
    file, place = read(table), ""
    try:
        rows = Rows(table, scope)
        for name in file.personal:
            rows.column(name)
        checks: dict[str, Check] = {}
        for number, declaration in enumerate(file.checks):
            place = f"checks.{number}, {declaration.sentence!r}: "
            check = _check(rows, file, declaration)
            if check.name in checks:
                raise DeclarationError("another check has the same sentence")
            checks[check.name] = check
    except ValueError as error:
        raise DeclarationError(f"include/checks/{table}.yaml: {place}{error}") from error
    wanted = [
        check
        for check, declaration in zip(checks.values(), file.checks, strict=True)
        if declaration.scope in (None, scope)
    ]
    if not wanted:
        raise DeclarationError(f"include/checks/{table}.yaml declares no check of the scope {scope}")
    return wanted


def _check(rows: Rows, file: TableChecks, declaration: Declaration) -> Check:
    mentioned: set[str] = set()

    def in_scope(sql: str) -> str:
        mentioned.update(_ROWS_OF.findall(sql))
        return _ROWS_OF.sub(lambda found: str(Rows(found[1], rows.scope)), sql).strip()

    kind = declaration.kind
    parts = KINDS[kind](rows, getattr(declaration, kind), in_scope(declaration.where) or "1 = 1")
    columns = parts.pop("columns", ())
    texts = {name: in_scope(sql) for name, sql in parts.items()}
    return Check(
        name=f"{rows.table}: {declaration.sentence}",
        severity=declaration.severity,
        tolerated_rows=declaration.tolerance.rows,
        tolerated_share=declaration.tolerance.share,
        advice=" ".join((declaration.advice or file.advice).split()),
        kind=kind,
        rows="" if kind in OF_ALL_ROWS else str(rows),
        masked=tuple(sorted(set(file.personal).union(*(read(table).personal for table in mentioned)))),
        columns=columns,
        **texts,
    )


def _broken_rows(rows: Rows, where: str, broken: str, *columns: str) -> dict[str, Any]:
    broken = broken if where == "1 = 1" else f"({where}) AND ({broken})"
    return {
        "broken": broken,
        "sql": f"SELECT * FROM {rows} AS checked WHERE {broken}",
        "columns": columns,
    }


def _not_null(rows: Rows, names: tuple[str, ...], where: str) -> dict[str, Any]:
    columns = [rows.column(name) for name in names]
    return _broken_rows(rows, where, " OR ".join(f"{column} IS NULL" for column in columns), *columns)


def _accepted_values(rows: Rows, accepted: AcceptedValues, where: str) -> dict[str, Any]:
    column = rows.column(accepted.column)
    values = ", ".join(constant(value) for value in accepted.values)
    return _broken_rows(rows, where, f"{column} NOT IN ({values})", column)


def _in_range(rows: Rows, ends: InRange, where: str) -> dict[str, Any]:
    column = rows.column(ends.column)
    outside = [
        f"{column} {beyond} {end}" for beyond, end in (("<", ends.min), (">", ends.max)) if end is not None
    ]
    return _broken_rows(rows, where, " OR ".join(outside), column)


def _expression_is_true(rows: Rows, expression: str, where: str) -> dict[str, Any]:
    return _broken_rows(rows, where, f"NOT ({expression})")


def _unique(rows: Rows, names: tuple[str, ...], where: str) -> dict[str, Any]:
    columns = [rows.column(name) for name in names]
    key = ", ".join(columns)
    # As dbt has it: one NULL is like no other, but as a part of a key it is a value.
    present = f" AND {key} IS NOT NULL" if len(columns) == 1 else ""
    return {
        "sql": f"SELECT {key}, COUNT(*) AS copies FROM {rows} AS checked WHERE {where}{present}"
        f" GROUP BY {key} HAVING COUNT(*) > 1",
        "columns": tuple(columns),
    }


def _relationships(rows: Rows, reference: Relationships, where: str) -> dict[str, Any]:
    referred = Rows(reference.to, rows.scope)
    column, field = rows.column(reference.column), referred.column(reference.field)
    return {
        "sql": f"SELECT referring.* FROM (SELECT * FROM {rows} AS checked WHERE {where}) AS referring"
        f" LEFT JOIN (SELECT {field} AS referred_key FROM {referred} AS others) AS referred"
        f" ON referring.{column} = referred.referred_key"
        f" WHERE referring.{column} IS NOT NULL AND referred.referred_key IS NULL",
        "columns": (column,),
    }


def _row_count(rows: Rows, ends: RowCount, where: str) -> dict[str, Any]:
    def number(end: float | str) -> str:
        return (
            str(end)
            if not isinstance(end, str)
            else f"(SELECT COUNT(*) FROM {Rows(end, rows.scope)} AS other)"
        )

    shortfalls = [f"{number(ends.min)} - row_count"] if ends.min is not None else []
    surpluses = [f"row_count - {number(ends.max)}"] if ends.max is not None else []
    counted = f"(SELECT COUNT(*) AS row_count FROM {rows} AS checked WHERE {where}) AS counted"
    return {
        "count": f"SELECT GREATEST(0, {', '.join([*shortfalls, *surpluses])}) FROM {counted}",
        "sql": f"SELECT row_count FROM {counted}",
    }


def _fresh(rows: Rows, limit: Fresh, where: str) -> dict[str, Any]:
    column = rows.column(limit.column)
    number, unit = limit.within.split()
    oldest = f"DATEADD({unit.rstrip('s').upper()}, -{number}, SYSDATE)"
    return {
        "sql": f"SELECT MAX({column}) AS newest FROM {rows} AS checked WHERE {where}"
        f" HAVING MAX({column}) IS NULL OR MAX({column}) < {oldest}",
        "columns": (column,),
    }


def _reconciles(rows: Rows, sides: Reconciles, where: str) -> dict[str, Any]:
    both = f"({sides.left}) AS one_side (left_number) CROSS JOIN ({sides.right}) AS other (right_number)"
    return {
        "count": f"SELECT ABS(COALESCE(left_number, 0) - COALESCE(right_number, 0)) FROM {both}",
        "sql": f"SELECT left_number, right_number FROM {both}",
    }


def _sql(rows: Rows, select: str, where: str) -> dict[str, Any]:
    return {"sql": select}


#: Those that are not about single rows, so that there is no share of rows that breaks them.
OF_ALL_ROWS = frozenset({"row_count", "fresh", "reconciles"})

#: The kinds of checks; each function returns what :class:`sparkify.checks.Check` needs of a declaration.
KINDS: dict[str, Callable[[Rows, Any, str], dict[str, Any]]] = {
    "not_null": _not_null,
    "unique": _unique,
    "accepted_values": _accepted_values,
    "relationships": _relationships,
    "in_range": _in_range,
    "expression_is_true": _expression_is_true,
    "row_count": _row_count,
    "fresh": _fresh,
    "reconciles": _reconciles,
    "sql": _sql,
}

# libyaml's is ten times as fast, and not everywhere.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _meant(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, list(names), n=1)
    return f": did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"
