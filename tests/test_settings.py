"""Wrong settings end a run at once, before it lists, loads or deletes anything."""

import json
import os
import re

import pytest
from airflow import __version__ as version

from local.settings import REDSHIFT_ROLE, REGION
from sparkify.errors import may_pass
from sparkify.validation import check_settings
from tests.conftest import rows
from tests.pipeline import Pipeline
from tests.runs import EVENT, asked
from tests.test_pipeline import airflow

SETTINGS = {
    "sparkify_log_data": "s3://udacity-dend/log_data/",
    "sparkify_song_data": "s3://udacity-dend/song_data/",
    "sparkify_work_prefix": "s3://sparkify-etl/runs/",
    "sparkify_iam_role": REDSHIFT_ROLE,
    "sparkify_s3_region": REGION,
    "sparkify_max_rejected_rows": "100",
    "sparkify_schema": "sparkify",
    "sparkify_analysts_role": "",
    "sparkify_alerts": "",
    "sparkify_queue_url": "",
}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"log_data": ""},
            "The Airflow variable sparkify_log_data does not exist or is empty. Create it as .env.example"
            " shows.",
        ),
        (
            {"song_data": "udacity-dend/song_data"},
            "sparkify_song_data is 'udacity-dend/song_data': set an S3 address, s3://bucket/prefix/.",
        ),
        (
            {"iam_role": "sparkify-copy"},
            "sparkify_iam_role is 'sparkify-copy': set the ARN of an IAM role, such as"
            " arn:aws:iam::123456789012:role/name, or default.",
        ),
        (
            {"s3_region": "Oregon"},
            "sparkify_s3_region is 'Oregon': set the name of an AWS region, such as us-west-2.",
        ),
        *(
            (
                {"max_rejected_rows": number},
                f"sparkify_max_rejected_rows is '{number}': set a number from 0 to 100000.",
            )
            for number in ("abc", "-5", "100001", "1e3", "")
        ),
        (
            {"analysts_role": "Data Team"},
            "sparkify_analysts_role is 'Data Team': set a lower-case SQL identifier.",
        ),
        (
            {"queue_url": "https://sqs.us-west-2.amazonaws.com/123456789012/new.fifo"},
            "sparkify_queue_url is 'https://sqs.us-west-2.amazonaws.com/123456789012/new.fifo': set the URL"
            " of a standard SQS queue, https://sqs.<region>.amazonaws.com/<account>/<name>.",
        ),
        (
            {"alerts": "smtp:oncall@example.com, smpt:oncall@example.com"},
            "sparkify_alerts: 'smpt:…' is none of smtp:<e-mail address>, sns:<ARN of a standard topic> and"
            " slack:<connection of an incoming webhook>.",
        ),
        (
            {"song_data": "s3://udacity-dend/log_data/songs/"},
            "sparkify_song_data (s3://udacity-dend/log_data/songs/) lies below sparkify_log_data"
            " (s3://udacity-dend/log_data/). Set prefixes that do not overlap.",
        ),
        (
            {"song_data": "s3://udacity-dend/log_data/"},
            "sparkify_log_data and sparkify_song_data are both s3://udacity-dend/log_data/. Set prefixes that"
            " do not overlap.",
        ),
        (
            {"work_prefix": "s3://udacity-dend/log_data/work/"},
            "sparkify_work_prefix (s3://udacity-dend/log_data/work/) lies below sparkify_log_data"
            " (s3://udacity-dend/log_data/). Set prefixes that do not overlap.",
        ),
        (
            {"work_prefix": "s3://udacity-dend/", "log_data": "s3://udacity-dend/log_data/"},
            "sparkify_log_data (s3://udacity-dend/log_data/) lies below sparkify_work_prefix"
            " (s3://udacity-dend/). Set prefixes that do not overlap.\n"
            "sparkify_song_data (s3://udacity-dend/song_data/) lies below sparkify_work_prefix"
            " (s3://udacity-dend/). Set prefixes that do not overlap.",
        ),
        (
            {"log_data": "", "iam_role": ""},
            "The Airflow variable sparkify_log_data does not exist or is empty. Create it as .env.example"
            " shows.\nThe Airflow variable sparkify_iam_role does not exist or is empty. Create it as"
            " .env.example shows.",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_set(stack, changes, problem):
    changed = {f"sparkify_{name}": value for name, value in changes.items()}
    with pytest.raises(ValueError, match="sparkify") as refusal:
        check_settings(SETTINGS | changed, "redshift")
    assert str(refusal.value) == problem
    assert may_pass(refusal.value) is False


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"iam_role": "default", "analysts_role": "analysts", "max_rejected_rows": "0"},
        {"queue_url": "https://sqs.us-west-2.amazonaws.com/123456789012/new"},
        {"log_data": "s3://other/"},
        {"log_data": "s3://udacity-dend/data/", "song_data": "s3://udacity-dend/data-of-songs/"},
    ],
)
def test_right_settings_pass(stack, changes):
    check_settings(SETTINGS | {f"sparkify_{name}": value for name, value in changes.items()}, "redshift")


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (
            '{"ssl_mode": "verify-full"}',
            "The extra of the connection redshift has the key 'ssl_mode', which Amazon's driver does not"
            " know. Write 'sslmode', or remove it.",
        ),
        (
            '{"iam": true, "zzz": 1}',
            "The extra of the connection redshift has the key 'zzz', which Amazon's driver does not know."
            " Remove it.",
        ),
    ],
)
def test_an_extra_that_the_driver_does_not_know_is_named(stack, monkeypatch, extra, problem):
    connection = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"])
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(connection | {"extra": extra}))
    with pytest.raises(ValueError, match="extra") as refusal:
        check_settings(SETTINGS, "redshift")
    assert str(refusal.value) == problem


@pytest.mark.skipif(version.startswith("3.0."), reason="Airflow 3.0 does not find such a connection at all")
@pytest.mark.parametrize("extra", ['{"sslmode": "verify-full",}', '["sslmode"]'])
def test_an_extra_that_is_no_json_object_is_named(stack, monkeypatch, extra):
    connection = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"])
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(connection | {"extra": extra}))
    with pytest.raises(ValueError, match="The extra of the connection redshift is not a JSON object"):
        check_settings(SETTINGS, "redshift")


def test_the_extra_of_another_driver_is_its_own(stack, monkeypatch):
    connection = {"conn_type": "postgres", "host": "localhost", "extra": {"cursor": "dictcursor"}}
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(connection))
    check_settings(SETTINGS, "redshift")


def test_a_missing_connection_is_named(metadata, created, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_REDSHIFT")
    task = airflow("tasks", "test", "sparkify_check_setup", "check_settings")
    assert "The connection redshift does not exist. Create it as .env.example shows." in task.stdout


# --- where they are used: the first task of every run ---


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"sparkify_max_rejected_rows": "abc"}, "sparkify_max_rejected_rows is 'abc': set a number"),
        (
            {"sparkify_song_data": "s3://runs/log_data/songs/"},
            r"sparkify_song_data .* lies below sparkify_log",
        ),
        ({"sparkify_work_prefix": "s3://runs/log_data/"}, "and sparkify_work_prefix are both s3://runs/log"),
        ({"sparkify_iam_role": ""}, "variable sparkify_iam_role does not exist"),
    ],
)
@pytest.mark.parametrize("params", [{}, {"dry_run": True}, {"reload_prefix": "s3://runs/log_data/"}], ids=str)
def test_a_run_with_a_wrong_setting_lists_and_changes_nothing(
    runs,
    warehouse,
    s3_requests,
    variables,
    problem,
    params,
):
    before = [asked(warehouse), asked(warehouse)]
    runs.variables |= variables
    with pytest.raises(Exception, match=problem):
        runs(**params)
    assert runs.pipeline.current_task == "find_new_files"
    assert not s3_requests
    after = asked(warehouse)
    counting = [second - first for first, second in zip(*before, strict=True)]
    assert after == tuple(count + more for count, more in zip(before[1], counting, strict=True))


def test_a_variable_that_does_not_exist_fails_the_first_task_at_once(runs, monkeypatch):
    monkeypatch.delenv("AIRFLOW_VAR_SPARKIFY_IAM_ROLE")
    with pytest.raises(Exception, match=r"variable sparkify_iam_role does not exist .* Create it"):
        runs()
    assert runs.pipeline.current_task == "find_new_files"


def test_the_log_of_a_run_ends_with_the_setting(metadata, created):
    connection = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"])
    connection["extra"] |= {"ssl_mode": "verify-full"}
    run = airflow(
        *("dags", "test", "sparkify_etl"),
        AIRFLOW_CONN_REDSHIFT=json.dumps(connection),
        AIRFLOW_VAR_SPARKIFY_MAX_REJECTED_ROWS="abc",
    )
    assert run.returncode != 0
    log = " ".join(re.sub(r"\x1b\[[\d;]*m", "", run.stdout).split())  # 3.0.6 colours and wraps the lines
    assert "Finding new files failed: sparkify_max_rejected_rows is 'abc': set a number from" in log
    assert "The extra of the connection redshift has the key 'ssl_mode'" in log
    assert "UP_FOR_RETRY" not in log


@pytest.mark.parametrize("prefix", ["s3://runs/log_data", "s3://runs/log_data/"])
def test_a_prefix_is_a_folder_with_or_without_its_slash(runs, warehouse, prefix):
    runs.put("log_data_old/1.json", EVENT | {"sessionId": 999})
    runs.put("log_data.json", EVENT | {"sessionId": 998})
    runs.variables |= {"sparkify_log_data": prefix, "sparkify_song_data": "s3://runs/song_data"}
    assert runs()["record_files"]["staging_events"]["files"] == 1
    assert rows(warehouse, "SELECT DISTINCT session_id FROM fact_songplays") == [(818,)]


def test_the_setup_check_reports_the_same(stack):
    with pytest.raises(
        ValueError, match="sparkify_max_rejected_rows is 'abc': set a number from 0 to 100000"
    ):
        Pipeline("sparkify_check_setup").run(
            "setup", variables={"sparkify_max_rejected_rows": "abc"}, to_task="check_settings"
        )
