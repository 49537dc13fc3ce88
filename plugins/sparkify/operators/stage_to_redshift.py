"""Stage what is new below an S3 prefix in a Redshift table."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from sparkify.batches import TURN, take_staging
from sparkify.compat import AirflowException, AirflowFailException
from sparkify.errors import error_message, explained, is_database_error, may_pass
from sparkify.files import S3Object, manifest, run_folder, s3_hook, write_text
from sparkify.ledger import ledger_lines, unrecorded_objects
from sparkify.lineage import LineageOperator, table_assets
from sparkify.links import STAGING_LINKS, object_page
from sparkify.members import Members, look_at_members
from sparkify.new_files import Found, list_new, look_up_new
from sparkify.notifications import ANNOUNCED_WITHIN
from sparkify.params import wanted_again
from sparkify.rejects import (
    RejectedRow,
    describe,
    keep_rejected_rows,
    read_copy_account,
    with_raw_lines,
)
from sparkify.sql import Transaction, copy_json, identifier, run_in_transaction
from sparkify.state import WAREHOUSE, recall, recorded_before

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.sdk import Asset, Context

# Seconds between one look at Redshift's account of a COPY and the next.
ACCOUNT_PAUSES = (1, 2, 4, 8)


class StageToRedshiftOperator(LineageOperator):
    """
    Replace a staging table's rows by those of every object version below a prefix that is not in the ledger.

    Takes what the run's first task has found (:mod:`sparkify.new_files`), or lists the prefix itself. Writes
    a COPY manifest of exactly the new objects beside a file of their ledger rows (which
    :class:`RecordFilesOperator` loads when the whole run is done), then in one transaction empties the table
    and runs COPY. DELETE, not TRUNCATE, since TRUNCATE commits
    (https://docs.aws.amazon.com/redshift/latest/dg/r_TRUNCATE.html). Rows that COPY rejects are kept in
    ``etl_rejected_rows``, whether or not it then fails. Members of the newest JSON objects that COPY passes
    over, for want of a column, are told in a warning (:mod:`sparkify.members`).

    :param table: the staging table (templated)
    :param prefix: ``s3://bucket/prefix`` of the data (templated)
    :param work_prefix: ``s3://bucket/prefix/`` for manifests, readable for COPY (templated)
    :param iam_role: ARN of the role that COPY reads S3 with, or ``default`` for the cluster's own (templated)
    :param region: AWS region of both buckets (templated)
    :param max_rejected_rows: COPY's MAXERROR: it fails when it has rejected this many rows (templated)
    :param json: ``auto``, ``auto ignorecase``, or ``s3://…`` of a JSONPaths file (templated)
    :param found: as JSON, what :meth:`Found.hand_over` returned in another task; empty, to list (templated)
    :param copy_options: further clauses of COPY, such as ``TIMEFORMAT 'epochmillisecs'``
    :param conn_id: the warehouse; its connection type picks the hook
    :param aws_conn_id: the AWS connection that lists the prefix and writes the manifest
    :param inlets: what it reads, besides the warehouse's state
    """

    template_fields: Sequence[str] = (
        *("table", "prefix", "work_prefix", "iam_role", "region", "max_rejected_rows", "json", "found"),
        *BaseSQLOperator.template_fields,
    )
    operator_extra_links = STAGING_LINKS

    #: Where a browser shows the manifest, once it is written.
    manifest_page = ""

    def __init__(
        self,
        *,
        table: str,
        prefix: str,
        work_prefix: str,
        iam_role: str,
        region: str,
        max_rejected_rows: int | str = 0,
        json: str = "auto",
        found: str = "",
        copy_options: Sequence[str] = (),
        conn_id: str = "redshift",
        aws_conn_id: str = "aws_default",
        inlets: Sequence["Asset"] = (),
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault(
            "doc_md",
            "COPYs the files that `etl_files` lacks, in one transaction. Lines that do not fit are kept in"
            " `etl_rejected_rows` with file, line and reason; with more of them than"
            " `sparkify_max_rejected_rows` it fails.",
        )
        kwargs.setdefault("outlets", table_assets(table))
        super().__init__(conn_id=conn_id, inlets=[WAREHOUSE, *inlets], **kwargs)
        self.table = table
        self.prefix = prefix
        self.work_prefix = work_prefix
        self.iam_role = iam_role
        self.region = region
        self.max_rejected_rows = max_rejected_rows
        self.json = json
        self.found = found
        self.copy_options = copy_options
        self.aws_conn_id = aws_conn_id

    def copy_statement(self, manifest_url: str) -> str:
        """
        Return the COPY of a manifest.

        :param manifest_url: ``s3://…`` of the manifest
        :raises ValueError: if a setting is not of the form that may stand in the statement
        """
        return copy_json(
            self.table,
            manifest_url,
            iam_role=self.iam_role,
            region=self.region,
            json=self.json,
            options=["MANIFEST", f"MAXERROR {int(self.max_rejected_rows)}", *self.copy_options],
        )

    def execute(self, context: "Context") -> dict[str, Any]:
        """
        Stage the new objects.

        :return: for XCom: ``dataset``; ``files`` and ``bytes`` that were staged; ``passed_over`` objects;
            ``staged`` and ``rejected`` rows; ``unknown_members``, the number of members without a column;
            ``manifest`` and ``ledger_file``, the ``s3://…`` of the COPY's manifest and of the ledger rows
            (None if there are none); and ``listing``, what to remember of the prefix (None if it was not
            listed)
        :raises SourceError: if the prefix does not exist or may not be listed
        :raises AirflowFailException: if COPY rejected too many rows
        :raises AirflowException: if rows staged and rejected are not those that COPY accounts for
        """
        run_id = context["run_id"]
        s3 = s3_hook(self.aws_conn_id)
        with explained(f"Staging {self.table}", self.conn_id):
            found = self._find(s3, context)
            unrecorded = unrecorded_objects(
                self.get_db_hook(), self.table, found.objects, found.recorded_before
            )
            if found.announced is not None:
                self._look_for_unannounced(unrecorded, found.announced)
            new = set(unrecorded)
            files = [
                item for item in found.objects if item in new or wanted_again(item.url, context["params"])
            ]
            self.log.info(
                "%s: %d of %d objects are to be staged, %d other objects were passed over",
                *(self.prefix, len(files), found.total, found.passed_over),
            )
            folder = run_folder(self.work_prefix, self.dag_id, run_id)
            manifest_url = (
                write_text(s3, f"{folder}/{self.table}.manifest", manifest(files)) if files else None
            )
            if manifest_url:
                self.manifest_page = object_page(s3, manifest_url, self.region)
            lines = ledger_lines(self.table, unrecorded, run_id, datetime.now(UTC).replace(tzinfo=None))
            ledger_file = write_text(s3, f"{folder}/{self.table}.files.json", lines) if unrecorded else None
            staged, rejected, unknown = self._load(s3, run_id, manifest_url, files)
        self.log.info("%s: %d rows staged, %d rejected", self.table, staged, len(rejected))
        return {
            "dataset": self.table,
            "files": len(files),
            "bytes": sum(item.size for item in files),
            "passed_over": found.passed_over,
            "staged": staged,
            "rejected": len(rejected),
            "unknown_members": unknown,
            "manifest": manifest_url,
            "ledger_file": ledger_file,
            "listing": found.listing,
        }

    def _find(self, s3: "S3Hook", context: "Context") -> Found:
        """
        Return what may be new: as it was handed over, if that can still be relied upon.

        A later try looks anew, since what lay there may have been corrected or deleted meanwhile. So does
        one after which less is known to be loaded, for the tables may have been dropped since.
        """
        params = context["params"]
        known = recall(context).get(self.table) if not params["check_ledger"] else None
        handed = json.loads(self.found) if self.found else None
        if handed:
            announced, first_try = handed["listing"] is None, context["ti"].try_number <= 1
            found = Found.handed_over(s3, handed)
            if announced and not first_try:
                return look_up_new(s3, self.prefix, [item.key for item in found.objects])
            if announced or (first_try and found.recorded_before <= recorded_before(known, self.prefix)):
                return found
        return list_new(s3, self.prefix, known, params)

    def _look_for_unannounced(self, unrecorded: Sequence[S3Object], announced: Sequence[str]) -> None:
        """Warn if a listing has found what S3 should have announced by now."""
        due = datetime.now(UTC).replace(tzinfo=None) - ANNOUNCED_WITHIN
        known = set(announced)
        missed = [item for item in unrecorded if item.last_modified < due and item.key not in known]
        if missed:
            self.log.warning(
                "%s: %d new objects were listed that S3 did not announce, such as %s. Unless they are older"
                " than its notifications, see whether their bucket still sends these to the queue",
                *(self.prefix, len(missed), missed[0].url),
            )

    def _load(
        self, s3: "S3Hook", run_id: str, manifest_url: str | None, files: Sequence[S3Object]
    ) -> tuple[int, list[RejectedRow], int]:
        hook = self.get_db_hook()
        members = look_at_members(s3, files, self.json)
        copy_of: list[Any] = []  # session and time, by which its account is found, also when it fails

        def transaction() -> Transaction[tuple[int, int]]:
            table = identifier(self.table)
            yield TURN
            yield from take_staging(table, run_id, len(files))
            unknown = yield from self._count_unknown(members)
            copy_of.extend((yield "SELECT pg_backend_pid() AS session_id, SYSDATE AS since").rows[0])
            yield f"DELETE FROM {table}"
            if manifest_url:
                yield self.copy_statement(manifest_url)
            ((staged,),) = (yield f"SELECT COUNT(*) AS staged FROM {table}").rows
            return staged, unknown

        def keep(rejected: Sequence[RejectedRow]) -> Transaction[None]:
            yield TURN
            yield from keep_rejected_rows(self.table, run_id, rejected)

        def account(pauses: Sequence[float]) -> tuple[list[RejectedRow], list[Any]]:
            session_id, since = copy_of
            history, errors = read_copy_account(hook, session_id, since, pauses)
            rejected = list(with_raw_lines(s3, errors, [item.url for item in files]))
            run_in_transaction(hook, keep(rejected))
            return rejected, history

        try:
            staged, unknown = run_in_transaction(hook, transaction())
        except Exception as error:
            # A connection lost after a COPY that passed over bad rows is not a failure of that COPY.
            copy_failed = copy_of and is_database_error(error) and not may_pass(error)
            # As Redshift says: Check 'stl_load_errors' system table, or sys_load_error_detail.
            pauses = ACCOUNT_PAUSES if "load_error" in error_message(error) else ()
            rejected, _ = account(pauses) if copy_failed else ([], [])
            if not rejected:
                raise
            self.log.error(
                "%s\n%d rows were rejected, and are kept in etl_rejected_rows; nothing was loaded. Mend the"
                " files, or let COPY pass over more rows (sparkify_max_rejected_rows, now %s):\n%s",
                *(error_message(error), len(rejected), self.max_rejected_rows, describe(rejected)),
            )
            raise AirflowFailException(
                f"COPY rejected {len(rejected)} rows of {self.table}: {describe(rejected, 1)}"
            ) from error
        rejected, loads = account(ACCOUNT_PAUSES if manifest_url else ())
        if rejected:
            self.log.warning(
                "%d rows were rejected, and are kept in etl_rejected_rows:\n%s",
                *(len(rejected), describe(rejected)),
            )
        if manifest_url:
            self._check_account(loads, staged, len(rejected))
        return staged, rejected, unknown

    def _count_unknown(self, members: Members) -> Transaction[int]:
        """Warn of members that no column takes, before a COPY that may fail for their sake."""
        if not members.values:
            return 0
        columns = (yield f"SELECT * FROM {identifier(self.table)} LIMIT 0").columns
        unknown = members.unknown(columns)
        if unknown:
            self.log.warning("%s: %s", self.table, members.describe(columns))
        return len(unknown)

    def _check_account(self, loads: Sequence[Any], staged: int, rejected: int) -> None:
        """Hold what was staged and what was kept as rejected against Redshift's account of the COPY."""
        if not staged and not rejected:
            raise AirflowFailException(
                f"{self.table}: no row came of the files, though none of them is empty"
            )
        if not loads:
            self.log.warning("Redshift has no account of this COPY yet: nothing to compare the numbers with")
        elif tuple(loads[0]) != (staged, rejected):
            raise AirflowException(
                f"{self.table}: COPY loaded {loads[0][0]} rows and rejected {loads[0][1]}, but {staged} rows"
                f" are staged and {rejected} were kept as rejected"
            )
