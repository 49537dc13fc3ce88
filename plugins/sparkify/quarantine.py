"""
Which files hold up the others, and why.

Only COPY can say for sure. So a batch is halved, and each half is loaded into a temporary table, until single
files are left.
"""

import logging
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparkify.advice import warehouse_advice
from sparkify.checks import Check, count_broken
from sparkify.copies import MOST_ERRORS, Copies
from sparkify.errors import error_message, is_database_error, may_pass, sqlstate, without_address
from sparkify.files import S3Object, read_head, write_text
from sparkify.findings import examples
from sparkify.formats import HEAD, describe_content
from sparkify.rejects import RejectedRow, count_objects
from sparkify.sql import Result, Transaction, identifier, run_in_transaction

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

log = logging.getLogger(__name__)

# Characters of a reason; the first are those of the columns that are checked.
MOST_OF_AN_EXAMPLE = 200


@dataclass(frozen=True)
class Fault:
    """
    Why a file is quarantined.

    :param cause: what is wrong, in the same words for all files with the same fault
    :param detail: what is particular about this file
    :param rows_read: rows of it that COPY read, None if it read none or stopped
    :param rejected: rows of it that COPY rejected, the first ones if there are too many
    """

    cause: str
    detail: str = ""
    rows_read: int | None = None
    rejected: Sequence[RejectedRow] = ()

    @property
    def reason(self) -> str:
        """The fault in one line."""
        return f"{self.cause}: {self.detail}" if self.detail else self.cause


def isolate(
    files: Sequence[S3Object], find_fault: Callable[[Sequence[S3Object]], Fault | None]
) -> dict[S3Object, Fault]:
    """
    Return the files that have a fault by themselves, of some that have one together.

    :param files: the files
    :param find_fault: returns what is wrong with some files together
    """
    if len(files) == 1:
        fault = find_fault(files)
        return {files[0]: fault} if fault else {}
    middle = len(files) // 2
    first, second = files[:middle], files[middle:]
    if len(first) > 1 and not find_fault(first):
        return isolate(second, find_fault)  # which must have it
    found = isolate(first, find_fault)
    if len(second) == 1 or find_fault(second):
        found |= isolate(second, find_fault)
    return found


@dataclass
class FaultFinder:
    """
    Finds out what is wrong with files.

    :param hook: the warehouse's hook; each trial has a session of its own
    :param copies: COPYs files into the staging table
    :param checks: what must be true of a file's rows
    :param max_rejected_rows: how many rows of a file COPY may reject
    """

    hook: "DbApiHook"
    copies: Copies
    checks: Sequence[Check]
    max_rejected_rows: int
    _copy_works: bool = field(default=False, init=False)
    _faults: dict[tuple[S3Object, ...], Fault | None] = field(default_factory=dict, init=False)

    def find(self, files: Sequence[S3Object]) -> Fault | None:
        """
        Return what is wrong with files, which is found out once.

        :param files: one or several; several are only tried together
        """
        if tuple(files) not in self._faults:
            self._faults[tuple(files)] = self._try(files)
        return self._faults[tuple(files)]

    def _try(self, files: Sequence[S3Object]) -> Fault | None:
        """
        Return what is wrong with files as COPY and the checks see them, in a temporary table.

        The temporary table hides the staging table from its session, so that all statements are the same
        (https://docs.aws.amazon.com/redshift/latest/dg/r_search_path.html).
        """
        table = identifier(self.copies.table)
        log.info("%s: trying files %s to %s (%d)", table, files[0].url, files[-1].url, len(files))
        manifests = self.copies.write_manifests(files, f"{table}.probe")
        copy_of: list[Any] = []
        shown: list[str] = []

        def transaction() -> Transaction[tuple[int, list[tuple[Check, int, int | None]]]]:
            copy_of[:] = (yield "SELECT pg_backend_pid() AS session_id, SYSDATE AS since").rows[0]
            yield f"CREATE TEMP TABLE {table} (LIKE {table})"
            yield from self.copies.run(manifests, self.max_rejected_rows + 1)
            ((rows,),) = (yield f"SELECT COUNT(*) AS staged FROM {table}").rows
            counts = (yield count_broken(self.checks)).rows if rows and self.checks else []
            broken = [(self.checks[number], failed, checked) for number, failed, checked in counts]
            if len(files) == 1:
                for check, failed, checked in broken:
                    if failed > check.tolerated(checked):
                        one: Result = yield f"SELECT * FROM ({check.sql}) AS broken LIMIT 1"
                        shown.extend(examples(check, one))
            return rows, broken

        try:
            rows, broken = run_in_transaction(self.hook, transaction())
        except Exception as error:
            if not blames_files(error):
                raise
            if len(files) > 1:
                return Fault(error_message(error))
            return self._explain(files[0], error, copy_of)
        if len(files) > 1:
            return next((Fault(check.name) for check, failed, _ in broken if may_fail(check, failed)), None)
        (item,) = files
        if not rows:
            return self._explain_no_row(item, copy_of)
        failed_checks = [each for each in broken if each[1] > each[0].tolerated(each[2])]
        if not failed_checks:
            return None
        sentences = "; ".join(dict.fromkeys(check.name.partition(": ")[2] for check, *_ in failed_checks))
        most = max(failed for _, failed, _ in failed_checks)
        counted = f"{most:,} of {rows:,} rows, for example {textwrap.shorten(shown[0], MOST_OF_AN_EXAMPLE)}"
        return Fault(f"its rows break a check ({sentences})", counted, rows_read=rows)

    def _explain(self, item: S3Object, error: Exception, copy_of: Sequence[Any]) -> Fault:
        """Return what is wrong with a file whose COPY failed; raise the error if it is not the file."""
        rejected: list[RejectedRow] = []
        if "load_error" in error_message(error):
            _, rejected = self.copies.read_report(self.hook, copy_of, [item], 1)
        content = self._describe_content(item)
        if rejected:
            cause = content or f"COPY rejected more than {self.max_rejected_rows} of its rows"
            return Fault(cause, _describe_row(rejected[0]), rejected=rejected)
        if not self._copy_works:
            try:
                run_in_transaction(self.hook, self._try_copy())
            except Exception as other:
                raise error from other
            self._copy_works = True
        return Fault(content or "COPY cannot read it", error_message(error))

    def _try_copy(self) -> Transaction[None]:
        """Yield a COPY of a file that has no fault, into a temporary table."""
        url = write_text(self.copies.s3, f"{self.copies.folder}/{self.copies.table}.probe.json", "{}\n")
        yield f"CREATE TEMP TABLE {identifier(self.copies.table)} (probe INTEGER)"
        yield self.copies.statement(url, [])

    def _explain_no_row(self, item: S3Object, copy_of: Sequence[Any]) -> Fault | None:
        """Return what is wrong with a file of which no row was loaded; None if it is blank."""
        _, rejected = self.copies.read_report(self.hook, copy_of, [item], 1)
        if not rejected and not count_objects(self.copies.s3, item):
            return None
        cause = self._describe_content(item) or "none of its rows could be loaded"
        detail = _describe_row(rejected[0]) if rejected else "COPY reports no reason"
        return Fault(cause, detail, rows_read=len(rejected), rejected=rejected)

    def is_suspect(self, item: S3Object, rejected: int) -> bool:
        """
        Tell whether so many rejected rows may be too many, or all that a file has.

        :param item: the file
        :param rejected: how many of its rows COPY has rejected
        """
        if rejected > self.max_rejected_rows or self._describe_content(item):
            return True
        return 2 * rejected >= count_objects(self.copies.s3, item)

    def _describe_content(self, item: S3Object) -> str:
        return describe_content(item.key, read_head(self.copies.s3, item, HEAD))

    def count_rows(self, item: S3Object) -> int:
        """
        Return how many rows COPY loads of a file.

        :param item: the file
        """
        return run_in_transaction(self.hook, self._count(item))

    def _count(self, item: S3Object) -> Transaction[int]:
        table = identifier(self.copies.table)
        yield f"CREATE TEMP TABLE {table} (LIKE {table})"
        yield from self.copies.run(self.copies.write_manifests([item], f"{table}.probe"), MOST_ERRORS)
        return (yield f"SELECT COUNT(*) AS staged FROM {table}").rows[0][0]


def _describe_row(row: RejectedRow) -> str:
    """Return where a rejected row is and what is wrong with it, without its values, which may be personal."""
    column = f", column {row.column_name}" if row.column_name else ""
    return f"line {row.line_number}{column}: {row.reason}"


def blames_files(error: Exception) -> bool:
    """
    Tell whether the files may be what made a COPY fail, and not permissions, settings, network or warehouse.

    Redshift's errors of loads have the SQLSTATE of an internal error.

    :param error: what was raised
    """
    if not is_database_error(error) or may_pass(error):
        return False
    state = sqlstate(error) or ""
    return state.startswith(("XX000", "22")) and not warehouse_advice(without_address(error_message(error)))


def archived(item: S3Object) -> Fault:
    """
    Return why an archived file is quarantined.

    :param item: the file
    """
    return Fault(f"it is archived ({item.archived}): restore it, then load it with reload_prefix")


def may_fail(check: Check, failed_rows: int) -> bool:
    """
    Tell whether a check may fail for one of several files: by so many rows, it could for a small one.

    Together, files never break fewer rows of a check than one of them alone.

    :param check: the check
    :param failed_rows: how many rows break it
    """
    return check.severity == "error" and failed_rows > check.tolerated_rows
