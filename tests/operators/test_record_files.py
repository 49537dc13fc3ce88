from datetime import datetime
from types import SimpleNamespace

from sparkify.files import S3Object
from sparkify.ledger import ledger_lines
from sparkify.operators import RecordFilesOperator
from tests.conftest import context, rows

FILES = [
    S3Object("in", f"log_data/{day}.json", f"etag{day}", 10, datetime(2018, 11, day, 1, 2, 3))
    for day in (1, 2)
]


def record(s3, *results):
    operator = RecordFilesOperator(
        task_id="record_files",
        staging_task_ids=["stage_events"],
        iam_role="arn:aws:iam::123456789012:role/copy",
        region="us-west-2",
    )
    return operator.execute(context(ti=SimpleNamespace(xcom_pull=lambda task_ids: results)))


def staged(s3, files):
    lines = ledger_lines("staging_events", files, "run 1", datetime(2018, 12, 1))
    s3.load_string(lines, "tests/ledger.json", "sparkify-etl", replace=True)
    ledger_file = "s3://sparkify-etl/tests/ledger.json"
    return {"dataset": "staging_events", "files": len(files), "ledger_file": ledger_file, "listing": {}}


def test_staged_files_are_recorded_with_their_version(warehouse, s3):
    assert record(s3, staged(s3, FILES)) == 2
    recorded = "SELECT dataset, s3_key, etag, size_bytes, last_modified, run_id FROM etl_files"
    assert rows(warehouse, f"{recorded} ORDER BY s3_key") == [
        ("staging_events", file.key, file.etag, 10, file.last_modified, "run 1") for file in FILES
    ]


def test_recording_again_changes_nothing(warehouse, s3):
    for _ in range(2):
        record(s3, staged(s3, FILES))
    assert warehouse.get_first("SELECT COUNT(*) FROM etl_files")[0] == 2


def test_a_run_that_staged_nothing_records_nothing(warehouse, s3):
    assert record(s3, {"dataset": "staging_events", "files": 0, "ledger_file": None, "listing": {}}) == 0
    assert warehouse.get_first("SELECT COUNT(*) FROM etl_files")[0] == 0
