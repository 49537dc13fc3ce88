"""Rows that COPY rejects: read from Redshift's load errors, kept in ``etl_rejected_rows``, described."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING

from sparkify.files import split_url
from sparkify.sql import Transaction, insert_rows

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

REJECTED_ROWS = "etl_rejected_rows"


@dataclass(frozen=True)
class RejectedRow:
    """
    An input row that COPY did not load.

    :param url: the object that holds it, ``s3://bucket/key``
    :param line_number: the line, from 1, on which the row ends
    :param column_name: the column that it broke, empty if the row could not be parsed
    :param reason: Redshift's words
    :param raw_line: the line as the object has it
    :param raw_value: the value that the line has for the column
    """

    url: str
    line_number: int
    column_name: str
    reason: str
    raw_line: str | None = None
    raw_value: str | None = None


def read_rejected_rows(s3: "S3Hook", session_id: int, since: datetime) -> Transaction[list[RejectedRow]]:
    """
    Read what COPY rejected in a session, with the rejected lines as S3 has them.

    SYS_LOAD_ERROR_DETAIL exists on clusters and on Serverless, but holds no raw line
    (https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_ERROR_DETAIL.html).

    :param s3: the hook of the AWS connection
    :param session_id: process id of the session that ran COPY
    :param since: when the session's transaction began, UTC without zone
    """
    found = yield (
        "SELECT TRIM(file_name), line_number, TRIM(column_name), TRIM(error_message)"
        " FROM sys_load_error_detail WHERE session_id = %s AND start_time >= %s"
        " ORDER BY file_name, line_number",
        [session_id, since],
    )
    return list(_with_raw_lines(s3, (RejectedRow(*row) for row in found.rows)))


def _with_raw_lines(s3: "S3Hook", rows: Iterable[RejectedRow]) -> Iterable[RejectedRow]:
    for url, of_one_file in groupby(rows, key=lambda row: row.url):
        bucket, key = split_url(url)
        lines = s3.get_key(key, bucket).get()["Body"].read().decode("utf-8", "replace").split("\n")
        for row in of_one_file:
            raw_line = lines[row.line_number - 1] if 0 < row.line_number <= len(lines) else None
            yield replace(row, raw_line=raw_line, raw_value=_value(raw_line, row.column_name))


def _value(raw_line: str | None, column_name: str) -> str | None:
    try:
        fields = json.loads(raw_line or "")
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    value = {name.lower(): value for name, value in fields.items()}.get(column_name)
    return None if value is None else str(value)


def keep_rejected_rows(dataset: str, run_id: str, rows: Sequence[RejectedRow]) -> Transaction[None]:
    """
    Store a run's rejected rows in place of those that an earlier try of the run stored.

    :param dataset: the table that refused them
    :param run_id: the run
    :param rows: the rows
    """
    yield f"DELETE FROM {REJECTED_ROWS} WHERE dataset = %s AND run_id = %s", [dataset, run_id]
    rejected_at = datetime.now(UTC).replace(tzinfo=None)
    columns = (
        *("dataset", "s3_key", "line_number", "column_name", "reason", "raw_value", "raw_line"),
        *("run_id", "rejected_at"),
    )
    yield from insert_rows(
        REJECTED_ROWS,
        columns,
        [
            (
                *(dataset, split_url(row.url)[1], row.line_number, row.column_name, row.reason),
                *(_cut(row.raw_value, 1024), _cut(row.raw_line, 65535), run_id, rejected_at),
            )
            for row in rows
        ],
    )


def _cut(text: str | None, most_bytes: int) -> str | None:
    return None if text is None else text.encode()[:most_bytes].decode("utf-8", "ignore")


def describe(rows: Sequence[RejectedRow], most: int = 10) -> str:
    """
    Return a line of text for each of the first rows: where it is, what is wrong, and the value.

    :param rows: rejected rows
    :param most: how many to show
    """
    shown = [
        f"{row.url} line {row.line_number}"
        + (f", column {row.column_name}" if row.column_name else "")
        + f": {row.reason} [{(row.raw_value or row.raw_line or '')[:120]}]"
        for row in rows[:most]
    ]
    if len(rows) > most:
        shown.append(f"… and {len(rows) - most} more")
    return "\n".join(shown)
