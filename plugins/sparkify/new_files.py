"""What may be new on S3: a run's first task looks once, and hands it over to the tasks that stage."""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import Connection

from sparkify.errors import explained
from sparkify.files import S3Object, list_prefix, read_objects, run_folder, s3_hook, write_objects
from sparkify.ledger import ledger_exists, unrecorded_objects
from sparkify.params import check_params, wanted_again
from sparkify.state import describe_listing, recall, recorded_before

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.sdk import Context

log = logging.getLogger(__name__)

SHOWN = 20


@dataclass(frozen=True)
class Found:
    """
    The objects of a prefix that may be new, and what else its listing tells.

    :param objects: those that the ledger may lack, and those that are wanted again, in key order
    :param total: number of objects that hold data
    :param passed_over: number of other objects
    :param recorded_before: the ledger is known to have every object last modified before this date (UTC)
    :param listing: what to remember of the prefix
    """

    objects: list[S3Object]
    total: int
    passed_over: int
    recorded_before: datetime
    listing: dict[str, Any]

    def hand_over(self, s3: "S3Hook", url: str) -> dict[str, Any]:
        """
        Write the objects to a file, for they can be many, and return the rest for XCom.

        :param s3: the hook of the AWS connection
        :param url: ``s3://…`` of the file
        """
        return {
            "objects": write_objects(s3, url, self.objects),
            "total": self.total,
            "passed_over": self.passed_over,
            "recorded_before": self.recorded_before.isoformat(),
            "listing": self.listing,
        }

    @classmethod
    def handed_over(cls, s3: "S3Hook", handed: Mapping[str, Any]) -> "Found":
        """
        Return what another task has found.

        :param s3: the hook of the AWS connection
        :param handed: what :meth:`hand_over` returned
        """
        return cls(
            objects=read_objects(s3, handed["objects"]),
            total=handed["total"],
            passed_over=handed["passed_over"],
            recorded_before=datetime.fromisoformat(handed["recorded_before"]),
            listing=handed["listing"],
        )


def list_new(s3: "S3Hook", prefix: str, known: Mapping[str, Any] | None, params: Mapping[str, Any]) -> Found:
    """
    List a prefix, and return what may be new below it.

    :param s3: the hook of the AWS connection
    :param prefix: ``s3://bucket/prefix``
    :param known: what the last complete run recorded of the prefix, None if all of the ledger shall be asked
    :param params: the DAG run's parameters
    :raises SourceError: if the prefix does not exist or may not be listed
    """
    listing, before = list_prefix(s3, prefix), recorded_before(known, prefix)
    objects = [
        item for item in listing.objects if item.last_modified >= before or wanted_again(item.url, params)
    ]
    described = describe_listing(prefix, listing.objects)
    return Found(objects, len(listing.objects), listing.passed_over, before, described)


def look_for_new_files(
    prefixes: Mapping[str, str],
    work_prefix: str,
    conn_id: str,
    aws_conn_id: str,
    params: Mapping[str, Any],
    **context: Any,
) -> dict[str, Any]:
    """
    List the prefixes, and decide whether the load should go on.

    It should unless both prefixes are as the last complete run, at most a day ago, recorded them; the
    warehouse is not asked. With the parameter ``dry_run`` it should not, and what is new is shown.

    :param prefixes: ``s3://bucket/prefix`` of each dataset, by its staging table
    :param work_prefix: ``s3://bucket/prefix/`` for the files that tell the staging tasks what was found
    :param conn_id: the warehouse
    :param aws_conn_id: the AWS connection that lists the prefixes
    :param params: the DAG run's parameters
    :param context: the rest of the task's context
    :return: for XCom, by staging table, what its task is handed over; empty if the load should not go on
    :raises SourceError: if a prefix does not exist or may not be listed
    :raises ValueError: if the parameters contradict each other
    """
    with explained("Finding new files", conn_id):
        check_params(params)
        s3 = s3_hook(aws_conn_id)
        recorded = recall(cast("Context", context))
        known = {} if params["check_ledger"] or params["dry_run"] else recorded
        with ThreadPoolExecutor() as pool:
            listed = pool.map(
                lambda dataset: list_new(s3, prefixes[dataset], known.get(dataset), params), prefixes
            )
            found = dict(zip(prefixes, listed, strict=True))
        if params["dry_run"]:
            _show_new(found, conn_id, params)
            return {}
        changed = [dataset for dataset, new in found.items() if new.listing != recorded.get(dataset)]
        for dataset, new in found.items():
            log.info(
                "%s: %d objects, %s since the last complete run",
                *(prefixes[dataset], new.total, "changed" if dataset in changed else "unchanged"),
            )
        if not changed and not params["check_ledger"] and not params["reload_prefix"]:
            log.info("Nothing is new: the load is skipped, and the warehouse was not asked")
            return {}
        folder = run_folder(work_prefix, context["dag"].dag_id, context["run_id"])
        return {
            dataset: new.hand_over(s3, f"{folder}/{dataset}.found.json") for dataset, new in found.items()
        }


def _show_new(found: Mapping[str, Found], conn_id: str, params: Mapping[str, Any]) -> None:
    """Log what would be staged."""
    hook = Connection.get(conn_id).get_hook()
    recording = ledger_exists(hook)  # not before the first run, to which everything is new
    for dataset, new in found.items():
        unrecorded = set(unrecorded_objects(hook, dataset, new.objects) if recording else new.objects)
        files = [item for item in new.objects if item in unrecorded or wanted_again(item.url, params)]
        log.info(
            "Dry run: %s would stage %d files, %d bytes:\n%s",
            *(dataset, len(files), sum(item.size for item in files)),
            "\n".join(item.url for item in files[:SHOWN]),
        )
