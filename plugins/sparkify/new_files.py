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
from sparkify.notifications import Notifications, delete_messages, receive_notifications
from sparkify.params import check_params, check_reload_prefix, wanted_again
from sparkify.state import (
    OVERLAP,
    close,
    describe_listing,
    last_complete_run,
    leave_open,
    left_open,
    recall,
    recorded_before,
)
from sparkify.validation import check_settings

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

    :param objects: those that the ledger may lack, and those to reload, in key order; also those that are no
        data, which the ledger records as ignored
    :param total: number of objects that hold data
    :param recorded_before: the ledger has all objects last modified before this date (UTC)
    :param listing: what to remember of the prefix; None if it was not listed
    :param announced: if it was listed, all keys that S3 has announced as well; None if they are not known
    """

    objects: list[S3Object]
    total: int
    recorded_before: datetime
    listing: dict[str, Any] | None
    announced: list[str] | None = None

    def hand_over(self, s3: "S3Hook", url: str) -> dict[str, Any]:
        """
        Write objects and keys to files, since they can be many, and return the rest for XCom.

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
            "recorded_before": self.recorded_before.isoformat(),
            "listing": self.listing,
        }

    def to_stage(self, unrecorded: Collection[S3Object], params: Mapping[str, Any]) -> list[S3Object]:
        """
        Return the objects to stage: data that the ledger lacks, or that is to be reloaded.

        :param unrecorded: the objects that the ledger lacks
        :param params: the DAG run's parameters
        """
        new = set(unrecorded)
        return [
            item
            for item in self.objects
            if not item.ignored and (item in new or wanted_again(item.url, params))
        ]

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
            recorded_before=datetime.fromisoformat(handed["recorded_before"]),
            listing=handed["listing"],
        )


def list_new(s3: "S3Hook", prefix: str, known: Mapping[str, Any] | None, params: Mapping[str, Any]) -> Found:
    """
    List a prefix, and return what may be new below it.

    :param s3: the hook of the AWS connection
    :param prefix: ``s3://bucket/prefix``
    :param known: what the last complete run recorded of the prefix, None to ask all of the ledger
    :param params: the DAG run's parameters
    :raises SourceError: if the prefix does not exist or may not be listed
    """
    listing = list_prefix(s3, prefix)
    everything = [*listing.objects, *listing.ignored]
    before = recorded_before(known, prefix, everything)
    objects = [item for item in everything if item.last_modified >= before or wanted_again(item.url, params)]
    return Found(objects, len(listing.objects), before, describe_listing(prefix, everything))


def look_up_new(s3: "S3Hook", prefix: str, keys: Collection[str]) -> Found:
    """
    Look up objects that S3 has announced. The ledger tells which of them are recorded.

    :param s3: the hook of the AWS connection
    :param prefix: ``s3://bucket/prefix`` that they lie below
    :param keys: their keys, in order
    :raises SourceError: if one may not be read
    """
    bucket, _ = split_url(prefix)
    with ThreadPoolExecutor(LOOK_UPS) as pool:
        objects = [item for item in pool.map(lambda key: look_up(s3, bucket, key), keys) if item]
    data = sum(not item.ignored for item in objects)
    log.info(
        "%s: %d keys were announced, %d of them are gone, %d are no data",
        *(prefix, len(keys), len(keys) - len(objects), len(objects) - data),
    )
    # An object of several parts may have one date when it is listed, and another one when it is looked up.
    before = min((item.last_modified for item in objects), default=datetime.max) - OVERLAP
    return Found(objects, data, before, listing=None)


def look_for_new_files(
    prefixes: Mapping[str, str],
    work_prefix: str,
    queue_url: str,
    settings: Mapping[str, str],
    conn_id: str,
    aws_conn_id: str,
    params: Mapping[str, Any],
    **context: Any,
) -> dict[str, Any]:
    """
    Find out what may be new, and decide whether the load should go on.

    The prefixes are listed. If both are as the last complete run, at most a day ago, recorded them, the load
    ends here, and the warehouse is not asked. With the parameter ``dry_run`` it only shows what is new.

    If S3 notifies a queue, its messages say what may be new. Then the prefixes are listed only once a day,
    where the parameters ask for it, and while messages may be held by a try or a run that did not end.

    :param prefixes: ``s3://bucket/prefix`` of each dataset, by its staging table
    :param work_prefix: ``s3://bucket/prefix/`` for the files that tell the staging tasks what was found
    :param queue_url: the SQS queue that S3 notifies of new objects; empty if there is none
    :param settings: the Airflow variables, by name
    :param conn_id: the warehouse
    :param aws_conn_id: the AWS connection that lists the prefixes, and receives the messages
    :param params: the DAG run's parameters
    :param context: the rest of the task's context
    :return: for XCom, by staging table, what its task is handed over, and as ``messages`` which ones to
        delete at the end; empty if the load should not go on
    :raises SourceError: if a prefix, an object or the queue does not exist or may not be read
    :raises ValueError: if a setting is wrong, or the parameters contradict each other
    """
    with explained("Finding new files", conn_id):
        check_settings(settings, conn_id)
        check_params(params)
        s3 = s3_hook(aws_conn_id)
        if params["dry_run"]:
            _show_new(_list_all(s3, prefixes, {}, params), conn_id, params)
            return {}
        airflow = cast("Context", context)
        holds_messages = airflow["ti"].try_number > 1 or left_open(airflow)
        # Before anything is listed: the listing then has whatever the messages announce.
        notified = receive_notifications(aws_conn_id, queue_url) if queue_url else None
        receipts = notified.receipts if notified else []
        if receipts:
            leave_open(airflow)
        recorded = recall(airflow)
        if notified and not holds_messages and _messages_suffice(prefixes, recorded, params):
            found = _find_announced(s3, prefixes, notified)
            is_new = any(new.objects for new in found.values())
        else:
            all_known = notified if notified and notified.complete and not holds_messages else None
            found, is_new = _find_listed(s3, prefixes, recorded, all_known, params)
        if not is_new:
            log.info(
                "Nothing is new since run %s: the load is skipped, and the warehouse was not asked. If it"
                " lost tables, trigger with check_ledger; if it lost rows, with reload_prefix",
                last_complete_run(airflow),
            )
            if receipts:
                delete_messages(aws_conn_id, queue_url, receipts)
            close(airflow)
            return {}
        folder = run_folder(work_prefix, context["dag"].dag_id, context["run_id"])
        handed = {dataset: new.hand_over(s3, f"{folder}/{dataset}") for dataset, new in found.items()}
        if not receipts:
            return {**handed, "messages": None}
        kept = write_text(s3, f"{folder}/receipts.json", json.dumps(receipts))
        return {**handed, "messages": {"queue_url": queue_url, "receipts": kept}}


def _messages_suffice(
    prefixes: Mapping[str, str], recorded: Mapping[str, Any], params: Mapping[str, Any]
) -> bool:
    """Tell whether the prefixes were listed lately, and nothing older is asked for."""
    listed = all(recorded.get(dataset, {}).get("prefix") == prefix for dataset, prefix in prefixes.items())
    return listed and not params["check_ledger"] and not params["reload_prefix"]


def _find_announced(s3: "S3Hook", prefixes: Mapping[str, str], notified: Notifications) -> dict[str, Found]:
    return {
        dataset: look_up_new(s3, prefix, notified.keys_below(prefix)) for dataset, prefix in prefixes.items()
    }


def _find_listed(
    s3: "S3Hook",
    prefixes: Mapping[str, str],
    recorded: Mapping[str, Any],
    notified: Notifications | None,
    params: Mapping[str, Any],
) -> tuple[dict[str, Found], bool]:
    """
    Return what the listings have, and whether they, or the parameters, give reason to load.

    :param notified: if they are known, all messages that announce what is new
    """
    found = _list_all(s3, prefixes, {} if params["check_ledger"] else recorded, params)
    changed = [dataset for dataset, new in found.items() if new.listing != recorded.get(dataset)]
    for dataset, new in found.items():
        log.info(
            "%s: %d objects, %s since the last complete run",
            *(prefixes[dataset], new.total, "changed" if dataset in changed else "unchanged"),
        )
    if notified:
        found = {
            dataset: replace(new, announced=notified.keys_below(prefixes[dataset]))
            for dataset, new in found.items()
        }
    return found, bool(changed or params["check_ledger"] or params["reload_prefix"])


def _list_all(
    s3: "S3Hook", prefixes: Mapping[str, str], known: Mapping[str, Any], params: Mapping[str, Any]
) -> dict[str, Found]:
    with ThreadPoolExecutor() as pool:
        listed = pool.map(
            lambda dataset: list_new(s3, prefixes[dataset], known.get(dataset), params), prefixes
        )
        found = dict(zip(prefixes, listed, strict=True))
    if params["reload_prefix"] and not any(
        wanted_again(item.url, params) for new in found.values() for item in new.objects
    ):
        listings = [list_prefix(s3, prefix) for prefix in prefixes.values()]
        check_reload_prefix(params, [item.url for listing in listings for item in listing.objects])
    return found


def _show_new(found: Mapping[str, Found], conn_id: str, params: Mapping[str, Any]) -> None:
    """Log what would be staged."""
    hook = Connection.get(conn_id).get_hook()
    recording = ledger_exists(hook)  # not before the first run, to which everything is new
    for dataset, new in found.items():
        unrecorded = unrecorded_objects(hook, dataset, new.objects) if recording else new.objects
        files = new.to_stage(unrecorded, params)
        log.info(
            "Dry run: %s would stage %d files, %d bytes:\n%s",
            *(dataset, len(files), sum(item.size for item in files)),
            "\n".join(item.url for item in files[:SHOWN]),
        )
