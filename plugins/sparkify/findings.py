"""What checks have found: how it is told, kept in the warehouse, and handed to Airflow."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from sparkify.alerts import warn
from sparkify.batches import TURN
from sparkify.checks import Check, count_broken
from sparkify.compat import AirflowFailException, SQLCheckResult
from sparkify.rejects import cut
from sparkify.sql import Result, Transaction, insert_rows, run_in_transaction

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.sdk import Context

log = logging.getLogger(__name__)

QUALITY_RESULTS = "etl_quality_results"
MOST_EXAMPLES = 5
MASK = "***"
_KEPT_AS = {"failed": "error", "warning": "warn", "passed": "pass"}


@dataclass(frozen=True)
class Finding:
    """
    What one check has found.

    :param check: the check
    :param failed_rows: how many rows break it
    :param checked_rows: how many were checked, None if that is not known
    :param examples: up to :data:`MOST_EXAMPLES` of the rows that break it, each as a text
    """

    check: Check
    failed_rows: int
    checked_rows: int | None = None
    examples: Sequence[str] = ()

    @property
    def outcome(self) -> Literal["passed", "warning", "failed"]:
        """What it amounts to: within its tolerance, an error is a warning, and a warning is none."""
        if self.failed_rows > self.check.tolerated(self.checked_rows):
            return "failed" if self.check.severity == "error" else "warning"
        return "warning" if self.failed_rows and self.check.severity == "error" else "passed"

    def describe(self) -> str:
        """Return what is wrong, how many rows, which, and what to do; or that nothing is."""
        label = "FAILED" if self.outcome == "failed" else self.outcome
        if not self.failed_rows:
            checked = "" if self.checked_rows is None else f" ({self.checked_rows:,} rows)"
            return f"{label}: {self.check.name}{checked}"
        tolerated = self.check.tolerated(self.checked_rows)
        notes = [
            *([] if self.checked_rows is None else [f"{self.checked_rows:,} rows checked"]),
            *([f"{tolerated:,} are tolerated"] if tolerated else []),
        ]
        lines = [
            f"{label}: {self.check.name}: not so in {self.failed_rows:,}"
            + (" case" if self.failed_rows == 1 else " cases")
            + (f" ({'; '.join(notes)})" if notes else "")
            + (", such as" if self.examples else ""),
            *(f"  {example}" for example in self.examples),
        ]
        if self.outcome != "passed" and self.check.advice:
            lines.append(f"  What to do: {self.check.advice}")
        return "\n".join(lines)


def examples(check: Check, found: Result) -> list[str]:
    """
    Return rows that break a check as texts, each a JSON object, without what the check masks.

    What the check is about comes first.

    :param check: the check
    :param found: some rows of its ``sql``
    """
    columns = sorted(found.columns, key=lambda column: column not in check.columns)
    shown = []
    for row in found.rows:
        values = dict(zip(found.columns, row, strict=True))
        values |= {column: MASK for column in check.masked if values.get(column) is not None}
        ordered = {column: values[column] for column in columns}
        shown.append(json.dumps(ordered, default=str, ensure_ascii=False))
    return shown


def find_broken(checks: Sequence[Check]) -> Transaction[list[Finding]]:
    """
    Yield the statement that runs checks, and one for each that finds something, to show examples.

    :param checks: the checks, at least one
    :return: what each check found
    """
    counts = {number: counted for number, *counted in (yield count_broken(checks)).rows}
    findings = []
    for number, check in enumerate(checks):
        failed_rows, checked_rows = counts[number]
        shown: list[str] = []
        if failed_rows:
            shown = examples(check, (yield f"SELECT * FROM ({check.sql}) AS broken LIMIT {MOST_EXAMPLES}"))
        findings.append(Finding(check, failed_rows, checked_rows, shown))
    return findings


def keep(findings: Sequence[Finding], run_id: str) -> Transaction[None]:
    """
    Keep findings in ``etl_quality_results``, in place of those that the same run had of the same checks.

    Where rows were found, ``severity`` is what came of them: ``error`` stopped the run, ``warn`` was told,
    and ``pass`` is tolerated.

    :param findings: the findings
    :param run_id: the run
    """
    names = [finding.check.name for finding in findings]
    placeholders = ", ".join(["%s"] * len(names))
    yield (
        f"DELETE FROM {QUALITY_RESULTS} WHERE run_id = %s AND check_name IN ({placeholders})",
        [run_id, *names],
    )
    now = datetime.now(UTC).replace(tzinfo=None)
    yield from insert_rows(
        QUALITY_RESULTS,
        ("run_id", "check_name", "table_name", "severity", "failed_rows", "example", "checked_at"),
        [
            (
                *(run_id, finding.check.name, finding.check.table),
                _KEPT_AS[finding.outcome] if finding.failed_rows else finding.check.severity,
                finding.failed_rows,
                cut("\n".join(finding.examples), 65535) or None,
                now,
            )
            for finding in findings
        ],
    )


def tell(findings: Sequence[Finding], context: "Context") -> str:
    """
    Log each finding, and send the warnings as one alert, unless something fails the task: that is told then.

    :param findings: the findings
    :param context: the task's context
    :return: what the task fails with, empty if nothing does: a line that names every check that failed, then
        what to do, then examples
    """
    levels = {"passed": logging.INFO, "warning": logging.WARNING, "failed": logging.ERROR}
    for finding in findings:
        log.log(levels[finding.outcome], "%s", finding.describe())
    failed, warnings = ([each for each in findings if each.outcome == what] for what in ("failed", "warning"))
    log.info(
        "Of %d checks, %d failed, %d warn; the others passed", *(len(findings), len(failed), len(warnings))
    )
    if not failed:
        warn(context, [finding.describe() for finding in warnings])
        return ""
    names = "; ".join(f"{finding.check.name} ({finding.failed_rows:,})" for finding in failed)
    advice = dict.fromkeys(finding.check.advice for finding in failed if finding.check.advice)
    # Last, because an alert cuts a long text off.
    shown = [f"  {example}" for finding in failed for example in finding.examples]
    return "\n".join([f"{len(failed)} of {len(findings)} checks failed: {names}", *advice, *shown])


def conclude(findings: Sequence[Finding], hook: "DbApiHook", context: "Context") -> dict[str, int]:
    """
    Keep and tell what was found other than by a :class:`DataQualityOperator`, and end the task accordingly.

    :param findings: the findings
    :param hook: the warehouse's hook
    :param context: the task's context
    :return: for XCom: the number of rows that broke each check, by its name
    :raises AirflowFailException: if one fails the task
    """

    def transaction() -> Transaction[None]:
        yield TURN
        yield from keep(findings, context["run_id"])

    run_in_transaction(hook, transaction())
    if failure := tell(findings, context):
        raise AirflowFailException(failure)
    return {finding.check.name: finding.failed_rows for finding in findings}


def as_check_result(finding: Finding) -> SQLCheckResult:
    """
    Return a finding as Airflow hands it to listeners, such as OpenLineage's.

    :param finding: the finding
    """
    check = finding.check
    tolerated = check.tolerated(finding.checked_rows)
    return SQLCheckResult(
        name=check.name,
        check_type=check.kind,
        success=finding.outcome == "passed",
        severity="warn" if finding.outcome == "warning" else check.severity,
        column=check.columns[0] if len(check.columns) == 1 else None,
        table=check.table,
        expected=f"<= {tolerated}" if tolerated else "0",
        actual=str(finding.failed_rows),
        content=check.sql,
    )
