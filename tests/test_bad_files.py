"""Whatever files are bad, and whenever a run dies: the star is that of the good files; no file is lost."""

import bz2
import gzip
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from local.settings import REGION
from sparkify.tables import STAR, TABLES
from tests.conftest import rows
from tests.expected_star import Json, expected_star
from tests.pipeline import Pipeline, star
from tests.test_crash import event, song

BUCKET = "bad-files"
FOLDERS = map(str, itertools.count())
TASKS = ("find_new_files", "create_tables", "stage_events", "stage_songs", "load_dim_users", "check_star")


def text(events: list[Json]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in events).encode()


def changed(**fields: Any) -> Callable[[list[Json]], bytes]:
    """Return what adds events to a file that break a check or do not fit, more than are tolerated."""
    return lambda events: text([*events, *(event(10**6, item, item, **fields) for item in range(150))])


# How the name of the file ends, and its content, given the events that it should have.
BAD: dict[str, tuple[str, Callable[[list[Json]], bytes]]] = {
    "gzip": (".json", lambda events: gzip.compress(text(events))),
    "bzip2": (".json", lambda events: bz2.compress(text(events))),
    "zstd": (".jsonl", lambda events: zstd.compress(text(events))),
    "UTF-16": (".json", lambda events: text(events).decode().encode("utf-16")),
    "UTF-16 without mark": (".json", lambda events: text(events).decode().encode("utf-16-be")),
    "array": (".json", lambda events: json.dumps(events).encode()),
    "array on lines": (".json", lambda events: json.dumps(events, indent=1).encode()),
    "CSV": (".json", lambda events: b"artist,song\n" + b"Elena,Song 1\n" * len(events)),
    "HTML": (".json", lambda events: b"<html><body>503 Service Unavailable</body></html>"),
    "numbers": (".ndjson", lambda events: b"1\n2\n3\n"),
    "a word": (".json", lambda events: b"null\n"),
    "ZIP": (".json", lambda events: b"PK\x03\x04" + random.Random(1).randbytes(300)),
    "Parquet": (".json", lambda events: b"PAR1" + random.Random(2).randbytes(300) + b"PAR1"),
    "noise": (".json", lambda events: random.Random(3).randbytes(500)),
    "NUL": (".json", lambda events: b"\0" * 500),
    "cut gzip": (".json.gz", lambda events: gzip.compress(text(events))[:-9]),
    "cut bzip2": (".json.bz2", lambda events: bz2.compress(text(events))[:-9]),
    "cut zstd": (".json.zst", lambda events: zstd.compress(text(events))[:-9]),
    "text as gzip": (".json.gz", text),
    "gzip as zstd": (".jsonl.zst", lambda events: gzip.compress(text(events))),
    "half an object": (".json", lambda events: text(events)[:40]),
    "half an emoji": (".json", lambda events: b'{"song": "Love \\ud83d", "sessionId": 1}\n'),
    "nested deep": (".json", lambda events: b'{"more": ' + b"[" * 60_000 + b"]" * 60_000 + b"}\n"),
    "an object above 4 MB": (".json", lambda events: text([events[0] | {"more": "x" * 4_300_000}])),
    "renamed keys": (".json", lambda events: text([{"session": 1, "time": 2}] * 3)),
    "no times": (".json", lambda events: text([each | {"ts": None} for each in events])),
    "times as words": (".json", changed(ts="yesterday")),
    "no sessions": (".json", changed(sessionId=None)),
    "a wrong clock": (".json", lambda events: text([*events, events[0] | {"ts": 1, "itemInSession": 99}])),
    "the year 2100": (".json", lambda events: text([events[0] | {"ts": 4102444800000}])),
    "unknown levels": (".json", changed(level="gold")),
    "no levels": (".json", changed(level=None)),
    "no pages": (".json", changed(page=None)),
    "unknown pages": (".json", changed(page="Homepage")),
    "no users": (".json", changed(userId="")),
    "lengths in milliseconds": (".json", changed(length=200500.0)),
    "archived": (".json", text),
}

# Files that only look odd.
GOOD: dict[str, tuple[str, Callable[[list[Json]], bytes]]] = {
    "plain": (".json", text),
    "gzip": (".json.gz", lambda events: gzip.compress(text(events))),
    "bzip2": (".JSONL.BZ2", lambda events: bz2.compress(text(events))),
    "zstd": (".ndjson.zst", lambda events: zstd.compress(text(events))),
    "carriage returns": (".json", lambda events: text(events).replace(b"\n", b"\r\n")),
    "byte order mark": (".json", lambda events: b"\xef\xbb\xbf" + text(events)),
    "one line": (".json", lambda events: text(events).replace(b"\n", b" ")),
    "pretty": (".json", lambda events: "\n".join(json.dumps(each, indent=2) for each in events).encode()),
    "blank lines": (".json", lambda events: b"\n\n" + text(events).replace(b"\n", b"\n\n")),
}
IGNORED = dict.fromkeys(("events.csv", "_SUCCESS", ".part-0.json.crc", "readme"), b"x") | {"empty.json": b""}


class Bucket:
    """Two prefixes of an empty warehouse, what lies below them, and runs that load it."""

    def __init__(self, hook: RedshiftSQLHook, s3: Any) -> None:
        self.hook, self.s3, self.folder, self.pipeline = hook, s3, next(FOLDERS), Pipeline()
        self.variables = {
            "sparkify_log_data": f"s3://{BUCKET}/{self.folder}/log_data/",
            "sparkify_song_data": f"s3://{BUCKET}/{self.folder}/song_data/",
            "sparkify_work_prefix": f"s3://{BUCKET}/{self.folder}/runs/",
        }
        self.runs = 0
        hook.run([f"DELETE FROM {table}" for table in TABLES])

    def put(self, key: str, content: bytes, **options: Any) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=f"{self.folder}/{key}", Body=content, **options)

    def run(self, to_task: str | None = None) -> dict[str, Any]:
        """Run; with a task to end with, the run dies after it."""
        self.runs += 1
        with capture_logs():
            return self.pipeline.run(f"run {self.runs}", variables=self.variables, to_task=to_task)

    def states(self) -> dict[str, str]:
        """Return the state of each object: as the ledger recorded its version last, or that it waits."""
        recorded = {
            (key, etag): status
            for key, etag, status in rows(
                self.hook, "SELECT s3_key, etag, status FROM etl_files ORDER BY loaded_at"
            )
        }
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.folder}/")
        listed = [item for page in pages for item in page["Contents"]]
        return {
            item["Key"].removeprefix(f"{self.folder}/"): recorded.get(
                (item["Key"], item["ETag"].strip('"')), "waiting"
            )
            for item in listed
            if f"{self.folder}/runs/" not in item["Key"]
        }


@pytest.fixture(scope="module")
def s3(stack: object) -> Any:
    """The S3 client, with a bucket for all schedules."""
    hook = S3Hook(aws_conn_id="aws_default")
    hook.create_bucket(BUCKET, region_name=REGION)
    return hook.conn


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[tuple[str, str, int]], list[str | None]]:
    """Draw files, each with its form and the step at which it comes; and after which task each run dies."""
    steps = draw(st.lists(st.sampled_from([None, None, None, *TASKS]), min_size=1, max_size=3))
    forms = [*(("bad", form) for form in BAD), *(("good", form) for form in GOOD)]
    files = draw(st.lists(st.sampled_from(forms), min_size=2, max_size=9))
    return [(kind, form, draw(st.integers(0, len(steps) - 1))) for kind, form in files], steps


def check(bucket: Bucket, events: list[Json], songs: list[Json]) -> None:
    """Compare the star with what should be there."""
    expected = expected_star(events, songs)
    assert star(bucket.hook) == {table: expected[table] for table in STAR}


@settings(max_examples=8 if settings().max_examples <= 25 else 250)  # a run takes a second
@given(schedule=schedules())
def test_the_star_is_that_of_the_good_files_and_each_object_is_in_one_state(
    created: RedshiftSQLHook, s3: Any, schedule: tuple[list[tuple[str, str, int]], list[str | None]]
) -> None:
    files, steps = schedule
    bucket = Bucket(created, s3)
    bucket.put("song_data/0.json", json.dumps(song(0)).encode())
    bucket.put("log_data/first.json", text([event(0, 0, 0)]))
    good, repaired, states = [event(0, 0, 0)], {}, {"log_data/first.json": "loaded"}
    for step, dies_after in enumerate(steps):
        for number, (kind, form, comes_at) in enumerate(files, start=1):
            if comes_at != step:
                continue
            events = [event(number, item, 10 * number + item) for item in range(1 + number % 3)]
            suffix, content = (BAD if kind == "bad" else GOOD)[form]
            key = f"log_data/{number}-bob's{suffix}"
            options = {"StorageClass": "DEEP_ARCHIVE"} if form == "archived" else {}
            bucket.put(key, content(events), **options)
            states[key] = "quarantined" if kind == "bad" else "loaded"
            if kind == "bad":
                repaired[key] = events
            else:
                good += events
        bucket.run(to_task=dies_after)
    for name, ignored in IGNORED.items():
        bucket.put(f"log_data/{name}", ignored)
        states[f"log_data/{name}"] = "ignored"
    assert "waiting" in bucket.states().values()
    bucket.run()
    check(bucket, good, [song(0)])
    assert bucket.states() == states | {"song_data/0.json": "loaded"}
    assert rows(created, "SELECT COUNT(*) FROM etl_files WHERE status <> 'loaded' AND reason IS NULL") == [
        (0,)
    ]
    assert bucket.run() == {"find_new_files": False}

    compress: dict[str, Callable[[bytes], bytes]]
    compress = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstd.compress}
    for key, events in repaired.items():
        bucket.put(key, compress.get(key.rpartition(".")[2], bytes)(text(events)))
    bucket.run()
    check(bucket, [*good, *itertools.chain.from_iterable(repaired.values())], [song(0)])
    assert Counter(bucket.states().values()) == {"loaded": len(files) + 2, "ignored": len(IGNORED)}


@pytest.mark.parametrize("form", BAD)
def test_each_form_alone_is_quarantined_with_a_reason(created: RedshiftSQLHook, s3: Any, form: str) -> None:
    bucket = Bucket(created, s3)
    bucket.put("song_data/0.json", json.dumps(song(0)).encode())
    suffix, content = BAD[form]
    options = {"StorageClass": "DEEP_ARCHIVE"} if form == "archived" else {}
    bucket.put(f"log_data/1{suffix}", content([event(1, 0, 0), event(1, 1, 1)]), **options)
    run = bucket.run()
    assert run["stage_events"]["quarantined"] == 1
    assert rows(created, "SELECT COUNT(*) FROM fact_songplays") == [(0,)]
    ((reason,),) = rows(created, "SELECT reason FROM etl_files WHERE status = 'quarantined'")
    assert len(reason) > 20
    assert rows(created, "SELECT COUNT(*) FROM etl_rejected_rows WHERE reason IS NULL") == [(0,)]
