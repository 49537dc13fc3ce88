"""Bring a dimension up to date."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from sparkify.sql import explained, replace_changed_rows, run_in_transaction

if TYPE_CHECKING:
    from airflow.sdk import Context


class LoadDimensionOperator(BaseSQLOperator):
    """
    Bring a dimension up to date from one SELECT, in one transaction.

    The SELECT yields the final row of every key it touches, and so decides which row wins, the row that is
    already there included. Rows that differ from those are replaced.

    :param table: the dimension (templated)
    :param key: the columns that identify a row
    :param sql: a SELECT, or a ``.sql`` file on the DAG's search path (templated)
    :param conn_id: the warehouse; its connection type picks the hook
    """

    template_fields: Sequence[str] = ("table", "sql", *BaseSQLOperator.template_fields)
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql"}

    def __init__(
        self, *, table: str, key: Sequence[str], sql: str, conn_id: str = "redshift", **kwargs: Any
    ) -> None:
        super().__init__(conn_id=conn_id, **kwargs)
        if not key:
            raise ValueError(f"{self.task_id}: a dimension needs at least one key column")
        self.table, self.key, self.sql = table, key, sql

    def statements(self) -> list[str]:
        """Return the transaction's statements."""
        return replace_changed_rows(self.table, self.key, self.sql)

    def execute(self, context: "Context") -> dict[str, int]:
        """
        Load the dimension.

        :return: for XCom: rows ``inserted``, ``updated`` and ``unchanged``
        """
        with explained(f"Loading {self.table}", self.conn_id):
            _, _, selected, changed, updated, _ = run_in_transaction(self.get_db_hook(), self.statements())
        counts = {"inserted": changed - updated, "updated": updated, "unchanged": selected - changed}
        self.log.info("%s: %s", self.table, ", ".join(f"{count} {what}" for what, count in counts.items()))
        return counts
