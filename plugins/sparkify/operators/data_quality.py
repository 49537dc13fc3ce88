"""Check the warehouse."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from sparkify.batches import TURN, require_staging
from sparkify.checks import Check
from sparkify.compat import SQLCheckResult
from sparkify.errors import explained
from sparkify.lineage import LineageOperator
from sparkify.sql import Transaction, insert_rows, run_in_transaction

if TYPE_CHECKING:
    from airflow.sdk import Context

QUALITY_RESULTS = "etl_quality_results"


class DataQualityOperator(LineageOperator):
    """
    Run every check in one round trip, report all that fail with an example row, store the results, then fail.

    A check fails if its SELECT finds a row; one of severity ``warn`` does not fail the task.

    :param checks: what to check, at least one (their SQL is templated)
    :param reads: the staging tables that the checks read, which must still hold this run's files: else what
        the checks found would be another run's
    :param conn_id: the warehouse; its connection type picks the hook
    """

    template_fields: Sequence[str] = ("checks", *BaseSQLOperator.template_fields)

    def __init__(
        self, *, checks: Sequence[Check], reads: Sequence[str] = (), conn_id: str = "redshift", **kwargs: Any
    ) -> None:
        super().__init__(conn_id=conn_id, **kwargs)
        if not checks:
            raise ValueError(f"{self.task_id}: without a check, nothing is checked")
        self.checks, self.reads = checks, reads

    def statement(self) -> str:
        """Return one SELECT of each check's number and how many rows break it."""
        return "\nUNION ALL\n".join(
            f"SELECT {number} AS check_number, COUNT(*) AS failed_rows FROM ({check.sql}) AS broken"
            for number, check in enumerate(self.checks)
        )

    def transaction(self, run_id: str) -> Transaction[tuple[dict[int, int], dict[int, str]]]:
        """
        Yield the transaction's statements.

        :param run_id: the run
        :return: of each check by its number, how many rows break it; and of those that are broken, one row
        """
        yield TURN
        yield from require_staging(self.reads, run_id)
        failed_rows: dict[int, int] = dict((yield self.statement()).rows)
        examples: dict[int, str] = {}
        for number, count in failed_rows.items():
            if count:
                broken = yield f"SELECT * FROM ({self.checks[number].sql}) AS broken LIMIT 1"
                examples[number] = str(broken.rows[0])
        names = [check.name for check in self.checks]
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
                    *(run_id, check.name, check.table, check.severity),
                    *(failed_rows[number], examples.get(number), now),
                )
                for number, check in enumerate(self.checks)
            ],
        )
        return failed_rows, examples

    def execute(self, context: "Context") -> dict[str, int]:
        """
        Run the checks.

        :return: for XCom: the number of rows that broke each check, by its name
        :raises AirflowException: if a check of severity ``error`` fails; AirflowFailException, which is not
            retried, with ``retry_on_failure=False``
        """
        with explained("Checking", self.conn_id):
            failed_rows, examples = run_in_transaction(
                self.get_db_hook(), self.transaction(context["run_id"])
            )
        for number, check in enumerate(self.checks):
            if not failed_rows[number]:
                self.log.info("passed: %s", check.name)
                continue
            found = f"{check.name}: {failed_rows[number]} rows do not, such as {examples[number]}"
            if check.severity == "error":
                self.log.error("FAILED: %s", found)
            else:
                self.log.warning("warning: %s", found)
        self.check_results = [
            SQLCheckResult(
                name=check.name,
                check_type="rows_that_break_it",
                success=not failed_rows[number],
                severity=check.severity,
                table=check.table,
                expected="0",
                actual=str(failed_rows[number]),
                content=check.sql,
            )
            for number, check in enumerate(self.checks)
        ]
        failures = [
            check.name
            for number, check in enumerate(self.checks)
            if failed_rows[number] and check.severity == "error"
        ]
        if failures:
            self._raise_exception(
                f"{len(failures)} of {len(self.checks)} checks failed: {'; '.join(failures)}"
            )
        return {check.name: failed_rows[number] for number, check in enumerate(self.checks)}
