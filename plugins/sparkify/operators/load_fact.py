"""Load a batch of facts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from sparkify.batches import TURN, require_staging
from sparkify.compat import AirflowFailException
from sparkify.errors import explained
from sparkify.files import s3_hook
from sparkify.lineage import LineageOperator, table_assets
from sparkify.ranges import Index, hour, ranges_of_times
from sparkify.rejects import describe, find_rejected_rows, keep_rejected_rows
from sparkify.replace import Replaced, replace_changed_rows
from sparkify.sql import Result, Transaction, constant, identifier, run_in_transaction, utc

if TYPE_CHECKING:
    from airflow.sdk import Context

MOST_HOURS = 10


class LoadFactOperator(LineageOperator):
    """
    Load a batch of facts from one SELECT in one transaction, and store the rows that another SELECT rejects.

    A fact whose key is loaded already is replaced, if it differs; so the same batch may be loaded again.

    :param table: the fact table (templated)
    :param key: the columns that identify a fact
    :param sql: a SELECT of the batch's facts, or a ``.sql`` file on the DAG's search path (templated);
        ``transform/<table>.sql`` unless it is given
    :param time_column: the facts' time, by which the table is sorted: only near the batch's times is looked
    :param index: where, besides, older versions of facts lie; needed if the batch may correct a fact's time
    :param rejected_sql: a SELECT of the batch's other rows, to be kept in ``etl_rejected_rows``:
        ``column_name``, ``reason``, and the staged columns by whose values a row's line is found; or a
        ``.sql`` file (templated)
    :param manifest: ``s3://…`` of the manifest of the batch's files, to find those lines in; empty if there
        is none (templated)
    :param replace_from: if given, the facts from this time on (ISO 8601; templated) …
    :param replace_to: … up to and without this one are deleted before the batch is loaded (templated), if the
        batch has facts in each hour that has any
    :param dependents: dimensions of which a row exists only as long as a fact refers to it, with the column
        that both have; rows that lose their last fact are deleted
    :param reads: the staging tables that the SELECTs read, which must still hold this run's files; if they
        hold none, there is nothing to do
    :param conn_id: the warehouse; its connection type picks the hook
    :param aws_conn_id: the AWS connection that reads the batch's files
    """

    template_fields: Sequence[str] = (
        *("table", "sql", "rejected_sql", "manifest", "replace_from", "replace_to"),
        *BaseSQLOperator.template_fields,
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "rejected_sql": "sql"}

    def __init__(
        self,
        *,
        table: str,
        key: Sequence[str],
        time_column: str,
        sql: str = "",
        index: Index | None = None,
        rejected_sql: str | None = None,
        manifest: str = "",
        replace_from: str = "",
        replace_to: str = "",
        dependents: Mapping[str, str] | None = None,
        reads: Sequence[str] = (),
        conn_id: str = "redshift",
        aws_conn_id: str = "aws_default",
        **kwargs: Any,
    ) -> None:
        sql = sql or f"transform/{table}.sql"
        kwargs.setdefault(
            "doc_md",
            f"Replaces the rows of `{table}` whose key is in the batch, as `{sql}` selects them; rows that"
            " cannot be loaded go to `etl_rejected_rows`.",
        )
        kwargs.setdefault("inlets", table_assets(*reads))
        kwargs.setdefault("outlets", table_assets(table))
        super().__init__(conn_id=conn_id, **kwargs)
        if not key:
            raise ValueError(f"{self.task_id}: a fact needs at least one key column")
        self.table, self.key, self.sql = table, key, sql
        self.time_column, self.index = time_column, index
        self.replace_from, self.replace_to = replace_from, replace_to
        self.rejected_sql, self.manifest, self.aws_conn_id = rejected_sql, manifest, aws_conn_id
        self.dependents, self.reads = dependents or {}, reads

    def transaction(self, run_id: str) -> Transaction[tuple[dict[str, Any], Result | None]]:
        """
        Yield the transaction's statements.

        :param run_id: the run
        :return: what :meth:`execute` returns, and the batch's rejected rows, which are still to be stored
        """
        yield TURN
        if not (yield from require_staging(self.reads, run_id)):
            if self.replace_from:
                raise self._refuse("the run staged no file")
            return {**asdict(Replaced()), "deleted": 0, "rejected": 0}, None
        deleted = (yield from self._delete_window()) if self.replace_from else 0
        replaced = yield from replace_changed_rows(
            self.table, self.key, self.sql, self.time_column, self.index
        )
        rejected = (yield self.rejected_sql) if self.rejected_sql else None
        if rejected and not rejected.rows:
            yield from keep_rejected_rows(self.table, run_id, [])
        if deleted:
            yield from self._delete_orphans(f"{self.table}_deleted")
        if replaced.updated:
            yield from self._delete_orphans(f"{self.table}_old")
        counts = {"deleted": deleted, "rejected": len(rejected.rows) if rejected else 0}
        return {**asdict(replaced), **counts}, rejected

    def _store_rejected(self, run_id: str, rejected: Result) -> None:
        """Store rejected rows in a transaction of their own, so that no other waits while S3 is read."""
        rows = find_rejected_rows(s3_hook(self.aws_conn_id), self.manifest, rejected)

        def store() -> Transaction[None]:
            yield TURN
            yield from keep_rejected_rows(self.table, run_id, rows)

        run_in_transaction(self.get_db_hook(), store())
        self.log.warning(
            "%d rows were rejected, and are stored in etl_rejected_rows:\n%s", len(rows), describe(rows)
        )

    def _delete_window(self) -> Transaction[int]:
        table, column = identifier(self.table), identifier(self.time_column)
        low, high = (constant(utc(moment)) for moment in (self.replace_from, self.replace_to))
        window = f"{column} >= {low} AND {column} < {high}"
        yield from self._require_coverage(window)
        yield f"CREATE TEMP TABLE {table}_deleted (LIKE {table})"
        yield f"INSERT INTO {table}_deleted SELECT * FROM {table} WHERE {window}"
        return (yield f"DELETE FROM {table} WHERE {window}").row_count

    def _require_coverage(self, window: str) -> Transaction[None]:
        """Check that the batch has facts in each hour whose facts would be deleted."""
        began = hour(self.time_column)
        yield f"CREATE TEMP TABLE {self.table}_staged (LIKE {self.table})"
        yield f"INSERT INTO {self.table}_staged\n{self.sql}"

        def count(table: str) -> Transaction[dict[datetime, int]]:
            result = yield (
                f"SELECT {began} AS began, COUNT(*) AS facts FROM {table} WHERE {window}"
                f" GROUP BY {began} ORDER BY {began}"
            )
            return dict(map(tuple, result.rows))

        staged = yield from count(f"{self.table}_staged")
        stored = yield from count(self.table)
        if not staged:
            raise self._refuse("the staged files have no row in this time")
        lost = [(began, facts) for began, facts in stored.items() if began not in staged]
        if lost:
            shown = [f"{began:%Y-%m-%d %H:%M} ({facts} rows)" for began, facts in lost[:MOST_HOURS]]
            more = [f"and {len(lost) - MOST_HOURS} more hours"] if len(lost) > MOST_HOURS else []
            raise self._refuse(
                f"{sum(facts for _, facts in lost)} rows would be deleted from {len(lost)} hours (UTC) in"
                f" which the staged files have none: {', '.join([*shown, *more])}"
            )

    def _refuse(self, because: str) -> AirflowFailException:
        return AirflowFailException(
            f"The rows of {self.table} from {self.replace_from} to {self.replace_to} were not replaced, and"
            f" nothing was changed: {because}. Trigger a new run with a reload_prefix that matches all files"
            " of this time, or with another replace_from and replace_to. If an hour should lose all its rows,"
            " delete them by SQL first"
        )

    def _delete_orphans(self, gone: str) -> Transaction[None]:
        for dimension, column in self.dependents.items():
            times = yield from ranges_of_times(column, gone)
            present = f"{self.table}.{column}"
            yield (
                f"DELETE FROM {identifier(dimension)}\n"
                f"WHERE {times.hold(column)}\n"
                f"AND {column} IN (SELECT {gone}.{column} FROM {gone})\n"
                f"AND {column} NOT IN (SELECT {present} FROM {self.table} WHERE {times.hold(present)})"
            )

    def execute(self, context: "Context") -> dict[str, Any]:
        """
        Load the batch.

        :return: for XCom: rows ``inserted``, ``updated``, ``unchanged``, ``deleted``, ``rejected``; and the
            conditions ``within`` and ``indexed``, which hold for all but the deleted and rejected ones
        """
        with explained(f"Loading {self.table}", self.conn_id):
            counts, rejected = run_in_transaction(self.get_db_hook(), self.transaction(context["run_id"]))
            if rejected and rejected.rows:
                self._store_rejected(context["run_id"], rejected)
        self.log.info(
            "%s: %s",
            *(self.table, ", ".join(f"{n} {what}" for what, n in counts.items() if isinstance(n, int))),
        )
        if counts["updated"]:
            self.log.warning(
                "%d rows of %s were loaded before with other content, and are replaced",
                *(counts["updated"], self.table),
            )
        return counts
