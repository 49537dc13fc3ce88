"""Where in a large table the rows of a batch lie: conditions by which zone maps skip all other blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

from sparkify.sql import Transaction, constant, identifier

MOST_RANGES = 8
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Ranges:
    """
    Ranges of a column's values, apart from each other where the gaps between them are widest.

    One value far off thus does not make them one wide range.

    :param pairs: what each range is above of and below of, in order; no pair is no condition
    """

    pairs: Sequence[tuple[Any, Any]] = ()

    def hold(self, column: str) -> str:
        """
        Return the condition that a column is in one of the ranges.

        Zone maps find a range of constants (https://docs.aws.amazon.com/redshift/latest/dg/t_Sorting_data.html).
        Whether they are used with OR is not documented, so the condition begins with the range over all.

        :param column: the column, with its table's name where that is needed
        """
        if not self.pairs:
            return "1 = 1"
        over_all = _between(column, self.pairs[0][0], self.pairs[-1][1])
        if len(self.pairs) == 1:
            return over_all
        either = " OR ".join(f"({_between(column, *pair)})" for pair in self.pairs)
        return f"{over_all} AND ({either})"


def _between(column: str, low: Any, high: Any) -> str:
    return f"{column} > {constant(low)} AND {column} < {constant(high)}"


def ranges_of_steps(steps: str, width: Any) -> Transaction[Ranges]:
    """
    Return ranges that cover steps, as few of them as the widest gaps between steps make.

    :param steps: a SELECT of where steps begin
    :param width: less than this lies between a step's beginning and any value in it
    """
    found = [step for (step,) in (yield f"SELECT DISTINCT step FROM ({steps}) AS steps ORDER BY step").rows]
    gaps = sorted(pairwise(found), key=lambda gap: gap[1] - gap[0], reverse=True)[: MOST_RANGES - 1]
    between = sorted(gap for gap in gaps if gap[1] - gap[0] > 2 * width)
    firsts = [found[0], *(after for _, after in between)]
    lasts = [*(before for before, _ in between), found[-1]]
    return Ranges([(first - width, last + width) for first, last in zip(firsts, lasts, strict=True)])


def ranges_of_times(column: str, table: str) -> Transaction[Ranges]:
    """
    Return ranges that cover the times in a column.

    :param column: a timestamp
    :param table: a table that has rows
    """
    return ranges_of_steps(f"SELECT {hour(column)} AS step FROM {identifier(table)}", HOUR)


def hour(column: str) -> str:
    """
    Return an expression for the hour of a time.

    :param column: a timestamp
    """
    return f"DATE_TRUNC('hour', {identifier(column)})"


@dataclass(frozen=True)
class Index:
    """
    A table of the hours in which rows of a large table lie, by a column that all versions of a row share.

    The large table is sorted by time, and a row's time may be corrected: so its older version is found.

    :param table: the table: the column, and ``start_hour``; sorted by the column
    :param column: a column of whole numbers in both tables
    """

    table: str
    column: str

    def near(self, batch: str) -> Transaction[Ranges]:
        """
        Return ranges that cover a batch's values of the column.

        :param batch: a table that has rows, and the column
        """
        column, thousand = identifier(self.column), 1000
        steps = f"SELECT {column} / {thousand} * {thousand} AS step FROM {batch}"
        return ranges_of_steps(steps, thousand)

    def times(self, within: str, batch: str, near: Ranges) -> Transaction[Ranges]:
        """
        Return ranges that cover the times of a batch's rows and of their older versions.

        :param within: the time by which the large table is sorted
        :param batch: the table of the batch
        :param near: the batch's values of the column
        """
        steps = (
            f"SELECT {hour(within)} AS step FROM {batch}\n"
            f"UNION ALL\n"
            f"SELECT start_hour AS step FROM {identifier(self.table)} WHERE {near.hold(self.column)}\n"
            f"AND {self.column} IN (SELECT {batch}.{self.column} FROM {batch})"
        )
        return ranges_of_steps(steps, HOUR)

    def add(self, within: str, rows: str, near: Ranges) -> str:
        """
        Return the statement that adds the hours of rows.

        :param within: the time by which the large table is sorted
        :param rows: the table of the rows
        :param near: their values of the column
        """
        return (
            f"INSERT INTO {self.table}\n"
            f"SELECT {self.column}, {hour(within)} FROM {rows}\n"
            f"EXCEPT\n"
            f"SELECT {self.column}, start_hour FROM {self.table} WHERE {near.hold(self.column)}"
        )
