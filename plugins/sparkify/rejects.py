"""Rows that are not loaded: found in Redshift's load errors and on S3, kept in ``etl_rejected_rows``."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sparkify.files import split_url
from sparkify.sql import Result, Transaction, insert_rows, run_one_by_one

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.providers.common.sql.hooks.sql import DbApiHook

REJECTED_ROWS = "etl_rejected_rows"
MOST_OF_A_NAME = 256


@dataclass(frozen=True)
class RejectedRow:
    """
    An input row that was not loaded.

    :param url: the object that holds it, ``s3://bucket/key``; None if it was not found
    :param line_number: the line, from 1, on which the row ends
    :param column_name: the column that it broke, empty if the row could not be parsed
    :param reason: what is wrong with it, in Redshift's words if COPY refused it
    :param raw_line: the line as the object has it
    :param raw_value: the value that the line has for the column
    """

    url: str | None
    line_number: int | None
    column_name: str
    reason: str
    raw_line: str | None = None
    raw_value: str | None = None


def read_copy_account(
    hook: "DbApiHook", session_id: int, since: datetime, pauses: Sequence[float]
) -> tuple[list[Any], list[Any]]:
    """
    Read what Redshift says of the COPY that ran in a session, as soon as it says all of it.

    How soon that is after a COPY is not documented, so it is asked again while the COPY is not there, or not
    as many rejected rows as it had. SYS views exist on clusters and on Serverless, and show users what they
    ran themselves (https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_HISTORY.html).

    :param hook: the warehouse's hook
    :param session_id: process id of the session that ran COPY
    :param since: when the session's transaction began, UTC without zone
    :param pauses: how many seconds to wait before it is asked again
    :return: loaded rows and rejected rows of the COPY, if it is there; and file, line, column and reason of
        each rejected row
    """
    where = "WHERE session_id = %s AND start_time >= %s"

    def ask() -> Transaction[tuple[list[Any], list[Any]]]:
        history = yield (
            f"SELECT loaded_rows, error_count FROM sys_load_history {where} AND status <> 'running'",
            [session_id, since],
        )
        errors = yield (
            "SELECT TRIM(file_name), line_number, TRIM(column_name), TRIM(error_message)"
            f" FROM sys_load_error_detail {where} ORDER BY file_name, line_number",
            [session_id, since],
        )
        return history.rows, errors.rows

    for pause in pauses:
        history, errors = run_one_by_one(hook, ask())
        if history and history[0][1] <= len(errors):
            return history, errors
        time.sleep(pause)
    return run_one_by_one(hook, ask())


def with_raw_lines(
    s3: "S3Hook", errors: Iterable[Sequence[Any]], urls: Iterable[str]
) -> Iterator[RejectedRow]:
    """
    Return rejected rows with their lines as S3 has them, which SYS_LOAD_ERROR_DETAIL does not hold.

    It cuts off a file's name (https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_ERROR_DETAIL.html).
    Where files differ in what is cut off alone, their lines stay unknown.

    :param s3: the hook of the AWS connection
    :param errors: file, line, column and reason of each, by file
    :param urls: the files that the COPY was to load
    """
    whole: dict[str, list[str]] = {}
    for url in urls:
        whole.setdefault(cut(url, MOST_OF_A_NAME), []).append(url)
    for name, of_one_file in groupby(errors, key=lambda row: row[0]):
        named = whole.get(name, [])
        url, lines = (named[0], read_lines(s3, named[0])) if len(named) == 1 else (name, [])
        for _, line_number, column_name, reason in of_one_file:
            raw_line = lines[line_number - 1] if 0 < line_number <= len(lines) else ""
            raw_value = fields_of(raw_line).get(column_name)
            yield RejectedRow(url, line_number, column_name, reason, raw_line or None, raw_value)


def find_rejected_rows(s3: "S3Hook", manifest_url: str | None, rejected: Result) -> list[RejectedRow]:
    """
    Find the lines of staged rows that were refused further on: COPY does not tell which file a row is from.

    Every file of the manifest is read, unless no row was refused.

    :param s3: the hook of the AWS connection
    :param manifest_url: ``s3://…`` of the manifest of the files that were staged
    :param rejected: the rows: ``column_name``, ``reason``, and staged columns whose values tell the line
    :return: as many rows; those whose object is not on one line have no file and line number
    """
    names = rejected.columns[2:]
    wanted: dict[tuple[str | None, ...], list[RejectedRow]] = {}
    for column_name, reason, *staged in rejected.rows:
        values = tuple(None if value is None else str(value) for value in staged)
        known = dict(zip(names, values, strict=True))
        row = RejectedRow(None, None, column_name, reason, json.dumps(known), known.get(column_name))
        wanted.setdefault(values, []).append(row)
    found = []
    if wanted and manifest_url:
        for entry in json.loads("\n".join(read_lines(s3, manifest_url)))["entries"]:
            for number, line in enumerate(read_lines(s3, entry["url"]), start=1):
                fields = fields_of(line)
                rows = wanted.get(tuple(fields.get(name) for name in names))
                if rows:
                    found.append(replace(rows.pop(), url=entry["url"], line_number=number, raw_line=line))
    return found + [row for rows in wanted.values() for row in rows]


def read_lines(s3: "S3Hook", url: str) -> list[str]:
    """
    Return the lines of an object.

    :param s3: the hook of the AWS connection
    :param url: ``s3://…`` of the object
    """
    bucket, key = split_url(url)
    return s3.get_key(key, bucket).get()["Body"].read().decode("utf-8", "replace").split("\n")


def fields_of(line: str) -> dict[str, str | None]:
    """
    Return a JSON object's values as text, by their names in lower case; none of what is no object.

    :param line: the object's text
    """
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(fields, dict):
        return {}
    return {name.lower(): None if value is None else str(value) for name, value in fields.items()}


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
                *(dataset, row.url and split_url(row.url)[1], row.line_number, row.column_name, row.reason),
                *(_text(row.raw_value, 1024), _text(row.raw_line, 65535), run_id, rejected_at),
            )
            for row in rows
        ],
    )


def _text(text: str | None, most_bytes: int) -> str | None:
    """Return a text as a column can hold it, which no text with NUL can be."""
    return None if text is None else cut(text.replace("\0", ""), most_bytes)


def cut(text: str, most_bytes: int) -> str:
    """
    Return the beginning of a text.

    :param text: the text
    :param most_bytes: how many bytes it may have in UTF-8
    """
    return text.encode()[:most_bytes].decode("utf-8", "ignore")


def describe(rows: Sequence[RejectedRow], most: int = 10) -> str:
    """
    Return a line of text for each of the first rows: where it is, what is wrong, and the value.

    :param rows: rejected rows
    :param most: how many to show
    """
    shown = [
        (f"{row.url} line {row.line_number}" if row.url else "a row of an unknown line")
        + (f", column {row.column_name}" if row.column_name else "")
        + f": {row.reason} [{(row.raw_value or row.raw_line or '')[:120]}]"
        for row in rows[:most]
    ]
    if len(rows) > most:
        shown.append(f"… and {len(rows) - most} more")
    return "\n".join(shown)
