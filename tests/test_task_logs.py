"""What an engineer on call reads in the log of a task."""

import json
import re

import pytest

from tests.conftest import rows
from tests.test_pipeline import airflow, masked, run_etl

PREFIXES = {
    "AIRFLOW_VAR_SPARKIFY_LOG_DATA": "s3://task-logs/log_data/",
    "AIRFLOW_VAR_SPARKIFY_SONG_DATA": "s3://task-logs/song_data/",
}
PERSON = {"firstName": "Secretfirstname", "lastName": "Secretlastname", "location": "Secretcity, CA"}
EVENT = {
    **{"page": "NextSong", "userId": "8", "level": "free", "gender": "F", "song": "S", "artist": "A"},
    **{"length": 1.5, "sessionId": 818, "itemInSession": 1, "ts": 1541106000796, "auth": "Logged In"},
    **PERSON,
}
SONG = {
    **{"num_songs": 1, "song_id": "SO1", "title": "S", "duration": 1.5, "year": 0, "artist_id": "AR1"},
    **{"artist_name": "A", "artist_location": "", "artist_latitude": None, "artist_longitude": None},
}


@pytest.fixture
def bucket(metadata, warehouse, s3):
    s3.create_bucket("task-logs", region_name="us-west-2")
    s3.load_string(json.dumps(SONG), "song_data/1.json", "task-logs")
    yield "task-logs"
    s3.delete_bucket("task-logs", force_delete=True)


def test_no_value_of_a_rejected_row_is_logged_by_a_statement(bucket, warehouse, s3):
    events = [
        EVENT,
        {**EVENT, "itemInSession": 2, "ts": "MMXVIII"},
        {**EVENT, "itemInSession": 3, "userId": None},
    ]
    s3.load_string("\n".join(map(json.dumps, events)), "log_data/1.json", "task-logs")
    log = run_etl(**PREFIXES)
    kept = rows(warehouse, "SELECT raw_line FROM etl_rejected_rows")
    assert len(kept) == 2
    assert all(value in line for (line,) in kept for value in PERSON.values())
    assert "Running statement: INSERT INTO etl_rejected_rows" in log
    assert not [value for value in PERSON.values() if value in masked(log)]


def test_the_log_of_a_failed_task_ends_with_what_happened_and_what_to_do(bucket, s3):
    s3.load_string(json.dumps(EVENT), "log_data/1.json", "task-logs")
    role = "arn:aws:iam::210987654321:role/other"
    run = airflow("dags", "test", "sparkify_etl", **PREFIXES, AIRFLOW_VAR_SPARKIFY_IAM_ROLE=role)
    log = masked(run.stdout).split("running task <TaskInstance: sparkify_etl.stage_events")[1]
    log = log.split("running task <TaskInstance")[0]
    # 3.0.6 colours and wraps the lines.
    log = " ".join(re.sub(r"\x1b\[[\d;]*m", "", log).split())
    said = (
        "Staging staging_events failed on connection 'redshift': User arn:aws:redshift:us-west-2:"
        "123456789012:dbuser:sparkify/sparkify is not authorized to assume IAM Role"
        " arn:aws:iam::210987654321:role/other."
    )
    assert said in log
    last = log[log.rindex(said) :]
    assert "Attach arn:aws:iam::210987654321:role/other to the cluster, or to the namespace" in last
    assert "or correct the variable sparkify_iam_role." in last
    for raw in ("Traceback", "'C': 'XX000'", "COPY staging_events", "redshift_connector"):
        assert raw not in last
    assert "redshift_connector" not in log
