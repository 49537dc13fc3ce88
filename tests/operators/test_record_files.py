from datetime import datetime
from types import SimpleNamespace

import pytest

from local.settings import REDSHIFT_ROLE
from sparkify.batches import StagingLostError
from sparkify.files import S3Object
from sparkify.ledger import Entry, ledger_lines
from sparkify.operators import RecordFilesOperator
from tests.conftest import context, rows

FILES = [
    S3Object("in", f"log_data/{day}.json", f"etag{day}", 10, datetime(2018, 11, day, 1, 2, 3))
    for day in (1, 2)
]


PLAYS = {"inserted": 6505, "updated": 0, "unchanged": 1, "deleted": 0, "rejected": 2, "within": "1 = 1"}


def record(*staged, run_id="run 1"):
    results = {"stage_events": staged[0], "load_plays": PLAYS}
    operator = RecordFilesOperator(
        task_id="record_files",
        staging_task_ids=["stage_events"],
        fact_task_ids=["load_plays"],
        iam_role=REDSHIFT_ROLE,
        region="us-west-2",
    )
    pull = SimpleNamespace(xcom_pull=lambda task_ids: [results[task_id] for task_id in task_ids])
    return operator.execute(context(ti=pull, run_id=run_id))


@pytest.fixture(autouse=True)
def staging(warehouse):
    """Staging holds the files of run 1."""
    warehouse.run("INSERT INTO etl_batches VALUES ('staging_events', 'run 1', 2, SYSDATE)")


def staged(s3, files):
    entries = [Entry(item, "loaded") for item in files]
    lines = ledger_lines("staging_events", entries, "run 1", datetime(2018, 12, 1))
    s3.load_string(lines, "tests/ledger.json", "sparkify-etl", replace=True)
    counts = {"files": len(files), "bytes": 20, "staged": 7854, "rejected": 1, "quarantined": 0, "ignored": 3}
    ledger_file = "s3://sparkify-etl/tests/ledger.json" if files else None
    left_out = {"quarantined_files": [], "new_rules": [], "same_cause": ""}
    return {"dataset": "staging_events", **counts, **left_out, "ledger_file": ledger_file, "listing": {}}


def test_the_run_is_accounted_for_in_one_line(warehouse, s3, logged):
    account = record(staged(s3, FILES))
    counts = {"files": 2, "bytes": 20, "staged": 7854, "rejected": 1, "quarantined": 0, "ignored": 3}
    assert account["staging_events"] == counts
    assert account["load_plays"]["inserted"] == 6505
    assert account["summary"] == (
        "staging_events: 2 files, 20 bytes, 7,854 staged, 1 rejected, 0 quarantined, 3 ignored;"
        " load_plays: 6,505 inserted, 0 updated, 1 unchanged, 0 deleted, 2 rejected"
    )
    assert f"Loaded {account['summary']}" in logged()


def test_staged_files_are_recorded_with_their_version(warehouse, s3):
    record(staged(s3, FILES))
    recorded = "SELECT dataset, s3_key, etag, size_bytes, last_modified, run_id FROM etl_files"
    assert rows(warehouse, f"{recorded} ORDER BY s3_key") == [
        ("staging_events", file.key, file.etag, 10, file.last_modified, "run 1") for file in FILES
    ]


def test_recording_again_changes_nothing(warehouse, s3):
    for _ in range(2):
        record(staged(s3, FILES))
    assert warehouse.get_first("SELECT COUNT(*) FROM etl_files")[0] == 2


def test_a_run_that_staged_nothing_records_nothing(warehouse, s3):
    record(staged(s3, []))
    assert warehouse.get_first("SELECT COUNT(*) FROM etl_files")[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DELETE FROM etl_batches", "etl_batches has no row of staging_events"),
        ("UPDATE etl_batches SET run_id = 'run 2'", "staging_events holds the files of run run 2"),
    ],
)
def test_nothing_is_recorded_of_files_that_staging_does_not_hold(warehouse, s3, change, message):
    warehouse.run(change)
    with pytest.raises(StagingLostError, match=message):
        record(staged(s3, FILES))
    assert warehouse.get_first("SELECT COUNT(*) FROM etl_files")[0] == 0


def test_a_recorded_run_may_be_cleared_after_another_has_staged_its_files(warehouse, s3, logged):
    record(staged(s3, FILES))
    warehouse.run("UPDATE etl_batches SET run_id = 'run 2'")
    record(staged(s3, FILES))
    assert "This run has recorded its files before: nothing is changed" in logged()
