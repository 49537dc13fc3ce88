"""Load a batch of facts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from sparkify.rejects import REJECTED_ROWS
from sparkify.sql import explained, literal, replace_changed_rows, run_in_transaction

if TYPE_CHECKING:
    from airflow.sdk import Context


class LoadFactOperator(BaseSQLOperator):
    """
    Load a batch of facts from one SELECT, and the rows that cannot be facts from another, in one transaction.

    A fact whose key is loaded already is replaced, if it differs; so the same batch may be loaded again.

    :param table: the fact table (templated)
    :param key: the columns that identify a fact
    :param sql: a SELECT of the batch's facts, or a ``.sql`` file on the DAG's search path (templated)
    :param rejected_sql: a SELECT of the batch's other rows, as rows of ``etl_rejected_rows`` whose dataset is
        the fact table, or a ``.sql`` file (templated)
    :param conn_id: the warehouse; its connection type picks the hook
    """

    template_fields: Sequence[str] = ("table", "sql", "rejected_sql", *BaseSQLOperator.template_fields)
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "rejected_sql": "sql"}

    def __init__(
        self,
        *,
        table: str,
        key: Sequence[str],
        sql: str,
        rejected_sql: str | None = None,
        conn_id: str = "redshift",
        **kwargs: Any,
    ) -> None:
        super().__init__(conn_id=conn_id, **kwargs)
        if not key:
            raise ValueError(f"{self.task_id}: a fact needs at least one key column")
        self.table, self.key, self.sql, self.rejected_sql = table, key, sql, rejected_sql

    def statements(self, run_id: str) -> list[str]:
        """
        Return the transaction's statements.

        :param run_id: the run whose rejected rows are replaced
        """
        statements = replace_changed_rows(self.table, self.key, self.sql)
        if self.rejected_sql:
            statements += [
                f"DELETE FROM {REJECTED_ROWS}"
                f" WHERE dataset = {literal(self.table)} AND run_id = {literal(run_id)}",
                f"INSERT INTO {REJECTED_ROWS}\n{self.rejected_sql}",
            ]
        return statements

    def execute(self, context: "Context") -> dict[str, int]:
        """
        Load the batch.

        :return: for XCom: rows ``inserted``, ``updated``, ``unchanged`` and ``rejected``
        """
        statements = self.statements(context["run_id"])
        with explained(f"Loading {self.table}", self.conn_id):
            row_counts = run_in_transaction(self.get_db_hook(), statements)
        selected, changed, updated = row_counts[2:5]
        counts = {
            "inserted": changed - updated,
            "updated": updated,
            "unchanged": selected - changed,
            "rejected": row_counts[-1] if self.rejected_sql else 0,
        }
        self.log.info("%s: %s", self.table, ", ".join(f"{count} {what}" for what, count in counts.items()))
        return counts
