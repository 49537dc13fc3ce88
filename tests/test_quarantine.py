"""Files that cannot be loaded: they hold up no other file, and none disappears."""

import bz2
import gzip
import html
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from backports import zstd

from tests.conftest import rows
from tests.runs import EVENT, OTHER_SONG, PREFIXES, SONG, Runs

GOOD = EVENT | {"sessionId": 900}


def lines(*events):
    return "".join(json.dumps(event) + "\n" for event in events)


def plays(count, **fields):
    return [EVENT | {"itemInSession": number, "ts": EVENT["ts"] + number} | fields for number in range(count)]


class Deliveries(Runs):
    """Runs over files of any bytes."""

    def put_bytes(self, name, content):
        content = content.encode() if isinstance(content, str) else content
        self.s3.load_bytes(content, f"log_data/{name}", "runs", replace=True)


@pytest.fixture
def runs(warehouse, s3: S3Hook):
    s3.create_bucket("runs", region_name="us-west-2")
    runs = Deliveries(s3)
    runs.put("song_data/other.json", OTHER_SONG)
    runs.put("log_data/good.json", GOOD)
    yield runs
    s3.delete_bucket("runs", force_delete=True)


def sessions(warehouse):
    return dict(rows(warehouse, "SELECT session_id, COUNT(*) FROM fact_songplays GROUP BY session_id"))


def states(warehouse):
    found = rows(warehouse, "SELECT s3_key, status, reason FROM etl_files WHERE dataset = 'staging_events'")
    return {key.removeprefix("log_data/"): (status, reason) for key, status, reason in found}


CUT = gzip.compress(lines(*plays(200)).encode())[:-20]
BAD = {
    "gzip": ("bad.json", gzip.compress(lines(*plays(200)).encode()), "its first bytes are gzip"),
    "zstd": ("bad.ndjson", zstd.compress(lines(*plays(20)).encode()), "its first bytes are Zstandard"),
    "utf-16": ("bad.json", lines(*plays(20)).encode("utf-16"), "its first bytes are UTF-16"),
    "utf-16 without mark": ("bad.json", lines(*plays(20)).encode("utf-16-le"), "UTF-16 or binary"),
    "an array": ("bad.json", json.dumps(plays(200)), "it is one JSON array"),
    "csv": ("bad.json", "artist,song\nElena,Setanta matins\n", "it does not begin with a JSON object"),
    "a page of errors": ("bad.json", "<html>503 Slow Down</html>\n", "it does not begin with a JSON object"),
    "numbers": ("bad.json", "1\n2\n3\n", "it does not begin with a JSON object"),
    "cut gzip": ("bad.json.gz", CUT, "COPY cannot read it"),
    "a name that reads as a cause": ("Access Denied, timed out.json.gz", CUT, "COPY cannot read it"),
    "plain text named gzip": ("bad.json.gz", lines(*plays(2)), "its name says gzip, but its first bytes"),
    "gzip named bzip2": ("bad.json.bz2", gzip.compress(b"{}"), "its name says bzip2"),
    "zlib named gzip": ("bad.json.gz", zlib.compress(b"{}\n"), "its name says gzip"),
    "many bad lines": ("bad.json", lines(*plays(150, ts="x"), *plays(300)), "COPY rejected more than 100"),
    "only bad lines": ("bad.json", lines(*plays(3, ts="x")), "none of its rows could be loaded"),
    "renamed keys": ("bad.json", lines({"session_id": 1}), "none of its rows could be loaded"),
    "of 1970": ("bad.json", lines(*plays(30), GOOD | {"ts": 1}), "no event is from before 2010"),
    "of tomorrow": ("bad.json", lines(GOOD | {"ts": 4099680000000}), "more than an hour ahead of the clock"),
    "unknown levels": ("bad.json", lines(*plays(20, level="gold")), "every level is known"),
    "no pages": ("bad.json", lines(*plays(20, page=None)), "every event has a page"),
    "a huge object": ("bad.json", json.dumps(EVENT | {"more": "x" * 5_000_000}), ""),
}


@pytest.mark.parametrize(("name", "content", "reason"), BAD.values(), ids=BAD)
def test_a_bad_file_is_quarantined_with_its_reason_and_holds_up_no_other(
    runs, warehouse, name, content, reason
):
    runs.put_bytes(name, content)
    run = runs()
    assert (run["stage_events"]["files"], run["stage_events"]["quarantined"]) == (1, 1)
    assert sessions(warehouse) == {900: 1}
    status, found = states(warehouse)[name]
    assert (status, reason in found) == ("quarantined", True), found
    assert states(warehouse)["good.json"] == ("loaded", None)
    assert runs() == {"find_new_files": False}
    runs.put("log_data/later.json", EVENT | {"sessionId": 901})
    assert runs()["stage_events"]["files"] == 1
    runs.put_bytes(name, lines(EVENT) if name.endswith("json") else b"")
    runs()
    assert sessions(warehouse) == {900: 1, 901: 1} | ({818: 1} if name.endswith("json") else {})


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstd.compress,
}


def test_each_format_and_compression_is_loaded_in_any_case(runs, warehouse):
    number = 0
    for suffix in (".json", ".jsonl", ".NDJSON"):
        for compression, compress in COMPRESSED.items():
            number += 1
            runs.put_bytes(
                f"a{suffix}{compression.upper() if number % 2 else compression}",
                compress(lines(EVENT | {"sessionId": number}).encode()),
            )
    run = runs()
    assert (run["stage_events"]["files"], run["stage_events"]["staged"]) == (13, 13)
    assert sessions(warehouse) == dict.fromkeys(range(1, 13), 1) | {900: 1}
    assert runs() == {"find_new_files": False}


@pytest.mark.parametrize(
    ("content", "count"),
    [("\n", 0), (" \n\n\t\n", 0), ("\ufeff" + lines(EVENT), 1), (lines(EVENT).replace("\n", "\r\n"), 1)],
    ids=["a line feed", "blanks", "byte order mark", "carriage returns"],
)
def test_what_only_looks_odd_is_loaded(runs, warehouse, content, count):
    runs.put_bytes("odd.json", content)
    runs()
    assert states(warehouse)["odd.json"] == ("loaded", None)
    assert sessions(warehouse) == {900: 1} | ({818: count} if count else {})
    assert rows(warehouse, "SELECT * FROM etl_rejected_rows") == []


def test_what_an_older_version_loaded_stays(runs, warehouse):
    runs.put_bytes("bad.json", lines(*plays(2)))
    runs()
    runs.put_bytes("bad.json", "oops")
    runs()
    assert sessions(warehouse) == {900: 1, 818: 2}
    runs.put_bytes("bad.json", lines(*plays(3)))
    runs()
    assert sessions(warehouse) == {900: 1, 818: 3}


def test_a_quarantined_version_is_tried_again_by_reload_prefix(runs, warehouse):
    runs.put_bytes("bad.json", lines(*plays(150, ts="x"), *plays(300)))
    runs()
    assert sessions(warehouse) == {900: 1}
    runs.variables["sparkify_max_rejected_rows"] = "200"
    assert runs() == {"find_new_files": False}
    runs(reload_prefix="s3://runs/log_data/bad")
    assert sessions(warehouse) == {900: 1, 818: 300}
    assert states(warehouse)["bad.json"] == ("loaded", None)
    assert rows(warehouse, "SELECT rows_read, rows_rejected FROM etl_files WHERE s3_key LIKE '%bad%'") == [
        (450, 150)
    ]


def test_bad_files_among_many_are_found(runs, warehouse):
    for number in range(40):
        runs.put_bytes(f"{number:02}.json", lines(EVENT | {"sessionId": number}))
    runs.put_bytes("13.json", gzip.compress(b"{}"))
    runs.put_bytes("14.json.gz", b"\x1f\x8boops")
    runs.put_bytes("33.json", lines(GOOD | {"ts": 1}))
    run = runs()["stage_events"]
    assert (run["files"], run["quarantined"]) == (39, 3)
    bad = {key for key, (status, _) in states(warehouse).items() if status == "quarantined"}
    assert bad == {"13.json", "14.json.gz", "33.json"}
    assert len(sessions(warehouse)) == 39


def test_a_cause_that_is_not_the_files_quarantines_none(runs, warehouse):
    runs.variables["sparkify_iam_role"] = "arn:aws:iam::210987654321:role/other"
    with pytest.raises(Exception, match="not authorized"):
        runs()
    assert states(warehouse) == {}
    del runs.variables["sparkify_iam_role"]
    runs()
    assert sessions(warehouse) == {900: 1}


def test_files_that_break_a_check_only_together_are_loaded_with_a_warning(runs, warehouse, logged):
    runs.put_bytes("1.json", lines(*plays(12, sessionId=1)))
    runs.put_bytes("2.json", lines(*plays(12, sessionId=1, userId="16")))
    run = runs()
    assert (run["stage_events"]["files"], run["stage_events"]["quarantined"]) == (3, 0)
    assert "warning: staging_events: a session has one user" in logged()
    kept = "SELECT severity FROM etl_quality_results WHERE check_name LIKE 'staging%one user'"
    assert rows(warehouse, kept) == [("warn",)]


def test_all_files_that_fail_alike_look_like_a_change_of_format(runs, logged):
    runs.put_bytes("good.json", lines({"session_id": 1}))
    runs.put_bytes("more.json", lines({"session_id": 2}))
    assert runs()["stage_events"]["same_cause"] == "none of its rows could be loaded"
    assert "it looks like a change of the source's format" in logged()


def test_a_new_kind_of_ignored_object_is_reported_once(runs, warehouse):
    runs.put_bytes("a.csv", "x")
    assert runs()["stage_events"]["new_rules"] == [["its suffix is .csv", "s3://runs/log_data/a.csv"]]
    runs.put_bytes("b.csv", "x")
    assert runs()["stage_events"]["new_rules"] == []
    assert runs() == {"find_new_files": False}


def test_songs_are_quarantined_too(runs, warehouse):
    runs.put("song_data/bad.json", SONG | {"song_id": ""})
    runs.put("song_data/good.json", SONG)
    run = runs()["stage_songs"]
    assert (run["files"], run["quarantined"]) == (2, 1)
    assert rows(warehouse, "SELECT COUNT(*) FROM dim_songs") == [(2,)]


def put_dated(runs, name, date, *events):
    """Put a file under a date, as replication and a version that is rolled back have their own."""
    client = runs.s3.get_conn()
    metadata = {"local-last-modified": date} if date else {}
    client.put_object(Bucket="runs", Key=f"log_data/{name}", Body=lines(*events).encode(), Metadata=metadata)


def test_an_object_that_arrives_under_an_old_date_is_loaded_once(runs, warehouse):
    runs()
    put_dated(runs, "replicated.json", "2019-01-01T00:00:00", EVENT | {"sessionId": 901})
    assert runs()["stage_events"]["files"] == 1
    assert sessions(warehouse) == {900: 1, 901: 1}
    assert runs() == {"find_new_files": False}


def test_a_version_that_is_rolled_back_is_loaded_once(runs, warehouse):
    put_dated(runs, "a.json", "2019-01-01T00:00:00", EVENT | {"level": "free"})
    runs()
    put_dated(runs, "a.json", "", EVENT | {"level": "paid"})
    runs()
    put_dated(runs, "a.json", "2019-01-01T00:00:00", EVENT | {"level": "free"})
    assert runs()["stage_events"]["files"] == 1
    assert rows(warehouse, "SELECT level FROM fact_songplays WHERE session_id = 818") == [("free",)]
    assert runs() == {"find_new_files": False}
    runs.put("log_data/later.json", EVENT | {"sessionId": 901})
    assert runs()["stage_events"]["files"] == 1


def test_an_archived_file_is_quarantined_without_a_copy_and_loaded_when_it_is_restored(runs, warehouse):
    client = runs.s3.get_conn()
    body = lines(*plays(2)).encode()
    client.put_object(Bucket="runs", Key="log_data/cold.json", Body=body, StorageClass="DEEP_ARCHIVE")
    assert runs()["stage_events"]["quarantined"] == 1
    assert states(warehouse)["cold.json"][1].startswith("it is archived (DEEP_ARCHIVE): restore it")
    client.restore_object(Bucket="runs", Key="log_data/cold.json", RestoreRequest={"Days": 1})
    assert runs() == {"find_new_files": False}
    runs(reload_prefix="s3://runs/log_data/cold")
    assert sessions(warehouse) == {900: 1, 818: 2}


def test_a_quarantined_file_that_is_uploaded_again_as_it_was_is_tried_again(runs, warehouse):
    client, body = runs.s3.get_conn(), lines(*plays(2)).encode()
    metadata = {"local-last-modified": "2019-01-01T00:00:00"}
    cold = {"Bucket": "runs", "Key": "log_data/cold.json", "Body": body}
    client.put_object(**cold, StorageClass="GLACIER", Metadata=metadata)
    assert runs()["stage_events"]["quarantined"] == 1
    client.put_object(**cold)
    assert runs()["stage_events"]["files"] == 1
    assert sessions(warehouse) == {900: 1, 818: 2}
    assert runs() == {"find_new_files": False}


def test_a_cleared_staging_task_needs_no_work_file(runs, warehouse):
    runs.pipeline.run("run-0", variables=PREFIXES, to_task="create_tables")
    runs.pipeline.tries["run-0"]["stage_events"] = 1
    for key in runs.s3.list_keys("sparkify-etl", prefix="runs/sparkify_etl/run-0/"):
        runs.s3.delete_objects("sparkify-etl", key)
    runs.pipeline.tries["run-0"]["stage_songs"] = 1
    again = runs.pipeline.run("run-0", variables=PREFIXES, from_task="stage_events")
    assert again["stage_events"]["files"] == 1


def test_what_is_left_out_is_reported_with_reason_and_what_to_do(runs, mailbox):
    runs.put_bytes("bad.json", json.dumps(plays(2)))
    runs.put_bytes("a.csv", "x")
    runs()
    assert mailbox.subjects() == [
        "[sparkify_etl] 1 file of staging_events quarantined",
        "[sparkify_etl] objects of a new kind are ignored below the prefix of staging_events",
    ]
    assert "- s3://runs/log_data/bad.json\n  it is one JSON array" in html.unescape(mailbox.text(0))
    assert "Upload a corrected file: the next run loads it." in mailbox.text(0)
    assert "s3://runs/log_data/a.csv: its suffix is .csv" in mailbox.text(1)
    runs.put_bytes("later.json", lines(EVENT | {"ts": EVENT["ts"] + 10**6}))
    runs()
    assert mailbox.subjects()[2:] == []


FAULT = Path(os.environ["LOCAL_REDSHIFT_FAULTS"])


def test_a_run_with_a_bad_file_that_is_cut_off_at_each_statement_in_turn_ends_as_undisturbed(runs, warehouse):
    runs.put_bytes("bad.json", lines(*plays(30), GOOD | {"ts": 1, "sessionId": 1}))
    runs.put_bytes("cut.json.gz", gzip.compress(lines(*plays(3)).encode())[:-9])
    task, number, faults = None, 0, 0
    while True:
        number += 1
        FAULT.write_text(f"after {number}")
        try:
            runs.pipeline.run("run-0", variables=PREFIXES, from_task=task, to_task="stage_songs")
        except Exception:
            faults += 1
            assert not FAULT.exists()
            if runs.pipeline.current_task != task:  # the one before has no such statement, and is done
                task, number = runs.pipeline.current_task, 0
        else:
            if FAULT.exists():
                break
            faults += 1  # in a session that was about to be closed
    FAULT.unlink()
    assert faults > 50
    runs.pipeline.run("run-0", variables=PREFIXES, from_task="load_dim_users")
    assert sessions(warehouse) == {900: 1}
    found = {name: status for name, (status, _) in states(warehouse).items()}
    assert found == {"good.json": "loaded", "bad.json": "quarantined", "cut.json.gz": "quarantined"}
