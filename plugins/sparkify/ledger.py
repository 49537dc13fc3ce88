"""The ledger ``etl_files``: which object versions are loaded, so that each is loaded once."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from sparkify.files import S3Object
from sparkify.sql import run_statement

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

LEDGER = "etl_files"


def ledger_exists(hook: "DbApiHook") -> bool:
    """
    Tell whether the warehouse has a ledger yet.

    :param hook: the warehouse's hook
    """
    sql = "SELECT 1 FROM pg_table_def WHERE schemaname = current_schema() AND tablename = %s LIMIT 1"
    return bool(run_statement(hook, (sql, [LEDGER])).rows)


def recorded_versions(hook: "DbApiHook", dataset: str, since: datetime = datetime.min) -> dict[str, str]:
    """
    Return the ETag of the newest version of each key that the ledger has.

    :param hook: the warehouse's hook
    :param dataset: the staging table that the objects belong to
    :param since: read only the part of the ledger from this date of objects (UTC) on
    """
    sql = (
        f"SELECT s3_key, etag FROM {LEDGER} WHERE dataset = %s AND last_modified >= %s"
        " ORDER BY last_modified, loaded_at"
    )
    found = run_statement(hook, (sql, [dataset, max(since, datetime(1970, 1, 1))]))
    return dict(tuple(row) for row in found.rows)


def unrecorded_objects(
    hook: "DbApiHook", dataset: str, objects: Iterable[S3Object], recorded_before: datetime = datetime.min
) -> list[S3Object]:
    """
    Return the objects whose version (key and ETag) is not the newest that the ledger has of their key.

    A file that goes back to an older version is thus loaded again.

    :param hook: the warehouse's hook
    :param dataset: the staging table that the objects belong to
    :param objects: the objects to look up
    :param recorded_before: the ledger is known to have every object last modified before this date (UTC), so
        only its part from there on is read
    """
    recent = [item for item in objects if item.last_modified >= recorded_before]
    if not recent:
        return []
    newest = recorded_versions(hook, dataset, recorded_before)
    return [item for item in recent if newest.get(item.key) != item.etag]


def ledger_lines(dataset: str, objects: Iterable[S3Object], run_id: str, loaded_at: datetime) -> str:
    """
    Return the ledger's rows for some objects as JSON lines, for COPY to load.

    :param dataset: the staging table that the objects were staged in
    :param objects: the objects
    :param run_id: the run that staged them
    :param loaded_at: when, UTC without zone
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
                "loaded_at": loaded_at.isoformat(" "),
            }
        )
        + "\n"
        for item in objects
    )
