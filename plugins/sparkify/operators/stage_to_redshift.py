"""Stage what is new below an S3 prefix in a Redshift table."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.operators.sql import BaseSQLOperator

from sparkify.checks import Check
from sparkify.copies import Copies, manifest_url
from sparkify.errors import explained
from sparkify.files import S3Object, run_folder, s3_hook, write_text
from sparkify.findings import as_check_result, tell
from sparkify.formats import copy_option
from sparkify.ledger import Entry, known_rules, ledger_lines, unrecorded_objects
from sparkify.lineage import LineageOperator, table_assets
from sparkify.links import STAGING_LINKS, object_page
from sparkify.members import look_at_members
from sparkify.new_files import Found, list_new
from sparkify.notifications import ANNOUNCED_WITHIN
from sparkify.quarantine import FaultFinder
from sparkify.rejects import cut, describe
from sparkify.sql import Session, copy_json
from sparkify.staging import Staged, Stager, same_cause
from sparkify.state import WAREHOUSE, recall, remembered_before

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.sdk import Asset, Context

# How many quarantined files XCom names; the ledger has all of them.
SHOWN = 20
MOST_OF_A_REASON = 2048


class StageToRedshiftOperator(LineageOperator):
    """
    Replace a staging table's rows by those of every object version below a prefix that is not in the ledger.

    Takes what the run's first task has found (:mod:`sparkify.new_files`), or lists the prefix itself. Writes
    a COPY manifest of exactly the new objects, and a file of their ledger rows, which
    :class:`RecordFilesOperator` loads when the whole run is done. Then it empties the table and runs COPY in
    one transaction. DELETE, not TRUNCATE, since TRUNCATE commits
    (https://docs.aws.amazon.com/redshift/latest/dg/r_TRUNCATE.html). A file that cannot be loaded is
    quarantined (:mod:`sparkify.staging`). Rows that COPY rejects go to ``etl_rejected_rows``. Fields of the
    newest JSON objects that no column takes are named in a warning (:mod:`sparkify.members`).

    :param table: the staging table (templated)
    :param prefix: ``s3://bucket/prefix`` of the data (templated)
    :param work_prefix: ``s3://bucket/prefix/`` for manifests, readable for COPY (templated)
    :param iam_role: ARN of the role that COPY reads S3 with, or ``default`` for the cluster's own (templated)
    :param region: AWS region of both buckets (templated)
    :param max_rejected_rows: a file is quarantined if COPY rejects more of its rows (templated)
    :param json: ``auto``, ``auto ignorecase``, or ``s3://…`` of a JSONPaths file (templated)
    :param found: as JSON, what :meth:`Found.hand_over` returned in another task; empty, to list (templated)
    :param copy_options: further clauses of COPY, such as ``TIMEFORMAT 'epochmillisecs'``
    :param reads: staging tables that must still hold this run's files: a run that has lost one takes no other
    :param checks: what must be true of the staged rows; a file is quarantined if its rows break a check of
        severity ``error`` beyond its tolerance (their SQL is templated)
    :param conn_id: the warehouse; its connection type picks the hook
    :param aws_conn_id: the AWS connection that lists the prefix and writes the manifest
    :param inlets: what it reads, besides the warehouse's state
    """

    template_fields: Sequence[str] = (
        *("table", "prefix", "work_prefix", "iam_role", "region", "max_rejected_rows", "json", "found"),
        "checks",
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
        reads: Sequence[str] = (),
        checks: Sequence[Check] = (),
        conn_id: str = "redshift",
        aws_conn_id: str = "aws_default",
        inlets: Sequence["Asset"] = (),
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault(
            "doc_md",
            "COPYs the files that `etl_files` lacks, in one transaction, and runs the checks of"
            " `include/checks`. Rows that cannot be loaded go to `etl_rejected_rows` with file, line and"
            " reason. A file with more of them than `sparkify_max_rejected_rows`, or whose rows break a"
            " check, is quarantined: the others are loaded without it.",
        )
        kwargs.setdefault("outlets", table_assets(table, *(["etl_quality_results"] if checks else [])))
        super().__init__(conn_id=conn_id, inlets=[WAREHOUSE, *inlets], **kwargs)
        self.table, self.reads, self.checks = table, reads, checks
        self.prefix = prefix
        self.work_prefix = work_prefix
        self.iam_role = iam_role
        self.region = region
        self.max_rejected_rows = max_rejected_rows
        self.json = json
        self.found = found
        self.copy_options = copy_options
        self.aws_conn_id = aws_conn_id

    def copy_statement(self, url: str, options: Sequence[str] = ()) -> str:
        """
        Return a COPY into the staging table.

        :param url: ``s3://…`` of a manifest or a file
        :param options: further clauses, such as ``MANIFEST``
        :raises ValueError: if a setting is not of the form that may stand in the statement
        """
        return copy_json(
            self.table,
            url,
            iam_role=self.iam_role,
            region=self.region,
            json=self.json,
            options=[*options, *self.copy_options],
        )

    def execute(self, context: "Context") -> dict[str, Any]:
        """
        Stage the new objects.

        :return: for XCom: ``dataset``; ``files`` and ``bytes`` that were staged; ``ignored`` and
            ``quarantined`` objects; ``quarantined_files``, address and reason of the first of them;
            ``new_rules`` by which objects are ignored for the first time; ``staged`` and ``rejected`` rows;
            ``unknown_members``, the number of fields without a column; ``manifest`` and ``ledger_file``, the
            ``s3://…`` of the COPY's manifest and of the ledger rows (None if there are none); ``same_cause``,
            if all files are quarantined for one; and ``listing``, what to remember of the prefix (None if it
            was not listed)
        :raises SourceError: if the prefix does not exist or may not be listed
        :raises AirflowException: if rows staged and rejected are not those that COPY reports
        """
        run_id, s3 = context["run_id"], s3_hook(self.aws_conn_id)
        with explained(f"Staging {self.table}", self.conn_id), self._open_session() as session:
            found = self._find(s3, context)
            unrecorded = unrecorded_objects(session, self.table, found.objects, found.recorded_before)
            if found.announced is not None:
                self._look_for_unannounced(unrecorded, found.announced)
            files = found.to_stage(unrecorded, context["params"])
            ignored = [item for item in unrecorded if item.ignored]
            self.log.info(
                "%s: %d of %d objects are to be staged, %d others are ignored",
                *(self.prefix, len(files), found.total, len(ignored)),
            )
            new_rules = self._find_new_rules(session, ignored)
            folder = run_folder(self.work_prefix, self.dag_id, run_id)
            if files:
                self.manifest_page = object_page(s3, manifest_url(folder, self.table), self.region)
            copies = Copies(s3, self.table, self.copy_statement, folder)
            errors = [check for check in self.checks if check.severity == "error"]
            finder = FaultFinder(self.get_db_hook(), copies, errors, int(self.max_rejected_rows))
            stager = Stager(session, copies, finder, self.reads, self.checks, run_id)
            plain = [item for item in files if not copy_option(item.key) and not item.archived]
            staged = stager.stage(files, look_at_members(s3, plain, self.json))
            lines = ledger_lines(
                self.table, _entries(staged, ignored), run_id, datetime.now(UTC).replace(tzinfo=None)
            )
            ledger_file = write_text(s3, f"{folder}/{self.table}.files.json", lines) if lines else None
        self.check_results = [as_check_result(finding) for finding in staged.findings]
        tell(staged.findings, context)
        self._tell_staged(staged)
        return {
            "dataset": self.table,
            "files": len(staged.files),
            "bytes": sum(item.size for item in staged.files),
            "ignored": len(ignored),
            "new_rules": new_rules,
            "quarantined": len(staged.faults),
            "quarantined_files": [
                [item.url, fault.reason] for item, fault in list(staged.faults.items())[:SHOWN]
            ],
            "same_cause": same_cause(staged),
            "staged": staged.rows,
            "rejected": len(staged.rejected),
            "unknown_members": staged.unknown_members,
            "manifest": staged.manifest,
            "ledger_file": ledger_file,
            "listing": found.listing,
        }

    def _open_session(self) -> closing[Session]:
        return closing(Session(self.get_db_hook()))

    def _find(self, s3: "S3Hook", context: "Context") -> Found:
        """
        Return what may be new: as it was handed over, if that can still be relied upon.

        A later try lists anew, since files may have been corrected or deleted meanwhile. So does one after
        which less is known to be loaded, since the tables may have been dropped.
        """
        params = context["params"]
        known = recall(context).get(self.table) if not params["check_ledger"] else None
        handed = json.loads(self.found) if self.found else None
        if handed and context["ti"].try_number <= 1:
            was_announced = handed["listing"] is None
            if was_announced or datetime.fromisoformat(handed["recorded_before"]) <= remembered_before(
                known, self.prefix
            ):
                return Found.handed_over(s3, handed)
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

    def _find_new_rules(self, session: Session, ignored: Sequence[S3Object]) -> list[list[str]]:
        """Return the rules by which objects are ignored for the first time, each with the address of one."""
        if not ignored:
            return []
        examples = {item.ignored: item.url for item in reversed(ignored)}
        known = known_rules(session, self.table)
        return [[rule, url] for rule, url in sorted(examples.items()) if rule not in known]

    def _tell_staged(self, staged: Staged) -> None:
        rejected = len(staged.rejected)
        if rejected:
            self.log.warning(
                "%d rows were rejected, and are kept in etl_rejected_rows:\n%s",
                *(rejected, describe(staged.rejected)),
            )
        if cause := same_cause(staged):
            self.log.error(
                "All %d files are quarantined for the same reason (%s): it looks like a change of the"
                " source's format",
                *(len(staged.faults), cause),
            )
        self.log.info(
            "%s: %d files staged, %d quarantined; %d rows staged, %d rejected",
            *(self.table, len(staged.files), len(staged.faults), staged.rows, rejected),
        )


def _entries(staged: Staged, ignored: Sequence[S3Object]) -> list[Entry]:
    """Return what the ledger has to record."""
    rejected = Counter(row.url for row in staged.rejected)
    alone = len(staged.files) == 1
    return [
        *(
            Entry(
                *(item, "loaded", None),
                rows_read=staged.rows + rejected[item.url] if alone else None,
                rows_rejected=rejected[item.url],
            )
            for item in staged.files
        ),
        *(
            Entry(
                *(item, "quarantined", cut(fault.reason, MOST_OF_A_REASON), fault.rows_read),
                len(fault.rejected),
            )
            for item, fault in staged.faults.items()
        ),
        *(Entry(item, "ignored", item.ignored) for item in ignored),
    ]
