"""Data-quality checks as plain data, and the one statement that runs many of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

Severity = Literal["error", "warn"]


@dataclass
class Check:
    """
    A sentence that should be true of the warehouse, and the rows for which it is not.

    :param name: the sentence; it begins with the table's name and a colon
    :param sql: a SELECT of the rows that break it (templated)
    :param severity: ``error`` fails the task, ``warn`` is logged, stored and sent as an alert
    :param tolerated_rows: up to so many rows may break it, which makes a warning of an ``error`` and nothing
        of a ``warn`` …
    :param tolerated_share: … or up to this share of ``rows``, from 0 to 1, whichever is more
    :param advice: what to do when it fails
    :param kind: what is checked, in dbt's words, such as ``not_null``
    :param columns: the columns that are checked, if it is about columns
    :param rows: the table, or a SELECT in parentheses of those of its rows, that is checked (templated)
    :param broken: a condition on one of those rows that is true if it breaks the check (templated): all such
        checks of the same rows are counted in one scan
    :param count: a SELECT of one number that says by how much the check is broken, 0 if it is not
        (templated); without it and ``broken``, it is the number of rows that ``sql`` yields
    :param masked: columns whose values are not shown in examples
    """

    name: str
    sql: str
    severity: Severity = "error"
    tolerated_rows: int = 0
    tolerated_share: float = 0.0
    advice: str = ""
    kind: str = "sql"
    columns: tuple[str, ...] = ()
    rows: str = ""
    broken: str = ""
    count: str = ""
    masked: tuple[str, ...] = ()

    template_fields: ClassVar[Sequence[str]] = ("sql", "rows", "broken", "count")

    @property
    def table(self) -> str:
        """The table that the check is about."""
        return self.name.partition(":")[0]

    def tolerated(self, checked_rows: int | None) -> int:
        """
        Return how many rows may break the check before it fails.

        :param checked_rows: how many rows were checked, None if that is not known
        """
        return max(self.tolerated_rows, int(self.tolerated_share * (checked_rows or 0)))


def count_broken(checks: Sequence[Check]) -> str:
    """
    Return one SELECT of each check's number, how many rows break it, and how many were checked.

    What of a large table is checked is read once, by a name that the checks share.

    :param checks: the checks, whose numbers are their places
    """
    scans: dict[str, list[str]] = {}
    selects = []
    for number, check in enumerate(checks):
        if check.rows:
            counts = scans.setdefault(check.rows, ["COUNT(*) AS row_count"])
            scan = f"scan_{list(scans).index(check.rows)}"
        if check.broken:
            counts.append(f"COUNT(CASE WHEN {check.broken} THEN 1 END) AS broken_{number}")
            selects.append(
                f"SELECT {number} AS check_number, broken_{number} AS failed_rows, row_count AS checked_rows"
                f" FROM {scan}"
            )
            continue
        count = check.count or f"SELECT COUNT(*) FROM ({check.sql}) AS broken"
        counted = f"({count}) AS counted (failed_rows)"
        selects.append(
            f"SELECT {number} AS check_number, failed_rows, row_count FROM {counted} CROSS JOIN {scan}"
            if check.rows
            else f"SELECT {number} AS check_number, failed_rows, CAST(NULL AS BIGINT) FROM {counted}"
        )
    common = [
        f"scan_{number} AS (SELECT {', '.join(counts)} FROM {rows} AS checked)"
        for number, (rows, counts) in enumerate(scans.items())
    ]
    batches = {check.rows: f"{check.table}_in_scope" for check in checks if check.rows.startswith("(")}
    named = ",\n".join(common) + "\n" + "\nUNION ALL\n".join(selects)
    for rows, name in batches.items():
        named = named.replace(rows, name)
    read = "".join(f"{name} AS {rows},\n" for rows, name in batches.items())
    return f"WITH {read}{named}" if common else named.lstrip()
