"""The first task's decision: whether there is anything to load."""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import Connection

from sparkify.errors import explained
from sparkify.files import list_prefix, s3_hook
from sparkify.ledger import ledger_exists, unrecorded_objects
from sparkify.params import check_params, wanted_again
from sparkify.state import describe_listing, recall

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

SHOWN = 20


def anything_to_load(
    prefixes: Mapping[str, str], conn_id: str, aws_conn_id: str, params: Mapping[str, Any], **context: Any
) -> bool:
    """
    Tell whether the load should go on, and log what it found.

    It should unless both prefixes are as the last complete run, at most a day ago, recorded them; the
    warehouse is not asked. With the parameter ``dry_run`` it should not, and what is new is listed.

    :param prefixes: ``s3://bucket/prefix`` of each dataset, by its staging table
    :param conn_id: the warehouse
    :param aws_conn_id: the AWS connection that lists the prefixes
    :param params: the DAG run's parameters
    :param context: the rest of the task's context
    :raises SourceError: if a prefix does not exist or may not be listed
    :raises ValueError: if the parameters contradict each other
    """
    with explained("Finding new files", conn_id):
        check_params(params)
        s3 = s3_hook(aws_conn_id)
        with ThreadPoolExecutor() as pool:
            listed = pool.map(lambda prefix: list_prefix(s3, prefix), prefixes.values())
            listings = dict(zip(prefixes, listed, strict=True))
        if params["dry_run"]:
            hook = Connection.get(conn_id).get_hook()
            recording = ledger_exists(hook)  # not before the first run, to which everything is new
            for dataset, listing in listings.items():
                unrecorded = set(
                    unrecorded_objects(hook, dataset, listing.objects) if recording else listing.objects
                )
                files = [
                    item for item in listing.objects if item in unrecorded or wanted_again(item.url, params)
                ]
                log.info(
                    "Dry run: %s would stage %d files, %d bytes:\n%s",
                    *(dataset, len(files), sum(item.size for item in files)),
                    "\n".join(item.url for item in files[:SHOWN]),
                )
            return False
        recorded = recall(cast("Context", context))
        unchanged = True
        for dataset, listing in listings.items():
            same = recorded.get(dataset) == describe_listing(prefixes[dataset], listing.objects)
            log.info(
                "%s: %d objects, %s since the last complete run",
                *(prefixes[dataset], len(listing.objects), "unchanged" if same else "changed"),
            )
            unchanged = unchanged and same
    if params["check_ledger"] or params["reload_prefix"]:
        return True
    if unchanged:
        log.info("Nothing is new: the load is skipped, and the warehouse was not asked")
    return not unchanged
