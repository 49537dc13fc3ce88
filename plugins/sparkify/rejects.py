"""Rows that are not loaded: found in Redshift's load errors and on S3, kept in ``etl_rejected_rows``."""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from heapq import heappush, heappushpop
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from sparkify.advice import aws_advice
from sparkify.compression import UnreadableError, decompress
from sparkify.errors import may_pass
from sparkify.files import S3Object, open_object, split_url
from sparkify.json_objects import JsonValue, count_values, split_values, values_on_lines
from sparkify.ledger import LEDGER
from sparkify.sql import Result, Transaction, Warehouse, insert_rows, run_one_by_one

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

log = logging.getLogger(__name__)

REJECTED_ROWS = "etl_rejected_rows"
MOST_OF_A_NAME = 256

# Half a surrogate pair and NUL cannot be sent to the warehouse; other control characters do not show.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_WHOLE_NUMBER = re.compile(r"\s*([+-]?\d{1,40})(?:\.0*)?\s*", re.ASCII)


@dataclass(frozen=True)
class RejectedRow:
    """
    An input row that was not loaded.

    :param url: the object that holds it, ``s3://bucket/key``; None if it was not found
    :param line_number: the line, from 1, on which the row ends, or on which it is malformed
    :param column_name: the column that it broke, empty if the row could not be parsed
    :param reason: what is wrong with it, in Redshift's words if COPY refused it
    :param raw_line: the whole text of the JSON object; what cannot be stored or read is escaped
    :param raw_value: the value that the JSON object has for the column, likewise
    """

    url: str | None
    line_number: int | None
    column_name: str
    reason: str
    raw_line: str | None = None
    raw_value: str | None = None


def read_copy_account(
    warehouse: Warehouse, session_id: int, since: datetime, copies: int, pauses: Sequence[float]
) -> tuple[list[Any], list[Any]]:
    """
    Read what Redshift reports of the COPYs of a session's transaction, as soon as it reports all of it.

    How soon that is after a COPY is not documented, so it is asked again while a COPY is not there, or not
    as many rejected rows as they had. SYS views exist on clusters and on Serverless, and show users what they
    ran themselves (https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_HISTORY.html).

    :param warehouse: the warehouse's hook, or a session
    :param session_id: process id of the session that ran COPY
    :param since: when the session's transaction began, UTC without zone
    :param copies: the number of COPYs
    :param pauses: how many seconds to wait before it is asked again
    :return: loaded rows and rejected rows of each COPY, if all are there; and file, line, column and reason
        of each rejected row
    """
    where = "WHERE session_id = %s AND start_time >= %s"

    def ask() -> Transaction[tuple[list[Any], list[Any]]]:
        history = yield (
            f"SELECT loaded_rows, error_count FROM sys_load_history {where} AND status <> 'running'",
            [session_id, since],
        )
        if not any(count for _, count in history.rows):
            return history.rows, []
        errors = yield (
            "SELECT TRIM(file_name), line_number, TRIM(column_name), TRIM(error_message)"
            f" FROM sys_load_error_detail {where} ORDER BY file_name, line_number",
            [session_id, since],
        )
        return history.rows, errors.rows

    for pause in pauses:
        history, errors = run_one_by_one(warehouse, ask())
        if len(history) == copies and sum(count for _, count in history) <= len(errors):
            return history, errors
        time.sleep(pause)
    history, errors = run_one_by_one(warehouse, ask())
    return (history if len(history) == copies else []), errors


def with_raw_lines(
    s3: "S3Hook", errors: Iterable[Sequence[Any]], urls: Iterable[str]
) -> Iterator[RejectedRow]:
    """
    Return rejected rows with the text of their JSON objects on S3, which SYS_LOAD_ERROR_DETAIL does not hold.

    That view cuts off a file's name (https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_ERROR_DETAIL.html).
    If files differ only in what is cut off, or a file cannot be read, the text stays unknown.

    :param s3: the hook of the AWS connection
    :param errors: file, line, column and reason of each, by file and line
    :param urls: the files that the COPY was to load
    """
    whole: dict[str, list[str]] = {}
    for url in urls:
        whole.setdefault(cut(url, MOST_OF_A_NAME).strip(" "), []).append(url)
    for name, of_one_file in groupby(errors, key=lambda row: row[0]):
        named, of_file = whole.get(name, []), list(of_one_file)
        url = named[0] if len(named) == 1 else name
        faults = [_Fault(*error) for _, *error in of_file]
        found = _find_values(read_values(s3, url) if len(named) == 1 else (), faults)
        for fault in faults:
            candidates = found[fault]
            value = candidates.pop(0) if len(candidates) > 1 else next(iter(candidates), None)
            raw_value = texts_of(value).get(fault.column_name) if value else None
            yield RejectedRow(
                *(url, *fault),
                raw_line=printable(value.text) if value else None,
                raw_value=None if raw_value is None else printable(raw_value),
            )


class _Fault(NamedTuple):
    """What COPY reports of a rejected row within a file."""

    line_number: int
    column_name: str
    reason: str

    def likelihood(self, value: JsonValue) -> tuple[Any, ...]:
        """
        Return a sort key under which the likeliest of several values on the line is the greatest.

        COPY does not report which one it is. A value is malformed if no column is named. Else it ends on the
        line, and has null in the column if that is the reason, or else an odd or a long content.
        """
        content = texts_of(value).get(self.column_name)
        return (
            (value.fields is None) == (not self.column_name),
            value.last_line == self.line_number,
            (content is None) == ("null" in self.reason),
            content is not None and _UNPRINTABLE.search(content) is not None,
            content is not None and not _WHOLE_NUMBER.fullmatch(content),
            len(content or ""),
        )


def _find_values(values: Iterable[JsonValue], faults: Sequence[_Fault]) -> dict[_Fault, list[JsonValue]]:
    """Return the values that have faults: for each fault as many as it occurs, if there are as many."""
    of_line: dict[int, Counter[_Fault]] = {}
    for fault in faults:
        of_line.setdefault(fault.line_number, Counter())[fault] += 1
    likeliest: dict[_Fault, list[tuple[Any, int, JsonValue]]] = {fault: [] for fault in faults}
    for number, (line, value) in enumerate(values_on_lines(values, of_line)):
        for fault, occurs in of_line[line].items():
            heap, candidate = likeliest[fault], (fault.likelihood(value), -number, value)
            if len(heap) < occurs:
                heappush(heap, candidate)
            else:
                heappushpop(heap, candidate)
    return {
        fault: [value for _, _, value in sorted(heap, key=lambda candidate: -candidate[1])]
        for fault, heap in likeliest.items()
    }


def find_rejected_rows(s3: "S3Hook", manifest_url: str | None, rejected: Result) -> list[RejectedRow]:
    """
    Find the JSON objects of staged rows that were rejected later: staging does not tell a row's file.

    The manifest's files are read until all are found, none of them if no row was rejected.

    :param s3: the hook of the AWS connection
    :param manifest_url: ``s3://…`` of the manifest of the files that were staged
    :param rejected: the rows: ``column_name``, ``reason``, and staged columns that identify the row
    :return: as many rows; those whose file cannot be read have no file and line number
    """
    names = rejected.columns[2:]
    wanted: dict[tuple[str | None, ...], list[RejectedRow]] = {}
    for column_name, reason, *staged in rejected.rows:
        known = {
            name: None if value is None else str(value) for name, value in zip(names, staged, strict=True)
        }
        row = RejectedRow(None, None, column_name, reason, json.dumps(known), known.get(column_name))
        wanted.setdefault(tuple(map(_comparable, known.values())), []).append(row)
    found: list[RejectedRow] = []
    if wanted and manifest_url:
        for entry in json.load(open_object(s3, manifest_url))["entries"]:
            for value in read_values(s3, entry["url"]):
                fields = texts_of(value)
                rows = wanted.get(tuple(_comparable(fields.get(name)) for name in names))
                if value.fields and rows:
                    row = replace(rows.pop(), url=entry["url"], line_number=value.last_line)
                    found.append(replace(row, raw_line=printable(value.text)))
            if len(found) == len(rejected.rows):
                break
    return found + [row for rows in wanted.values() for row in rows]


def _comparable(text: str | None) -> str | None:
    """Return a value so that it is the same in a file as in the column that COPY loads it into."""
    number = _WHOLE_NUMBER.fullmatch(text) if text else None
    return str(int(number[1])) if number else text


def count_objects(s3: "S3Hook", item: S3Object) -> int:
    """
    Count the JSON objects of a file, malformed ones included: 0 if it is blank, 1 if it cannot be read.

    :param s3: the hook of the AWS connection
    :param item: the file
    """
    text = _read_text(s3, item.url)
    return 1 if text is None else count_values(text)


def read_values(s3: "S3Hook", url: str) -> Iterator[JsonValue]:
    """
    Return the top-level JSON values of a file. If the file cannot be read, log a warning, and return none.

    :param s3: the hook of the AWS connection
    :param url: ``s3://…`` of the file, which is decompressed if its name says so
    """
    yield from split_values(_read_text(s3, url) or "")


def _read_text(s3: "S3Hook", url: str) -> str | None:
    bucket, key = split_url(url)
    try:
        content = decompress(key, s3.get_conn().get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as error:
        if may_pass(error):
            raise
        reason = aws_advice(error, "s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")
    except UnreadableError as error:
        reason = str(error)
    else:
        return content.decode("utf-8", "surrogateescape")
    log.warning("Cannot read %s, so its rows are not shown: %s", url, reason)
    return None


def texts_of(value: JsonValue) -> dict[str, str | None]:
    """
    Return a JSON object's fields as COPY writes them to text columns, by their names in lower case.

    :param value: the object; what is none has no fields
    """
    return {name.lower(): _as_text(content) for name, content in (value.fields or {}).items()}


def _as_text(content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    try:
        return json.dumps(content, ensure_ascii=False)
    except RecursionError:
        return None


def printable(text: str) -> str:
    """
    Return a text so that any column, log or page can show it, also half a surrogate pair and invalid UTF-8.

    :param text: the text; bytes that are not UTF-8 are decoded with ``surrogateescape``
    """
    return _UNPRINTABLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # what surrogateescape makes of a byte
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def keep_rejected_rows(dataset: str, run_id: str, rows: Sequence[RejectedRow]) -> Transaction[None]:
    """
    Store a run's rejected rows in place of those that an earlier try of the run stored.

    Those of files that the run has recorded stay: if a task of a finished run is cleared, its files are not
    staged again, or only those that have changed since.

    :param dataset: the table that refused them
    :param run_id: the run
    :param rows: the rows
    """
    of_run = f"FROM {REJECTED_ROWS} WHERE dataset = %s AND run_id = %s"
    stored = {key for (key,) in (yield f"SELECT DISTINCT s3_key {of_run}", [dataset, run_id]).rows}
    if stored:
        recorded = {key for (key,) in (yield f"SELECT s3_key FROM {LEDGER} WHERE run_id = %s", [run_id]).rows}
        if recorded:
            for key in stored - recorded - {None} | stored & {_key(row) for row in rows}:
                yield f"DELETE {of_run} AND COALESCE(s3_key, '') = %s", [dataset, run_id, key or ""]
        else:
            yield f"DELETE {of_run}", [dataset, run_id]
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
                *(dataset, _key(row), row.line_number, row.column_name, row.reason),
                *(_cut(row.raw_value, 1024), _cut(row.raw_line, 65535), run_id, rejected_at),
            )
            for row in rows
        ],
    )


def _key(row: RejectedRow) -> str | None:
    return split_url(row.url)[1] if row.url else None


def _cut(text: str | None, most_bytes: int) -> str | None:
    return None if text is None else cut(text, most_bytes)


def cut(text: str, most_bytes: int) -> str:
    """
    Return the beginning of a text.

    :param text: the text
    :param most_bytes: how many bytes it may have in UTF-8
    """
    return text.encode()[:most_bytes].decode("utf-8", "ignore")


def describe(rows: Sequence[RejectedRow], most: int = 10) -> str:
    """
    Return a line of text for each of the first rows: where it is, what is wrong, and the value of its column.

    :param rows: rejected rows
    :param most: how many to show
    """
    shown = [
        (f"{row.url} line {row.line_number}" if row.url else "a row of an unknown line")
        + (f", column {row.column_name}" if row.column_name else "")
        + f": {row.reason}"
        + (f" [{row.raw_value[:120]}]" if row.raw_value else "")
        for row in rows[:most]
    ]
    if len(rows) > most:
        shown.append(f"… and {len(rows) - most} more")
    return "\n".join(shown)
