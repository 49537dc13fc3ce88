"""The ledger ``etl_files``: what runs made of each object version, so that each is dealt with once."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sparkify.files import S3Object
from sparkify.sql import Warehouse, run_statement

LEDGER = "etl_files"


@dataclass(frozen=True)
class Entry:
    """
    What a run made of an object version.

    :param file: the object
    :param status: ``loaded``, ``quarantined`` or ``ignored``
    :param reason: why it was not loaded
    :param rows_read: rows of it that were read, None if they were not counted
    :param rows_rejected: rows of it that were rejected, None if they were not counted
    """

    file: S3Object
    status: str
    reason: str | None = None
    rows_read: int | None = None
    rows_rejected: int | None = None


def ledger_exists(warehouse: Warehouse) -> bool:
    """
    Tell whether the warehouse has a ledger yet.

    :param warehouse: the warehouse's hook, or a session
    """
    sql = "SELECT 1 FROM pg_table_def WHERE schemaname = current_schema() AND tablename = %s LIMIT 1"
    return bool(run_statement(warehouse, (sql, [LEDGER])).rows)


class Recorded(NamedTuple):
    """
    The current row of a file in the ledger: the one that was recorded last, whatever the object's date.

    Not the newest version: one that is rolled back or replicated has a date of its own.

    :param etag: the version's entity tag
    :param last_modified: the version's date, UTC without zone
    :param status: ``loaded``, ``quarantined`` or ``ignored``
    :param reason: why it is not loaded; None if it is
    :param recorded_at: when a run recorded it, UTC without zone
    """

    etag: str
    last_modified: datetime
    status: str
    reason: str | None
    recorded_at: datetime

    def is_of(self, item: S3Object) -> bool:
        """
        Tell whether this is the row of an object's version.

        A quarantined file that is uploaded again as it was, such as from an archive, has the same ETag, and
        should be tried again.

        :param item: the object
        """
        same_date = self.last_modified == item.last_modified.replace(microsecond=0)
        return self.etag == item.etag and (same_date or self.status != "quarantined")


def recorded_files(warehouse: Warehouse, dataset: str, since: datetime = datetime.min) -> dict[str, Recorded]:
    """
    Return the current row of each file that the ledger has, by key.

    :param warehouse: the warehouse's hook, or a session
    :param dataset: the staging table that the files belong to
    :param since: read only the part of the ledger from this date of objects (UTC) on
    """
    sql = (
        f"SELECT s3_key, etag, last_modified, status, reason, loaded_at FROM {LEDGER}"
        " WHERE dataset = %s AND last_modified >= %s ORDER BY loaded_at, last_modified"
    )
    found = run_statement(warehouse, (sql, [dataset, max(since, datetime(1970, 1, 1))]))
    return {key: Recorded(*row) for key, *row in found.rows}


def unrecorded_objects(
    warehouse: Warehouse, dataset: str, objects: Iterable[S3Object], recorded_before: datetime = datetime.min
) -> list[S3Object]:
    """
    Return the objects whose version is not the one that the ledger recorded last of their key.

    A file that goes back to an older version is thus loaded again.

    :param warehouse: the warehouse's hook, or a session
    :param dataset: the staging table that the objects belong to
    :param objects: the objects to look up
    :param recorded_before: the ledger is known to have every object last modified before this date (UTC), so
        only its part from there on is read
    """
    recent = [item for item in objects if item.last_modified >= recorded_before]
    if not recent:
        return []
    recorded = recorded_files(warehouse, dataset, recorded_before)
    return [item for item in recent if not (item.key in recorded and recorded[item.key].is_of(item))]


def known_rules(warehouse: Warehouse, dataset: str) -> set[str]:
    """
    Return the rules by which objects have been ignored before.

    :param warehouse: the warehouse's hook, or a session
    :param dataset: the staging table that the objects belong to
    """
    sql = f"SELECT DISTINCT reason FROM {LEDGER} WHERE dataset = %s AND status = 'ignored'"
    return {reason for (reason,) in run_statement(warehouse, (sql, [dataset])).rows}


def ledger_lines(dataset: str, entries: Iterable[Entry], run_id: str, recorded_at: datetime) -> str:
    """
    Return the ledger's rows as JSON lines, for COPY to load.

    :param dataset: the staging table that the objects belong to
    :param entries: what the run made of each object
    :param run_id: the run
    :param recorded_at: when, UTC without zone
    """
    return "".join(
        json.dumps(
            {
                "dataset": dataset,
                "s3_key": entry.file.key,
                "etag": entry.file.etag,
                "size_bytes": entry.file.size,
                "last_modified": entry.file.last_modified.isoformat(" ", "seconds"),
                "run_id": run_id,
                "loaded_at": recorded_at.isoformat(" "),
                "status": entry.status,
                "reason": entry.reason,
                "rows_read": entry.rows_read,
                "rows_rejected": entry.rows_rejected,
            }
        )
        + "\n"
        for entry in entries
    )
