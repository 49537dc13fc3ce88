"""Check the warehouse."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from sparkify.batches import TURN, require_staging
from sparkify.checks import Check
from sparkify.errors import explained
from sparkify.findings import Finding, as_check_result, find_broken, keep, tell
from sparkify.lineage import LineageOperator, table_assets
from sparkify.sql import Transaction, run_in_transaction, run_one_by_one

if TYPE_CHECKING:
    from airflow.sdk import Context


class DataQualityOperator(LineageOperator):
    """
    Run every check in one statement, tell of all that fail with example rows, keep the results, then fail.

    A check is broken if its SELECT finds a row. Beyond its tolerance, one of severity ``error`` fails the
    task; all else that is found is a warning.

    :param checks: what to check, at least one (their SQL is templated)
    :param reads: the staging tables that the checks read, which must still hold this run's files: else what
        the checks found would be another run's. Without any, loads go on while the checks look through the
        tables, and each statement sees a state of its own.
    :param conn_id: the warehouse; its connection type picks the hook
    """

    template_fields: Sequence[str] = ("checks", *BaseSQLOperator.template_fields)

    def __init__(
        self, *, checks: Sequence[Check], reads: Sequence[str] = (), conn_id: str = "redshift", **kwargs: Any
    ) -> None:
        kwargs.setdefault("retry_on_failure", False)  # bad data does not heal in five minutes
        kwargs.setdefault(
            "doc_md",
            "Checks what `include/checks` declares. The log tells of each check, `etl_quality_results` keeps"
            " the results. When it fails, the run stops, and its files count as not loaded.",
        )
        kwargs.setdefault("inlets", table_assets(*dict.fromkeys(check.table for check in checks)))
        kwargs.setdefault("outlets", table_assets("etl_quality_results"))
        super().__init__(conn_id=conn_id, **kwargs)
        if not checks:
            raise ValueError(f"{self.task_id}: without a check, nothing is checked")
        self.checks, self.reads = checks, reads

    def transaction(self, run_id: str) -> Transaction[list[Finding]]:
        """
        Yield the statements.

        :param run_id: the run
        :return: what each check found
        """
        if self.reads:
            yield TURN
            yield from require_staging(self.reads, run_id)
        findings = yield from find_broken(self.checks)
        yield from keep(findings, run_id)
        return findings

    def execute(self, context: "Context") -> dict[str, int]:
        """
        Run the checks.

        :return: for XCom: the number of rows that broke each check, by its name
        :raises AirflowFailException: if a check of severity ``error`` fails; AirflowException, which is
            retried, with ``retry_on_failure=True``
        """
        run = run_in_transaction if self.reads else run_one_by_one
        with explained("Checking", self.conn_id):
            findings = run(self.get_db_hook(), self.transaction(context["run_id"]))
        self.check_results = [as_check_result(finding) for finding in findings]
        if failure := tell(findings, context):
            self._raise_exception(failure)
        return {finding.check.name: finding.failed_rows for finding in findings}
