"""
From files on S3 to a staging table: COPY, the checks of its rows, and the files that are left out.

A file is *quarantined* if COPY cannot read it, if none of its rows can be loaded, if too many are rejected,
or if its rows break a check: the others are loaded without it. Looking for such files
(:mod:`sparkify.quarantine`) costs nothing where all is well.
"""

import logging
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparkify.batches import TURN, require_staging, take_staging
from sparkify.checks import Check
from sparkify.compat import AirflowException
from sparkify.copies import MOST_ERRORS, Copies, manifest_url
from sparkify.files import S3Object, read_head
from sparkify.findings import Finding, find_broken, keep
from sparkify.members import Members
from sparkify.quarantine import Fault, FaultFinder, archived, blames_files, isolate, may_fail
from sparkify.rejects import RejectedRow, count_objects, keep_rejected_rows
from sparkify.sql import Session, Transaction, identifier, run_in_transaction
from sparkify.tables import column_names

log = logging.getLogger(__name__)


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


def same_cause(staged: Staged) -> str:
    """
    Return the cause for which all of several files are quarantined, empty if there is none.

    :param staged: what became of the batch
    """
    causes = {fault.cause for fault in staged.faults.values()}
    return causes.pop() if len(causes) == 1 and len(staged.faults) > 1 and not staged.files else ""


@dataclass(frozen=True)
class Stager:
    """
    Loads files into a staging table.

    :param session: the session that fills the table
    :param copies: COPYs files into the table
    :param finder: finds the files to leave out
    :param reads: other staging tables that must still hold the run's files
    :param checks: what must be true of the table's rows
    :param run_id: the run
    """

    session: Session
    copies: Copies
    finder: FaultFinder
    reads: Sequence[str]
    checks: Sequence[Check]
    run_id: str

    def stage(self, files: Sequence[S3Object], members: Members) -> Staged:
        """
        Replace the table's rows by those of files, without those that have to be left out.

        :param files: the files
        :param members: the fields of the newest objects
        :raises AirflowException: if rows staged and rejected are not those that COPY reports
        """
        faults = {item: archived(item) for item in files if item.archived}
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
        manifests = self.copies.write_manifests(files, self.copies.table)
        copy_of: list[Any] = []  # session and time, by which its account is found
        staged = Staged(files, faults)
        try:
            rows, unknown = run_in_transaction(self.session, self._fill(files, manifests, members, copy_of))
        except Exception as error:
            found = isolate(files, self.finder.find) if blames_files(error) else {}
            if not found:
                raise
            return staged, found
        rejected: list[RejectedRow] = []
        if manifests:
            history, rejected = self.copies.read_report(self.session, copy_of, files, len(manifests))
            self._check_account(history, rows, len(rejected))
            rejected = self._without_marks(files, rejected)
            if found := self._find_rejected_files(files, rows, rejected):
                return staged, found
        staged = replace(
            staged,
            rows=rows,
            rejected=[*rejected, *(row for fault in faults.values() for row in fault.rejected)],
            manifest=manifest_url(self.copies.folder, self.copies.table) if files else None,
            unknown_members=unknown,
        )
        if not files and not faults:
            return staged, {}
        findings = run_in_transaction(self.session, self._check(staged))
        suspicious = [each for each in findings if may_fail(each.check, each.failed_rows)]
        if suspicious:
            log.warning(
                "Looking for the files whose rows break: %s",
                "; ".join(each.check.name for each in suspicious),
            )
            if found := isolate(files, self.finder.find):
                return staged, found
            findings = [_of_several_files(each) for each in findings]
            run_in_transaction(self.session, self._keep(findings))
        return replace(staged, findings=findings), {}

    def _fill(
        self, files: Sequence[S3Object], manifests: Mapping[str, str], members: Members, copy_of: list[Any]
    ) -> Transaction[tuple[int, int]]:
        """Yield the transaction that replaces the rows; return the numbers of rows and of unknown fields."""
        table = identifier(self.copies.table)
        yield TURN
        yield from require_staging(self.reads, self.run_id)
        yield from take_staging(table, self.run_id, len(files))
        if not manifests:
            yield f"DELETE FROM {table}"
            return 0, 0
        unknown = self._count_unknown(members)
        copy_of[:] = (yield "SELECT pg_backend_pid() AS session_id, SYSDATE AS since").rows[0]
        yield f"DELETE FROM {table}"
        yield from self.copies.run(manifests, MOST_ERRORS)
        ((rows,),) = (yield f"SELECT COUNT(*) AS staged FROM {table}").rows
        return rows, unknown

    def _count_unknown(self, members: Members) -> int:
        """Warn of fields that no column takes, before a COPY that may fail because of them."""
        if not members.values:
            return 0
        columns = column_names(self.copies.table)
        unknown = members.unknown(columns)
        if unknown:
            log.warning("%s: %s", self.copies.table, members.describe(columns))
        return len(unknown)

    def _check_account(self, history: Sequence[Any], rows: int, rejected: int) -> None:
        """Compare the rows staged and rejected with what Redshift reports of the COPYs."""
        if not history:
            log.warning("Redshift does not report this COPY yet: nothing to compare the numbers with")
            return
        reported = tuple(sum(each[place] for each in history) for place in (0, 1))
        if reported != (rows, rejected):
            raise AirflowException(
                f"{self.copies.table}: COPY loaded {reported[0]} rows and rejected {reported[1]}, but {rows}"
                f" rows are staged and {rejected} were kept as rejected"
            )

    def _find_rejected_files(
        self, files: Sequence[S3Object], rows: int, rejected: Sequence[RejectedRow]
    ) -> dict[S3Object, Fault]:
        """Return the files of which COPY has rejected too much."""
        counts = Counter(row.url for row in rejected)
        # Redshift cuts off a file's name, so that a row's file may not be known.
        unknown = sum(counts.values()) - sum(counts[item.url] for item in files)
        if unknown > self.finder.max_rejected_rows:
            return isolate(files, self.finder.find)
        if not rows and not rejected:
            suspects = list(files)
        else:
            suspects = [
                item for item in files if counts[item.url] and self.finder.is_suspect(item, counts[item.url])
            ]
        faults = ((item, self.finder.find([item])) for item in suspects)
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
            if item.url in first and read_head(self.copies.s3, item, len(BOM_UTF8)) == BOM_UTF8:
                loaded = self.finder.count_rows(item)
                if loaded + counts[item.url] > count_objects(self.copies.s3, item):
                    marks.append(first[item.url])
        return [row for row in rejected if not any(row is mark for mark in marks)]

    def _check(self, staged: Staged) -> Transaction[list[Finding]]:
        """Yield the transaction that stores rejected rows, and checks the staged ones."""
        yield TURN
        yield from keep_rejected_rows(self.copies.table, self.run_id, staged.rejected)
        if not staged.files or not self.checks:
            return []
        findings = yield from find_broken(self.checks)
        if not any(may_fail(each.check, each.failed_rows) for each in findings):
            yield from keep(findings, self.run_id)
        return findings

    def _keep(self, findings: Sequence[Finding]) -> Transaction[None]:
        yield TURN
        yield from keep(findings, self.run_id)


def _of_several_files(finding: Finding) -> Finding:
    """Return a finding as a warning, if only several files together break the check."""
    if finding.outcome != "failed":
        return finding
    return replace(
        finding, check=replace(finding.check, severity="warn", tolerated_rows=0, tolerated_share=0.0)
    )
