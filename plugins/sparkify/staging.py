"""
From files on S3 to a staging table: COPY, the checks of its rows, and the files that are left out.

A file is *quarantined* if COPY cannot read it, if none of its rows can be loaded, if too many are rejected,
or if its rows break a check: the others are loaded without it. Only COPY can say for sure which file it is.
So the batch is halved, and each half is loaded into a temporary table, until single files are left. That
costs nothing where all is well.
"""

import logging
import textwrap
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sparkify.advice import warehouse_advice
from sparkify.batches import TURN, require_staging, take_staging
from sparkify.checks import Check, count_broken
from sparkify.compat import AirflowException
from sparkify.errors import error_message, is_database_error, may_pass, sqlstate
from sparkify.files import S3Object, manifest, read_head, write_text
from sparkify.findings import Finding, examples, find_broken, keep
from sparkify.formats import HEAD, copy_option, describe_content
from sparkify.members import Members
from sparkify.rejects import (
    RejectedRow,
    count_objects,
    keep_rejected_rows,
    read_copy_account,
    with_raw_lines,
)
from sparkify.sql import Result, Session, Transaction, identifier, run_in_transaction
from sparkify.tables import column_names

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.providers.common.sql.hooks.sql import DbApiHook

log = logging.getLogger(__name__)

# COPY passes over so many rejected rows at most
# (https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-load.html#copy-maxerror).
MOST_ERRORS = 100_000
# Characters of a reason; the first are those of the columns that are checked.
MOST_OF_AN_EXAMPLE = 200
# Seconds between one look at Redshift's account of a COPY and the next.
ACCOUNT_PAUSES = (1, 2, 4, 8)


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


@dataclass(frozen=True)
class Staged:
    """
    What became of a batch of files.

    :param files: those whose rows are staged
    :param faults: of each other file, why it is quarantined
    :param rows: number of staged rows
    :param rejected: rows that COPY rejected, those of quarantined files included
    :param findings: what the checks found of the staged rows
    :param manifest: ``s3://…`` of a manifest of the staged files, None if there are none
    :param unknown_members: number of fields that no column takes
    """

    files: Sequence[S3Object]
    faults: Mapping[S3Object, Fault]
    rows: int = 0
    rejected: Sequence[RejectedRow] = ()
    findings: Sequence[Finding] = ()
    manifest: str | None = None
    unknown_members: int = 0


def manifest_url(folder: str, name: str) -> str:
    """
    Return where a run keeps a manifest.

    :param folder: ``s3://…`` of the run's own files
    :param name: the staging table, for the manifest of its files
    """
    return f"{folder}/{name}.manifest"


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


def same_cause(staged: Staged) -> str:
    """
    Return the cause for which all of several files are quarantined, empty if there is none.

    :param staged: what became of the batch
    """
    causes = {fault.cause for fault in staged.faults.values()}
    return causes.pop() if len(causes) == 1 and len(staged.faults) > 1 and not staged.files else ""


@dataclass
class Stager:
    """
    Loads files into a staging table.

    :param hook: the warehouse's hook, which opens sessions to look for bad files in
    :param session: the session that fills the table
    :param s3: the hook of the AWS connection
    :param table: the staging table
    :param copy: returns the COPY of a manifest, given its address and further options
    :param reads: other staging tables that must still hold the run's files
    :param checks: what must be true of the table's rows; those of severity ``error`` of each file's
    :param folder: ``s3://…`` of the run's own files
    :param run_id: the run
    :param max_rejected_rows: how many rows of a file COPY may reject
    """

    hook: "DbApiHook"
    session: Session
    s3: "S3Hook"
    table: str
    copy: Callable[[str, Sequence[str]], str]
    reads: Sequence[str]
    checks: Sequence[Check]
    folder: str
    run_id: str
    max_rejected_rows: int
    _copy_works: bool = field(default=False, init=False)
    _faults: dict[tuple[S3Object, ...], Fault | None] = field(default_factory=dict, init=False)

    def stage(self, files: Sequence[S3Object], members: Members) -> Staged:
        """
        Replace the table's rows by those of files, without those that have to be left out.

        :param files: the files
        :param members: the fields of the newest objects
        :raises AirflowException: if rows staged and rejected are not those that COPY reports
        """
        faults = {item: _archived(item) for item in files if item.archived}
        while True:
            remaining = [item for item in files if item not in faults]
            staged, found = self._stage(remaining, faults, members)
            if not found:
                return staged
            faults |= found
            for item, fault in found.items():
                log.error("%s is quarantined: %s", item.url, fault.reason)

    def _stage(
        self, files: Sequence[S3Object], faults: Mapping[S3Object, Fault], members: Members
    ) -> tuple[Staged, dict[S3Object, Fault]]:
        """Stage files. If some of them have to be left out, return those: the rest has to be staged again."""
        manifests = self._write_manifests(files, self.table)
        copy_of: list[Any] = []  # session and time, by which its account is found
        staged = Staged(files, faults)
        try:
            rows, unknown = run_in_transaction(self.session, self._fill(files, manifests, members, copy_of))
        except Exception as error:
            found = isolate(files, self._find_fault) if blames_files(error) else {}
            if not found:
                raise
            return staged, found
        rejected: list[RejectedRow] = []
        if manifests:
            history, rejected = self._account(copy_of, files, len(manifests))
            self._check_account(history, rows, len(rejected))
            rejected = self._without_marks(files, rejected)
            if found := self._find_rejected_files(files, rows, rejected):
                return staged, found
        staged = replace(
            staged,
            rows=rows,
            rejected=[*rejected, *(row for fault in faults.values() for row in fault.rejected)],
            manifest=manifest_url(self.folder, self.table) if files else None,
            unknown_members=unknown,
        )
        if not files and not faults:
            return staged, {}
        findings = run_in_transaction(self.session, self._check(staged))
        suspicious = [each for each in findings if _fails(each.check, each.failed_rows)]
        if suspicious:
            log.warning(
                "Looking for the files whose rows break: %s",
                "; ".join(each.check.name for each in suspicious),
            )
            if found := isolate(files, self._find_fault):
                return staged, found
            run_in_transaction(self.session, self._keep(findings))
        return replace(staged, findings=[_of_several_files(each) for each in findings]), {}

    def _write_manifests(self, files: Sequence[S3Object], name: str) -> dict[str, str]:
        """
        Write a manifest of files, and return the manifests to COPY, by COPY's option for their compression.

        The option holds for all files of a COPY, so that there may be several.
        """
        groups: dict[str, list[S3Object]] = {}
        for item in files:
            groups.setdefault(copy_option(item.key), []).append(item)
        if not groups:
            return {}
        url = write_text(self.s3, manifest_url(self.folder, name), manifest(files))
        if len(groups) == 1:
            return {option: url for option in groups}
        return {
            option: write_text(
                self.s3, manifest_url(self.folder, f"{name}.{option.lower() or 'plain'}"), manifest(group)
            )
            for option, group in groups.items()
        }

    def _copies(self, manifests: Mapping[str, str], max_errors: int) -> Transaction[None]:
        for option, url in manifests.items():
            options = ["MANIFEST", f"MAXERROR {min(max_errors, MOST_ERRORS)}", *([option] if option else [])]
            yield self.copy(url, options)

    def _fill(
        self, files: Sequence[S3Object], manifests: Mapping[str, str], members: Members, copy_of: list[Any]
    ) -> Transaction[tuple[int, int]]:
        """Yield the transaction that replaces the rows; return the numbers of rows and of unknown fields."""
        table = identifier(self.table)
        yield TURN
        yield from require_staging(self.reads, self.run_id)
        yield from take_staging(table, self.run_id, len(files))
        if not manifests:
            yield f"DELETE FROM {table}"
            return 0, 0
        unknown = self._count_unknown(members)
        copy_of[:] = (yield "SELECT pg_backend_pid() AS session_id, SYSDATE AS since").rows[0]
        yield f"DELETE FROM {table}"
        yield from self._copies(manifests, MOST_ERRORS)
        ((rows,),) = (yield f"SELECT COUNT(*) AS staged FROM {table}").rows
        return rows, unknown

    def _count_unknown(self, members: Members) -> int:
        """Warn of fields that no column takes, before a COPY that may fail because of them."""
        if not members.values:
            return 0
        columns = column_names(self.table)
        unknown = members.unknown(columns)
        if unknown:
            log.warning("%s: %s", self.table, members.describe(columns))
        return len(unknown)

    def _account(
        self, copy_of: Sequence[Any], files: Sequence[S3Object], copies: int
    ) -> tuple[list[Any], list[RejectedRow]]:
        session_id, since = copy_of
        history, errors = read_copy_account(self.session, session_id, since, copies, ACCOUNT_PAUSES)
        return history, list(with_raw_lines(self.s3, errors, [item.url for item in files]))

    def _check_account(self, history: Sequence[Any], rows: int, rejected: int) -> None:
        """Compare the rows staged and rejected with what Redshift reports of the COPYs."""
        if not history:
            log.warning("Redshift does not report this COPY yet: nothing to compare the numbers with")
            return
        reported = tuple(sum(each[place] for each in history) for place in (0, 1))
        if reported != (rows, rejected):
            raise AirflowException(
                f"{self.table}: COPY loaded {reported[0]} rows and rejected {reported[1]}, but {rows} rows"
                f" are staged and {rejected} were kept as rejected"
            )

    def _find_rejected_files(
        self, files: Sequence[S3Object], rows: int, rejected: Sequence[RejectedRow]
    ) -> dict[S3Object, Fault]:
        """Return the files of which COPY has rejected too much."""
        counts = Counter(row.url for row in rejected)
        # Redshift cuts off a file's name, so that a row's file may not be known.
        unknown = sum(counts.values()) - sum(counts[item.url] for item in files)
        if unknown > self.max_rejected_rows:
            return isolate(files, self._find_fault)
        if not rows and not rejected:
            suspects = list(files)
        else:
            suspects = [
                item for item in files if counts[item.url] and self._is_suspect(item, counts[item.url])
            ]
        faults = ((item, self._find_fault([item])) for item in suspects)
        return {item: fault for item, fault in faults if fault}

    def _without_marks(self, files: Sequence[S3Object], rejected: Sequence[RejectedRow]) -> list[RejectedRow]:
        """
        Return rejected rows without byte order marks, which are no rows.

        Amazon does not document whether COPY rejects a mark alone, or the object that follows it. If it is
        the mark, there is one more row than the file has objects.
        """
        counts = Counter(row.url for row in rejected)
        first = {row.url: row for row in rejected if row.line_number == 1 and not row.column_name}
        marks = []
        for item in files:
            if item.url in first and read_head(self.s3, item, len(BOM_UTF8)) == BOM_UTF8:
                loaded = run_in_transaction(self.hook, self._count([item]))
                if loaded + counts[item.url] > count_objects(self.s3, item):
                    marks.append(first[item.url])
        return [row for row in rejected if not any(row is mark for mark in marks)]

    def _count(self, files: Sequence[S3Object]) -> Transaction[int]:
        """Yield the transaction that counts the rows of files, in a temporary table."""
        table = identifier(self.table)
        yield f"CREATE TEMP TABLE {table} (LIKE {table})"
        yield from self._copies(self._write_manifests(files, f"{self.table}.probe"), MOST_ERRORS)
        return (yield f"SELECT COUNT(*) AS staged FROM {table}").rows[0][0]

    def _is_suspect(self, item: S3Object, rejected: int) -> bool:
        """Tell whether so many rejected rows may be too many, or all that a file has."""
        if rejected > self.max_rejected_rows or self._describe_content(item):
            return True
        return 2 * rejected >= count_objects(self.s3, item)

    def _describe_content(self, item: S3Object) -> str:
        return describe_content(item.key, read_head(self.s3, item, HEAD))

    def _check(self, staged: Staged) -> Transaction[list[Finding]]:
        """Yield the transaction that stores rejected rows, and checks the staged ones."""
        yield TURN
        yield from keep_rejected_rows(self.table, self.run_id, staged.rejected)
        if not staged.files or not self.checks:
            return []
        findings = yield from find_broken(self.checks)
        if not any(_fails(each.check, each.failed_rows) for each in findings):
            yield from keep(findings, self.run_id)
        return findings

    def _keep(self, findings: Sequence[Finding]) -> Transaction[None]:
        yield TURN
        yield from keep(findings, self.run_id)

    def _find_fault(self, files: Sequence[S3Object]) -> Fault | None:
        """Return what is wrong with files, which is found out once."""
        if tuple(files) not in self._faults:
            self._faults[tuple(files)] = self._try(files)
        return self._faults[tuple(files)]

    def _try(self, files: Sequence[S3Object]) -> Fault | None:
        """
        Return what is wrong with files as COPY and the checks see them, in a temporary table.

        The temporary table hides the staging table from its session, so that all statements are the same
        (https://docs.aws.amazon.com/redshift/latest/dg/r_search_path.html).
        """
        log.info("%s: trying files %s to %s (%d)", self.table, files[0].url, files[-1].url, len(files))
        manifests = self._write_manifests(files, f"{self.table}.probe")
        checks = [check for check in self.checks if check.severity == "error"]
        copy_of: list[Any] = []
        shown: list[str] = []

        def transaction() -> Transaction[tuple[int, list[tuple[Check, int, int | None]]]]:
            table = identifier(self.table)
            copy_of[:] = (yield "SELECT pg_backend_pid() AS session_id, SYSDATE AS since").rows[0]
            yield f"CREATE TEMP TABLE {table} (LIKE {table})"
            yield from self._copies(manifests, self.max_rejected_rows + 1)
            ((rows,),) = (yield f"SELECT COUNT(*) AS staged FROM {table}").rows
            counts = (yield count_broken(checks)).rows if rows and checks else []
            broken = [(checks[number], failed, checked) for number, failed, checked in counts]
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
            return next((Fault(check.name) for check, failed, _ in broken if _fails(check, failed)), None)
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
        _, rejected = self._account(copy_of, [item], 1) if "load_error" in error_message(error) else ([], [])
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
        url = write_text(self.s3, f"{self.folder}/{self.table}.probe.json", "{}\n")
        yield f"CREATE TEMP TABLE {identifier(self.table)} (probe INTEGER)"
        yield self.copy(url, [])

    def _explain_no_row(self, item: S3Object, copy_of: Sequence[Any]) -> Fault | None:
        """Return what is wrong with a file of which no row was loaded; None if it is blank."""
        _, rejected = self._account(copy_of, [item], 1)
        if not rejected and not count_objects(self.s3, item):
            return None
        cause = self._describe_content(item) or "none of its rows could be loaded"
        detail = _describe_row(rejected[0]) if rejected else "COPY reports no reason"
        return Fault(cause, detail, rows_read=len(rejected), rejected=rejected)


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
    return state.startswith(("XX000", "22")) and not warehouse_advice(error_message(error))


def _archived(item: S3Object) -> Fault:
    return Fault(f"it is archived ({item.archived}): restore it, then load it with reload_prefix")


def _fails(check: Check, failed_rows: int) -> bool:
    """
    Tell whether a check may fail for one of several files: by so many rows, it could for a small one.

    Together, files never break fewer rows of a check than one of them alone.
    """
    return check.severity == "error" and failed_rows > check.tolerated_rows


def _of_several_files(finding: Finding) -> Finding:
    """Return a finding as a warning, if only several files together break the check."""
    if finding.outcome != "failed":
        return finding
    return replace(
        finding, check=replace(finding.check, severity="warn", tolerated_rows=0, tolerated_share=0.0)
    )
