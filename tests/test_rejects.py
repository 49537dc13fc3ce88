"""Rows that are not loaded are stored with file, line and text, whatever bytes they have."""

import bz2
import gzip
import json
import unicodedata
from datetime import datetime

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from sparkify.files import S3Object
from sparkify.rejects import (
    RejectedRow,
    count_objects,
    keep_rejected_rows,
    printable,
    with_raw_lines,
)
from sparkify.sql import run_in_transaction
from sparkify.tables import STAR
from tests.conftest import rows
from tests.runs import EVENT, OTHER_SONG, PREFIXES, Runs


def event(item, **changes):
    return json.dumps(EVENT | {"itemInSession": item, **changes})


def pretty(**changes):
    return json.dumps(EVENT | {"sessionId": 9, **changes}, indent=2)


# Files by their key below log_data: pieces of text, and of each rejected row the line, the column, the value,
# and the number of its piece.
DEEP = event(21)[:-1] + ', "deep": ' + "[" * 60_000 + "]" * 60_000 + "}"
FILES: dict[str, tuple[list[str], list[tuple]]] = {
    "half-surrogate.json": (
        [event(10), "\n", event(11, song="Love \ud83d"), "\n", event(12)],
        [(2, "song", "Love \\ud83d", 2)],
    ),
    "deeply-nested.json": ([event(20), "\n", DEEP, "\n", event(22)], [(2, "", None, 2)]),
    "bob's phone.json": ([event(30), "\n", event(31, ts=None)], [(2, "ts", None, 2)]),
    'back\\slash "quoted" %s é.json': ([event(32), "\n", event(33, ts="x")], [(2, "ts", "x", 2)]),
    "control.json": (
        [event(40), "\n", event(41).replace("Setanta", "a\0\x1b[31m"), "\n", event(42)],
        [(2, "", None, 2)],
    ),
    "nul.json": ([event(50), "\n", event(51, song="a\0b")], [(2, "song", "a\\x00b", 2)]),
    "not-utf-8.json": (
        [event(60), "\n", event(61).replace("Setanta", "\udcffé\udc80")],
        [(2, "song", "\\xffé\\x80 matins", 2)],
    ),
    "pretty-printed.json": (
        [pretty(), "\n", pretty(ts="yesterday"), "\n", pretty(itemInSession=1)],
        [(40, "ts", "yesterday", 2)],
    ),
    "no-line-feeds.json": (
        [event(80), event(81, ts="soon"), " ", event(82, sessionId=""), event(83), event(84)[:-1] + "oops}"],
        [(1, "", None, 5), (1, "sessionid", "", 3), (1, "ts", "soon", 1)],
    ),
    "carriage-returns.json": (
        [event(90), "\r", event(2**31), "\r", event(92)],
        [(1, "iteminsession", "2147483648", 2)],
    ),
    "numbers.json": (
        [event(1, sessionId=2**63), "\n", event(True), "\n", event(2, ts=2**70)],
        [
            (1, "sessionid", "9223372036854775808", 0),
            (2, "iteminsession", "true", 2),
            (3, "ts", "1180591620717411303424", 4),
        ],
    ),
}


@pytest.fixture
def runs(warehouse, s3):
    s3.create_bucket("runs", region_name="us-west-2")
    runs = Runs(s3)
    runs.put("song_data/other.json", OTHER_SONG)
    yield runs
    s3.delete_bucket("runs", force_delete=True)


def test_whatever_a_file_holds_its_rejected_rows_are_stored_with_line_column_value_and_text(runs, warehouse):
    expected = []
    for name, (pieces, rejected) in FILES.items():
        content = "".join(pieces).encode("utf-8", "surrogateescape")
        runs.s3.load_bytes(content, f"log_data/{name}", "runs")
        for line, column, value, number in rejected:
            text = pieces[number].replace("\0", "\\x00").replace("\x1b", "\\x1b")[:65535]
            text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            expected.append((f"log_data/{name}", line, column, value, text))
    runs()
    stored = rows(
        warehouse, "SELECT s3_key, line_number, column_name, raw_value, raw_line FROM etl_rejected_rows"
    )
    assert sorted(stored, key=str) == sorted(expected, key=str)
    assert rows(warehouse, "SELECT COUNT(*) FROM etl_files WHERE dataset = 'staging_events'") == [
        (len(FILES),)
    ]
    ((plays,),) = rows(warehouse, "SELECT COUNT(*) FROM fact_songplays")
    assert plays == sum("itemInSession" in piece for pieces, _ in FILES.values() for piece in pieces) - len(
        expected
    )


def test_a_play_without_a_user_has_its_file_and_line_in_any_layout(runs, warehouse):
    nobodys = [
        pretty(userId="", itemInSession=7),
        event(8, userId=None),
        event("9", userId=" ", sessionId=818.0),
    ]
    runs.put("log_data/plays.json", *[EVENT | {"itemInSession": item} for item in range(90)])
    text = f"{pretty()}\n{nobodys[0]}{pretty(itemInSession=1)}{nobodys[1]} {nobodys[2]}\n"
    runs.s3.load_string(text, "log_data/a user's.json", "runs")
    runs()
    columns = "s3_key, line_number, column_name, reason, raw_line"
    stored = rows(warehouse, f"SELECT {columns} FROM etl_rejected_rows")
    reason = ("userid", "a play without a user")
    assert sorted(stored) == sorted(
        ("log_data/a user's.json", line, *reason, text)
        for line, text in zip((40, 59, 59), nobodys, strict=True)
    )


def test_clearing_a_task_of_a_finished_run_changes_nothing(runs, warehouse):
    runs.put("log_data/1.json", EVENT, *[EVENT | {"itemInSession": item} for item in range(1, 90)])
    runs.put("log_data/2.json", EVENT | {"ts": "x"}, EVENT | {"userId": "", "itemInSession": 91})
    runs()
    tables = ("etl_rejected_rows", "etl_files", *STAR)
    before = {table: sorted(rows(warehouse, f"SELECT * FROM {table}"), key=str) for table in tables}
    assert len(before["etl_rejected_rows"]) == 2
    for task in ("load_fact_songplays", "stage_events", "load_fact_songplays", "find_new_files"):
        runs.pipeline.run("run-1", variables=PREFIXES, from_task=task)
        after = {table: sorted(rows(warehouse, f"SELECT * FROM {table}"), key=str) for table in tables}
        without_time = [[row[:-1] for row in each["etl_rejected_rows"]] for each in (before, after)]
        assert without_time[0] == without_time[1]
        assert {**after, "etl_rejected_rows": before["etl_rejected_rows"]} == before


def keep(warehouse, *urls, run_id="run 1"):
    kept = [RejectedRow(url and f"s3://bucket/{url}", 1, "ts", "late") for url in urls]
    run_in_transaction(warehouse, keep_rejected_rows("staging_events", run_id, kept))
    found = rows(warehouse, "SELECT run_id, s3_key FROM etl_rejected_rows")
    return sorted(found, key=str)


def test_a_later_try_replaces_the_rejected_rows_of_the_runs_earlier_one(warehouse):
    keep(warehouse, "a", "b", None, run_id="run 0")
    keep(warehouse, "a", "b", None)
    kept = keep(warehouse, "b", "b")
    assert [key for run_id, key in kept if run_id == "run 1"] == ["b", "b"]
    assert [key for run_id, key in kept if run_id == "run 0"] == ["a", "b", None]


def test_of_a_finished_run_only_those_of_files_that_are_rejected_again_are_replaced(warehouse):
    keep(warehouse, "a", "b", "c", None)
    for key in "ab":
        warehouse.run(
            "INSERT INTO etl_files (dataset, s3_key, etag, size_bytes, last_modified, run_id, loaded_at)"
            f" VALUES ('staging_events', '{key}', 'x', 1, '2018-11-01', 'run 1', '2018-11-01')"
        )
    assert keep(warehouse) == [("run 1", "a"), ("run 1", "b"), ("run 1", None)]
    assert keep(warehouse, "b", "b") == [("run 1", "a"), ("run 1", "b"), ("run 1", "b"), ("run 1", None)]
    assert keep(warehouse, "b", None) == [("run 1", "a"), ("run 1", "b"), ("run 1", None)]


def test_a_user_who_is_written_in_two_ways_is_reported(runs, warehouse, logged):
    users = ("77", 77, 77.0)
    runs.put("log_data/1.json", *[EVENT | {"sessionId": n, "userId": user} for n, user in enumerate(users)])
    runs()
    assert rows(warehouse, "SELECT user_id FROM dim_users ORDER BY user_id") == [("77",), ("77.0",)]
    assert "dim_users: no user_id is spelled in two ways: not so in 1 case" in logged()


@pytest.fixture
def bucket(s3):
    s3.create_bucket("reject-tests", region_name="us-west-2")
    yield "reject-tests"
    s3.delete_bucket("reject-tests", force_delete=True)


def read_rejected(s3, key, content, *errors):
    s3.load_bytes(content, key, "reject-tests", replace=True)
    url = f"s3://reject-tests/{key}"
    return list(with_raw_lines(s3, [(url[:256].strip(), *error) for error in errors], [url]))


KEPT = dict.fromkeys(map(ord, "\t\r\n"))
BAD_TIME = (2, "ts", "Invalid timestamp format or value [epochmillisecs]")


@pytest.mark.parametrize(
    ("key", "compress"),
    [("a.json.gz", gzip.compress), ("a.JSONL.BZ2", bz2.compress), ("a.zst", zstd.compress)],
)
def test_the_text_of_a_compressed_file_is_found(s3, bucket, key, compress):
    (row,) = read_rejected(s3, key, compress(b'{"ts": 1}\n{"ts": "x"}\n'), BAD_TIME)
    assert (row.line_number, row.raw_value, row.raw_line) == (2, "x", '{"ts": "x"}')


@pytest.mark.parametrize(
    ("key", "content", "reason"),
    [
        ("a.json.gz", gzip.compress(b'{"ts": 1}\n{"ts": "x"}\n', mtime=0)[:-9], "its end is missing"),
        ("a.json.gz", b'{"ts": 1}\n{"ts": "x"}\n', "is not .gz"),
        ("a.json.zst", b'{"ts": 1}\n{"ts": "x"}\n', "is not .zst"),
    ],
)
def test_a_row_of_a_file_that_cannot_be_read_is_stored_without_its_text(
    s3, bucket, caplog, key, content, reason
):
    url = f"s3://reject-tests/{key}"
    assert read_rejected(s3, key, content, BAD_TIME) == [RejectedRow(url, *BAD_TIME)]
    assert f"Cannot read {url}, so its rows are not shown" in caplog.text
    assert reason in caplog.text


def test_a_row_of_a_file_that_is_gone_or_forbidden_is_stored_without_its_text(s3, bucket, caplog):
    url = "s3://reject-tests/gone.json"
    assert list(with_raw_lines(s3, [(url, *BAD_TIME)], [url])) == [RejectedRow(url, *BAD_TIME)]
    assert "there is no such object" in caplog.text


@pytest.mark.parametrize(
    ("on_line", "error", "expected"),
    [
        (['{"a": 1}', '{"a": "x"}', '{"a": 2}'], ("a", "Invalid digit, Value 'x', Pos 0"), 1),
        (['{"a": 1}', '{"a": 99999999999}', '{"a": 2}'], ("a", "Overflow"), 1),
        (['{"a": "long"}', '{"a": "longer"}'], ("a", "String length exceeds DDL length"), 1),
        (['{"a": 1}', '{"a": null}'], ("a", "Missing data for not-null field"), 1),
        (['{"a": null}', '{"a": "x"}'], ("a", "Invalid digit"), 1),
        (['{"a": "long"}', '{"a": "\\ud83d"}'], ("a", "String contains invalid UTF-8 codepoints"), 1),
        (['{"a": "x"}', '{"a": 1, oops}'], ("", "Invalid value."), 1),
        (['{"a": "x"}', '{"a": "x"}'], ("a", "Invalid digit"), 0),
    ],
)
def test_of_several_objects_on_a_line_the_one_that_has_the_fault_is_stored(
    s3, bucket, on_line, error, expected
):
    (row,) = read_rejected(s3, "a.json", " ".join(on_line).encode(), (1, *error))
    assert row.raw_line == on_line[expected]


def test_of_several_objects_on_a_line_as_many_are_stored_as_have_the_fault(s3, bucket):
    line = "".join(json.dumps({"n": n, "a": "x" if n % 3 else 1}) for n in range(9))
    found = read_rejected(s3, "a.json", line.encode(), *[(1, "a", "Invalid digit")] * 6)
    assert [json.loads(row.raw_line)["n"] for row in found] == [1, 2, 4, 5, 7, 8]


def test_a_line_that_the_file_does_not_have_is_that_of_its_last_object(s3, bucket):
    (row,) = read_rejected(s3, "a.json", b'{"a": 1}\n{"a": ', (9, "", "Invalid value."))
    assert row.raw_line == '{"a":'
    (row,) = read_rejected(s3, "a.json", b"\n", (1, "", "Invalid value."))
    assert row.raw_line is None


def test_objects_of_a_file_are_counted_unless_it_cannot_be_read(s3, bucket):
    def count(key, content):
        s3.load_bytes(content, key, bucket, replace=True)
        return count_objects(s3, S3Object(bucket, key, "etag", len(content), datetime(2018, 11, 1)))

    assert count("a.json", b" \n\r\n") == 0
    assert count("a.json.gz", gzip.compress(b"\n")) == 0
    assert count("a.json.gz", gzip.compress(b"{}{}\n{")) == 3
    assert count("a.json.gz", b"{}{}") == 1


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_any_text_is_printable_and_stays_as_it_is_if_it_was(text):
    shown = printable(text)
    shown.encode()
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in shown.translate(KEPT))
    assert printable(shown) == shown
