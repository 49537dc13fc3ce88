"""Bring a dimension up to date."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from sparkify.batches import TURN, require_staging
from sparkify.errors import explained
from sparkify.lineage import LineageOperator, table_assets
from sparkify.replace import Replaced, replace_changed_rows
from sparkify.sql import Transaction, run_in_transaction

if TYPE_CHECKING:
    from airflow.sdk import Context


class LoadDimensionOperator(LineageOperator):
    """
    Bring a dimension up to date from one SELECT, in one transaction.

    The SELECT yields the final row of every key it touches, and so decides which row wins, the row that is
    already there included. Rows that differ from those are replaced.

    :param table: the dimension (templated)
    :param key: the columns that identify a row
    :param sql: a SELECT, or a ``.sql`` file on the DAG's search path (templated); ``transform/<table>.sql``
        unless it is given
    :param within: for a large dimension, the time that is its key: only near the batch's times is looked
    :param reads: the staging tables that the SELECT reads, which must still hold this run's files; if they
        hold none, there is nothing to do
    :param conn_id: the warehouse; its connection type picks the hook
    """

    template_fields: Sequence[str] = ("table", "sql", *BaseSQLOperator.template_fields)
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql"}

    def __init__(
        self,
        *,
        table: str,
        key: Sequence[str],
        sql: str = "",
        within: str | None = None,
        reads: Sequence[str] = (),
        conn_id: str = "redshift",
        **kwargs: Any,
    ) -> None:
        sql = sql or f"transform/{table}.sql"
        kwargs.setdefault(
            "doc_md", f"Replaces the rows of `{table}` that the batch changes; `{sql}` says which row wins."
        )
        kwargs.setdefault("inlets", table_assets(*reads))
        kwargs.setdefault("outlets", table_assets(table))
        super().__init__(conn_id=conn_id, **kwargs)
        if not key:
            raise ValueError(f"{self.task_id}: a dimension needs at least one key column")
        self.table, self.key, self.sql, self.within, self.reads = table, key, sql, within, reads

    def transaction(self, run_id: str) -> Transaction[Replaced]:
        """
        Yield the transaction's statements.

        :param run_id: the run
        """
        yield TURN
        if not (yield from require_staging(self.reads, run_id)):
            return Replaced()
        return (yield from replace_changed_rows(self.table, self.key, self.sql, self.within))

    def execute(self, context: "Context") -> dict[str, Any]:
        """
        Load the dimension.

        :return: for XCom: rows ``inserted``, ``updated`` and ``unchanged``, and ``within``, a condition that
            holds for all of them
        """
        with explained(f"Loading {self.table}", self.conn_id):
            replaced = run_in_transaction(self.get_db_hook(), self.transaction(context["run_id"]))
        self.log.info(
            "%s: %d inserted, %d updated, %d unchanged",
            *(self.table, replaced.inserted, replaced.updated, replaced.unchanged),
        )
        return asdict(replaced)
