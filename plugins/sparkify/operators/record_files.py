"""Write what a run has loaded to the ledger."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from sparkify.alerts import report_left_out
from sparkify.batches import TURN, StagingLostError, require_staging
from sparkify.errors import explained
from sparkify.files import SourceError, open_object, s3_hook
from sparkify.ledger import LEDGER
from sparkify.notifications import delete_messages
from sparkify.replace import replace_changed_rows
from sparkify.sql import Transaction, copy_json, run_in_transaction
from sparkify.state import WAREHOUSE, close, remember

if TYPE_CHECKING:
    from airflow.sdk import Context

STAGED = ("files", "bytes", "staged", "rejected", "quarantined", "ignored")
LOADED = ("inserted", "updated", "unchanged", "deleted", "rejected")


class RecordFilesOperator(BaseSQLOperator):
    """
    Write the object versions that a run dealt with to the ledger ``etl_files``, in one transaction.

    The run's last task: until it has run, the next run stages the same objects again. The rows come by COPY
    from the files that the staging tasks wrote, so that it does not matter how many they are. It requires
    that staging still holds this run's files, so that nothing is recorded in tables that were dropped
    meanwhile. Then it remembers what was listed (:mod:`sparkify.state`), deletes the messages that announced
    the objects (:mod:`sparkify.notifications`), sends an alert that names each file that was quarantined, and
    marks the asset ``sparkify_warehouse`` as updated.

    :param staging_task_ids: the run's :class:`StageToRedshiftOperator` tasks
    :param fact_task_ids: the run's :class:`LoadFactOperator` tasks, whose numbers the run's account takes in
    :param iam_role: ARN of the role that COPY reads S3 with, or ``default`` for the cluster's own (templated)
    :param region: AWS region of the work bucket (templated)
    :param messages: as JSON, ``messages`` of :func:`look_for_new_files`; empty if there are none (templated)
    :param conn_id: the warehouse; its connection type picks the hook
    :param aws_conn_id: the AWS connection that deletes the messages
    """

    template_fields: Sequence[str] = ("iam_role", "region", "messages", *BaseSQLOperator.template_fields)

    def __init__(
        self,
        *,
        staging_task_ids: Sequence[str],
        fact_task_ids: Sequence[str],
        iam_role: str,
        region: str,
        messages: str = "",
        conn_id: str = "redshift",
        aws_conn_id: str = "aws_default",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault(
            "doc_md",
            "Writes the loaded files to `etl_files`. Until then they count as new for the next run.",
        )
        super().__init__(conn_id=conn_id, outlets=[WAREHOUSE], **kwargs)
        self.staging_task_ids, self.fact_task_ids = staging_task_ids, fact_task_ids
        self.iam_role = iam_role
        self.region = region
        self.messages = messages
        self.aws_conn_id = aws_conn_id

    def transaction(
        self, datasets: Sequence[str], ledger_files: Sequence[str], run_id: str
    ) -> Transaction[bool]:
        """
        Yield the transaction's statements.

        :param datasets: the staging tables
        :param ledger_files: ``s3://…`` of each file of ledger rows
        :param run_id: the run
        :return: False if the run had recorded its files before another one staged its own
        """
        yield TURN
        try:
            yield from require_staging(datasets, run_id)
        except StagingLostError:
            ((recorded,),) = (yield f"SELECT COUNT(*) FROM {LEDGER} WHERE run_id = %s", [run_id]).rows
            if recorded:
                return False
            raise
        if not ledger_files:
            return True
        yield f"CREATE TEMP TABLE recorded (LIKE {LEDGER})"
        for file in ledger_files:
            yield copy_json(
                "recorded", file, iam_role=self.iam_role, region=self.region, options=["TIMEFORMAT 'auto'"]
            )
        key = ("dataset", "s3_key", "etag", "last_modified")
        yield from replace_changed_rows(LEDGER, key, "SELECT * FROM recorded", within="last_modified")
        return True

    def execute(self, context: "Context") -> dict[str, Any]:
        """
        Record the files.

        :return: for XCom, the run's account: ``files``, ``bytes``, ``staged`` and ``rejected`` rows,
            ``quarantined`` and ``ignored`` objects by dataset; facts ``inserted``, ``updated``,
            ``unchanged``, ``deleted`` and ``rejected`` by task; and a ``summary`` of it all in one line
        :raises StagingLostError: if staging does not hold this run's files any more
        """
        staged = context["ti"].xcom_pull(task_ids=list(self.staging_task_ids))
        datasets = [result["dataset"] for result in staged]
        ledger_files = [result["ledger_file"] for result in staged if result["ledger_file"]]
        with explained("Recording files", self.conn_id):
            is_current = run_in_transaction(
                self.get_db_hook(), self.transaction(datasets, ledger_files, context["run_id"])
            )
        if is_current:
            listings = {result["dataset"]: result["listing"] for result in staged}
            if None not in listings.values():
                remember(context, listings)
            self._delete_messages()
            close(context)
            report_left_out(context, staged)
        else:
            self.log.info("This run has recorded its files before: nothing is changed")
        loaded = zip(
            self.fact_task_ids, context["ti"].xcom_pull(task_ids=list(self.fact_task_ids)), strict=True
        )
        account = {result["dataset"]: {name: result[name] for name in STAGED} for result in staged}
        account |= {task_id: {name: result[name] for name in LOADED} for task_id, result in loaded}
        summary = "; ".join(
            f"{source}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items())
            for source, counts in account.items()
        )
        self.log.info("Loaded %s", summary)
        return {**account, "summary": summary}

    def _delete_messages(self) -> None:
        """Delete the messages that have announced what is recorded now; if one stays, no harm is done."""
        messages = json.loads(self.messages) if self.messages else None
        if not messages:
            return
        try:
            receipts = json.load(open_object(s3_hook(self.aws_conn_id), messages["receipts"]))
        except SourceError as error:
            self.log.warning("The run's messages were not deleted, and will come again: %s", error)
        else:
            delete_messages(self.aws_conn_id, messages["queue_url"], receipts)
