"""The ledger ``etl_files``: which object versions are loaded, so that each is loaded once."""

import json
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk import BaseHook

from sparkify.files import S3Object, list_prefix
from sparkify.sql import explained

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

LEDGER = "etl_files"

log = logging.getLogger(__name__)


def any_new_objects(prefixes: Mapping[str, str], conn_id: str, aws_conn_id: str) -> bool:
    """
    Tell whether any object below some prefixes is not in the ledger yet.

    :param prefixes: ``s3://bucket/prefix`` of each dataset, by its staging table
    :param conn_id: the warehouse
    :param aws_conn_id: the AWS connection that lists the prefixes
    :raises SourceError: if a prefix does not exist or may not be listed
    """
    new = 0
    with explained("Finding new files", conn_id):
        s3, hook = S3Hook(aws_conn_id=aws_conn_id), BaseHook.get_hook(conn_id)
        for dataset, prefix in prefixes.items():
            listing = list_prefix(s3, prefix)
            found = len(new_objects(hook, dataset, listing.objects))
            log.info("%s: %d of %d objects are new", prefix, found, len(listing.objects))
            new += found
    if not new:
        log.info("Nothing is new: the load is skipped")
    return new > 0


def new_objects(hook: "DbApiHook", dataset: str, objects: Iterable[S3Object]) -> list[S3Object]:
    """
    Return the objects whose version (key and ETag) the ledger does not have.

    :param hook: the warehouse's hook; before the first run it has no ledger, and everything is new
    :param dataset: the staging table that the objects belong to
    :param objects: the objects to look up
    """
    exists = hook.get_first(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = %s",
        parameters=[LEDGER],
    )
    if not exists:
        return list(objects)
    rows = hook.get_records(f"SELECT s3_key, etag FROM {LEDGER} WHERE dataset = %s", parameters=[dataset])
    known = {(key, etag) for key, etag in rows}
    return [item for item in objects if (item.key, item.etag) not in known]


def ledger_lines(dataset: str, objects: Iterable[S3Object], run_id: str, loaded_at: str) -> str:
    """
    Return the ledger's rows for some objects as JSON lines, for COPY to load.

    :param dataset: the staging table that the objects were staged in
    :param objects: the objects
    :param run_id: the run that staged them
    :param loaded_at: when, UTC, as ``YYYY-MM-DD HH:MI:SS``
    """
    return "".join(
        json.dumps(
            {
                "dataset": dataset,
                "s3_key": item.key,
                "etag": item.etag,
                "size_bytes": item.size,
                "last_modified": item.last_modified.isoformat(" ", "seconds"),
                "run_id": run_id,
                "loaded_at": loaded_at,
            }
        )
        + "\n"
        for item in objects
    )
