"""What may be new on S3: a run's first task looks once, and hands it over to the tasks that stage."""

import json
import logging
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import Connection

from sparkify.errors import explained
from sparkify.files import (
    S3Object,
    holds_data,
    list_prefix,
    look_up,
    open_object,
    read_objects,
    run_folder,
    s3_hook,
    split_url,
    write_objects,
    write_text,
)
from sparkify.ledger import ledger_exists, unrecorded_objects
from sparkify.notifications import delete_messages, receive_notifications
from sparkify.params import check_params, check_reload_prefix, wanted_again
from sparkify.state import OVERLAP, describe_listing, recall, recorded_before

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.sdk import Context

log = logging.getLogger(__name__)

SHOWN = 20
# As many at a time as boto3 keeps connections.
LOOK_UPS = 10


@dataclass(frozen=True)
class Found:
    """
    The objects of a prefix that may be new, as it was listed, or as S3 has announced them.

    :param objects: those that the ledger may lack, and those that are wanted again, in key order
    :param total: number of objects that hold data
    :param passed_over: number of other objects
    :param recorded_before: what was last modified before this date (UTC), the ledger need not be asked about
    :param listing: what to remember of the prefix; None if it was not listed
    :param announced: if it was listed, all keys that S3 has announced besides; None if they are not known
    """

    objects: list[S3Object]
    total: int
    passed_over: int
    recorded_before: datetime
    listing: dict[str, Any] | None
    announced: list[str] | None = None

    def hand_over(self, s3: "S3Hook", url: str) -> dict[str, Any]:
        """
        Write objects and keys to files, for they can be many, and return the rest for XCom.

        :param s3: the hook of the AWS connection
        :param url: ``s3://…`` that the files' addresses begin with
        """
        announced = None
        if self.announced is not None:
            announced = write_text(s3, f"{url}.announced.json", json.dumps(self.announced))
        return {
            "objects": write_objects(s3, f"{url}.found.json", self.objects),
            "announced": announced,
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
        announced = handed["announced"]
        return cls(
            objects=read_objects(s3, handed["objects"]),
            announced=json.load(open_object(s3, announced)) if announced else None,
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


def look_up_new(s3: "S3Hook", prefix: str, keys: Collection[str]) -> Found:
    """
    Look up objects that S3 has announced. Whichever of them are recorded, the ledger tells.

    :param s3: the hook of the AWS connection
    :param prefix: ``s3://bucket/prefix`` that they lie below
    :param keys: their keys, in order
    :raises SourceError: if one may not be read
    """
    bucket, _ = split_url(prefix)
    with ThreadPoolExecutor(LOOK_UPS) as pool:
        there = [item for item in pool.map(lambda key: look_up(s3, bucket, key), keys) if item]
    objects = [item for item in there if holds_data(item.key, item.size)]
    log.info(
        "%s: %d keys were announced, %d of them are gone, %d are no data",
        *(prefix, len(keys), len(keys) - len(there), len(there) - len(objects)),
    )
    # An object of several parts may have one date when it is listed, and another one when it is looked up.
    before = min((item.last_modified for item in objects), default=datetime.max) - OVERLAP
    return Found(objects, len(objects), len(keys) - len(objects), before, listing=None)


def look_for_new_files(
    prefixes: Mapping[str, str],
    work_prefix: str,
    queue_url: str,
    conn_id: str,
    aws_conn_id: str,
    params: Mapping[str, Any],
    **context: Any,
) -> dict[str, Any]:
    """
    Find out what may be new, and decide whether the load should go on.

    The prefixes are listed, and it should unless both are as the last complete run, at most a day ago,
    recorded them; the warehouse is not asked. With the parameter ``dry_run`` it should not, and what is new
    is shown.

    If S3 notifies a queue, its messages tell what may be new, and nothing is listed, but for once a day,
    where the parameters ask for more, and at a later try, since an earlier one may hold messages.

    :param prefixes: ``s3://bucket/prefix`` of each dataset, by its staging table
    :param work_prefix: ``s3://bucket/prefix/`` for the files that tell the staging tasks what was found
    :param queue_url: the SQS queue that S3 notifies of new objects; empty if there is none
    :param conn_id: the warehouse
    :param aws_conn_id: the AWS connection that lists the prefixes, and receives the messages
    :param params: the DAG run's parameters
    :param context: the rest of the task's context
    :return: for XCom, by staging table, what its task is handed over, and as ``messages`` which ones to
        delete at the end; empty if the load should not go on
    :raises SourceError: if a prefix, an object or the queue does not exist or may not be read
    :raises ValueError: if the parameters contradict each other
    """
    with explained("Finding new files", conn_id):
        check_params(params)
        s3 = s3_hook(aws_conn_id)
        recorded = recall(cast("Context", context))
        if params["reload_prefix"]:
            listings = [list_prefix(s3, prefix) for prefix in prefixes.values()]
            check_reload_prefix(params, [item.url for listing in listings for item in listing.objects])
        if params["dry_run"]:
            _show_new(_list_all(s3, prefixes, {}, params), conn_id, params)
            return {}
        # Before anything is listed: whatever they announce is in the listing then.
        notified = receive_notifications(aws_conn_id, queue_url) if queue_url else None
        asks_for_more = params["check_ledger"] or params["reload_prefix"]
        first_try = context["ti"].try_number <= 1
        listed_lately = all(
            recorded.get(dataset, {}).get("prefix") == prefix for dataset, prefix in prefixes.items()
        )
        if notified and listed_lately and first_try and not asks_for_more:
            found = {
                dataset: look_up_new(s3, prefix, notified.keys_below(prefix))
                for dataset, prefix in prefixes.items()
            }
            goes_on = any(new.objects for new in found.values())
        else:
            found = _list_all(s3, prefixes, {} if params["check_ledger"] else recorded, params)
            changed = [dataset for dataset, new in found.items() if new.listing != recorded.get(dataset)]
            for dataset, new in found.items():
                log.info(
                    "%s: %d objects, %s since the last complete run",
                    *(prefixes[dataset], new.total, "changed" if dataset in changed else "unchanged"),
                )
            goes_on = bool(changed or asks_for_more)
            if notified and notified.complete and first_try:
                found = {
                    dataset: replace(new, announced=notified.keys_below(prefixes[dataset]))
                    for dataset, new in found.items()
                }
        receipts = notified.receipts if notified else []
        if not goes_on:
            log.info("Nothing is new: the load is skipped, and the warehouse was not asked")
            if receipts:
                delete_messages(aws_conn_id, queue_url, receipts)
            return {}
        folder = run_folder(work_prefix, context["dag"].dag_id, context["run_id"])
        handed = {dataset: new.hand_over(s3, f"{folder}/{dataset}") for dataset, new in found.items()}
        kept = write_text(s3, f"{folder}/receipts.json", json.dumps(receipts)) if receipts else None
        return {**handed, "messages": {"queue_url": queue_url, "receipts": kept} if kept else None}


def _list_all(
    s3: "S3Hook", prefixes: Mapping[str, str], known: Mapping[str, Any], params: Mapping[str, Any]
) -> dict[str, Found]:
    with ThreadPoolExecutor() as pool:
        listed = pool.map(
            lambda dataset: list_new(s3, prefixes[dataset], known.get(dataset), params), prefixes
        )
        return dict(zip(prefixes, listed, strict=True))


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
