"""Alerts, as a mail server, SNS and a webhook receive them."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from sparkify import alerts, compat
from tests.conftest import REPOSITORY, free_port
from tests.mail import ONCALL, smtp_connection
from tests.web import running_web

AIRFLOW = str(Path(sys.executable).with_name("airflow"))
DAGS = Path(__file__).with_name("alerts")
RUN = "scheduled__2026-11-27T10:00:00+00:00"
VERSIONS = "SELECT dag_id, version_number FROM dag_version WHERE bundle_name = 'alerts' ORDER BY dag_id"


class Task(SimpleNamespace):
    """A task instance that keeps its XComs."""

    dag_id, task_id, try_number, log_url = "sparkify_etl", "check_star", 2, "http://airflow/log"

    def __init__(self) -> None:
        super().__init__(xcoms={})

    def xcom_push(self, key, value):
        self.xcoms[key] = value

    def xcom_pull(self, task_ids, key):
        assert task_ids == self.task_id
        return self.xcoms.get(key)


def context(**changes: Any) -> Any:
    dag = SimpleNamespace(dag_id="sparkify_etl", dagrun_timeout="6:00:00")
    return {"ti": Task(), "dag": dag, "run_id": RUN, **changes}


def failure(text="2 of 24 checks failed: dim_users: one row per user_id") -> Any:
    return context(exception=RuntimeError(text))


# --- What a message says ---


def test_a_failed_task_is_told_with_its_exception_its_log_and_what_to_do(mailbox):
    alerts.task_failed(failure())
    (message,) = mailbox.messages
    assert message["Subject"] == f"[sparkify_etl] check_star failed in run {RUN}"
    assert (message["To"], message["From"]) == ("oncall@example.com", "airflow@example.com")
    text = mailbox.text()
    assert "RuntimeError: 2 of 24 checks failed: dim_users: one row per user_id" in text
    assert f"DAG: sparkify_etl\nRun: {RUN}\nTask: check_star, try 2\n" in text
    assert '<a href="http://airflow/log">http://airflow/log</a>' in text
    assert "What to do: Read the end of the log" in text


def test_warnings_come_as_one_message(mailbox):
    alerts.warn(context(), ["every song is known: 3 rows do not", "every play has a user: 1 rows do not"])
    assert mailbox.subjects() == [f"[sparkify_etl] check_star warns in run {RUN}"]
    assert "- every song is known: 3 rows do not\n- every play has a user: 1 rows do not\n" in mailbox.text()


def test_without_a_finding_nothing_is_told(mailbox):
    alerts.warn(context(), [])
    assert mailbox.messages == []


def test_text_arrives_as_it_is_and_is_no_template(mailbox):
    alerts.task_failed(failure("{{ var.value.sparkify_iam_role }} <b>0 & 1</b>"))
    assert "{{ var.value.sparkify_iam_role }} &lt;b&gt;0 &amp; 1&lt;/b&gt;" in mailbox.text()


def test_a_long_text_is_cut_and_says_so(mailbox):
    alerts.task_failed(failure("\n".join(["a line"] * 10_000)))
    alerts.task_failed(failure("x" * 300_000))
    assert mailbox.text(0).count("a line") == 20
    assert all("… (cut: the log has all of it)" in mailbox.text(number) for number in (0, 1))
    assert len(mailbox.text(1)) < 4000


def test_no_secret_that_airflow_knows_shows(mailbox, logged):
    from airflow.sdk.log import mask_secret

    mask_secret("correct-horse-battery")
    alerts.task_failed(failure("password correct-horse-battery was refused"))
    assert "password *** was refused" in mailbox.text()


# --- Who tells, and when ---


def run_context(reason, ti=None):
    return context(ti=ti, reason=reason)


@pytest.fixture
def with_xcoms(monkeypatch):
    monkeypatch.setattr(alerts, "callbacks_read_xcoms", lambda: True)


def test_a_failure_that_the_task_told_is_not_told_again_by_the_run(mailbox, with_xcoms):
    told = failure()
    alerts.task_failed(told)
    alerts.run_failed(run_context("task_failure", told["ti"]))
    assert len(mailbox.messages) == 1


def test_of_a_task_that_could_not_tell_the_run_tells(mailbox, with_xcoms):
    lost = context()  # as a DAG processor makes it, without an exception
    alerts.task_failed(lost)
    assert mailbox.messages == []
    alerts.run_failed(run_context("task_failure", lost["ti"]))
    assert mailbox.subjects() == [f"[sparkify_etl] check_star failed in run {RUN}"]
    assert "its process was killed" in mailbox.text()


def test_what_an_earlier_try_told_does_not_silence_a_later_one(mailbox, with_xcoms):
    told = failure()
    alerts.task_failed(told)
    told["ti"].try_number += 1
    alerts.run_failed(run_context("task_failure", told["ti"]))
    assert len(mailbox.messages) == 2


def test_where_a_run_cannot_know_what_its_tasks_told_every_task_tells(mailbox):
    alerts.task_failed(context())
    alerts.run_failed(run_context("task_failure", Task()))
    assert mailbox.subjects() == [f"[sparkify_etl] check_star failed in run {RUN}"]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("timed_out", "It took longer than 6:00:00, the DAG's dagrun_timeout"),
        ("all_tasks_deadlocked", "Airflow says: all_tasks_deadlocked"),
    ],
)
@pytest.mark.parametrize("ti", [None, Task()], ids=["no task", "a task"])
def test_a_run_that_fails_by_itself_is_told(mailbox, reason, told, ti):
    alerts.run_failed(run_context(reason, ti))
    assert mailbox.subjects() == [f"[sparkify_etl] run {RUN} failed"]
    assert told in mailbox.text()


def late(state, queued_at="2026-11-27T10:00:03Z"):
    run = {"dag_id": "sparkify_etl", "dag_run_id": RUN, "state": state, "queued_at": queued_at}
    deadline = {"deadline_time": datetime(2026, 11, 27, 11, tzinfo=UTC)}
    asyncio.run(alerts.late_run(context={"dag_run": run, "deadline": deadline}))


def test_a_late_run_is_told_unless_it_has_ended(mailbox):
    late("failed")
    late("success")
    assert mailbox.messages == []
    late("running")
    assert mailbox.subjects() == [f"[sparkify_etl] run {RUN} is late"]
    assert "It is still running. It should have ended by 2026-11-27 11:00:00+00:00." in mailbox.text()
    assert f"/dags/sparkify_etl/runs/{RUN.replace(':', '%3A').replace('+', '%2B')}" in mailbox.text()


def test_a_run_of_a_past_hour_is_not_late_when_it_is_queued(mailbox):
    late("queued", queued_at="2026-11-28T08:00:00Z")
    assert mailbox.messages == []


# --- The other targets ---


def test_sns_publishes_the_message_in_the_topics_region(stack, monkeypatch):
    aws: Any = {
        **{"endpoint_url": stack.s3_url, "region_name": "eu-west-1"},
        **{"aws_access_key_id": "local", "aws_secret_access_key": "local"},
    }
    with closing(boto3.client("sns", **aws)) as sns, closing(boto3.client("sqs", **aws)) as sqs:
        topic = sns.create_topic(Name="alerts")["TopicArn"]
        queue = sqs.create_queue(QueueName="alerts")["QueueUrl"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:eu-west-1:123456789012:alerts")
        monkeypatch.setenv("AIRFLOW_VAR_SPARKIFY_ALERTS", f"sns:{topic}")
        alerts.task_failed(context(exception=RuntimeError("Zürich"), run_id=f"manual__Zürich_{'x' * 100}"))
        (received,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    message = json.loads(received["Body"])
    assert message["Subject"].startswith("[sparkify_etl] check_star failed in run manual__Z?rich_xxx")
    assert len(message["Subject"]) == 99
    assert "RuntimeError: Zürich" in message["Message"]
    assert "Log: http://airflow/log" in message["Message"]


@contextmanager
def webhook(status=200):
    """A server that takes a webhook's messages."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"ok" if status == 200 else b"no_service")

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/services/T0/B0/token-of-the-webhook", received
        server.shutdown()
        thread.join()


def slack_connection(url):
    return json.dumps({"conn_type": "slackwebhook", "password": url})


def test_slack_shows_the_message(monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_SPARKIFY_ALERTS", "slack:alerts_webhook")
    with webhook() as (url, received):
        monkeypatch.setenv("AIRFLOW_CONN_ALERTS_WEBHOOK", slack_connection(url))
        alerts.task_failed(failure("<!channel> & more"))
    (message,) = received
    assert message["text"].startswith(f"*[sparkify_etl] check_star failed in run {RUN}*\n")
    assert "RuntimeError: &lt;!channel&gt; &amp; more\n" in message["text"]


# --- What goes wrong with alerts stays there ---


@pytest.mark.parametrize("value", ["", " , "])
def test_without_targets_nothing_is_sent(monkeypatch, logged, value):
    def refuse(self, *address):
        raise AssertionError(f"connected to {address or self}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("AIRFLOW_VAR_SPARKIFY_ALERTS", value)
    alerts.task_failed(failure())
    alerts.run_failed(run_context("timed_out"))
    alerts.warn(context(), ["a finding"])
    late("running")
    assert "No alert" not in logged()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            "smpt:oncall@example.com",
            "target 1 of the variable sparkify_alerts: 'smpt:…' is none of smtp:<e-mail",
        ),
        ("oncall@example.com", "'oncall@example.com:…' is none of smtp:<e-mail address>"),
        ("https://hooks.slack.com/services/T/B/key", "'https:…' is none of smtp:"),
        ("slack:https://hooks.slack.com/services/T/B/key", "'slack:…' is none of smtp:"),
        ("sns:arn:aws:sns:eu-west-1:123456789012:alerts.fifo", "'sns:…' is none of smtp:"),
        (
            "sns:arn:aws:sns:eu-west-1:123456789012:no_such",
            "may the identity .* do sns:Publish on arn:aws:sns",
        ),
        (
            "slack:no_such_connection",
            "slack:no_such_connection: .* the password of the connection",
        ),
    ],
)
def test_a_broken_target_is_logged_and_the_others_get_theirs(
    stack, mailbox, monkeypatch, logged, broken, said
):
    monkeypatch.setenv("AIRFLOW_VAR_SPARKIFY_ALERTS", f"{broken}, {ONCALL}")
    alerts.task_failed(failure())
    log = logged()
    assert len(re.findall(f"No alert .*{said}", log)) == 1, log
    assert "T/B/key" not in log
    assert len(mailbox.messages) == 1


def test_without_the_slack_provider_the_log_says_what_to_install(mailbox, monkeypatch, logged):
    monkeypatch.setitem(sys.modules, "airflow.providers.slack.notifications.slack_webhook", None)
    monkeypatch.setenv("AIRFLOW_VAR_SPARKIFY_ALERTS", f"slack:alerts_webhook {ONCALL}")
    alerts.task_failed(failure())
    assert "No alert to slack:alerts_webhook: ModuleNotFoundError" in (log := logged())
    assert "Is apache-airflow-providers-slack installed" in log
    assert len(mailbox.messages) == 1


def test_a_webhook_that_is_gone_is_logged_without_its_address(monkeypatch, logged):
    monkeypatch.setenv("AIRFLOW_VAR_SPARKIFY_ALERTS", "slack:alerts_webhook")
    with webhook(status=404) as (url, _):
        monkeypatch.setenv("AIRFLOW_CONN_ALERTS_WEBHOOK", slack_connection(url))
        alerts.task_failed(failure())
    assert "No alert to slack:alerts_webhook: " in (log := logged())
    assert "token-of-the-webhook" not in log


def test_a_dead_mail_server_is_logged(monkeypatch, logged):
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", smtp_connection(free_port()))
    monkeypatch.setenv("AIRFLOW_VAR_SPARKIFY_ALERTS", ONCALL)
    alerts.task_failed(failure())
    said = r"No alert to smtp:oncall@example.com: ConnectionRefusedError: .* Does the connection smtp_default"
    assert len(re.findall(said, logged())) == 1


def test_a_mail_server_that_never_answers_delays_nothing_for_long(monkeypatch, logged):
    monkeypatch.setattr(alerts, "SECONDS", 4)
    with socket.create_server(("127.0.0.1", 0)) as silent, webhook() as (url, received):
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", smtp_connection(silent.getsockname()[1]))
        monkeypatch.setenv("AIRFLOW_CONN_ALERTS_WEBHOOK", slack_connection(url))
        monkeypatch.setenv("AIRFLOW_VAR_SPARKIFY_ALERTS", f"{ONCALL} slack:alerts_webhook")
        began = time.monotonic()
        alerts.task_failed(failure())
        assert time.monotonic() - began < 6
    assert len(received) == 1
    assert "No alert to target 1 of the variable sparkify_alerts: no answer in 4 s" in logged()


def test_a_context_that_is_not_as_expected_fails_nothing(mailbox, logged):
    broken: Any = {"reason": "timed_out", "exception": RuntimeError()}
    alerts.task_failed(broken)
    alerts.run_failed(broken)
    alerts.warn(broken, ["a finding"])
    asyncio.run(alerts.late_run({}))
    assert logged().count("No alert was sent (") == 4


# --- In Airflow's own processes ---


def failed_run(dag):
    """Return the log of a failed run of ``airflow dags test``."""
    run = subprocess.run(
        [AIRFLOW, "dags", "test", dag],
        cwd=REPOSITORY,
        env=os.environ | {"AIRFLOW__CORE__DAGS_FOLDER": str(DAGS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode != 0
    assert "Executing on_failure dag callback: run_failed" in run.stdout
    return run.stdout


def test_a_failed_run_of_dags_test_sends_one_message(metadata, mailbox):
    log = failed_run("alerts_failing")
    assert "No alert" not in log
    (subject,) = mailbox.subjects()
    assert re.fullmatch(r"\[alerts_failing\] fail failed in run manual__\S+", subject)
    if compat.CALLBACKS_READ_XCOMS:  # `dags test` of 3.0.6 does not give the exception to the callback
        assert "ValueError: 2 of 24 checks failed" in mailbox.text()
    assert re.search(r"Log: .*/dags/alerts_failing/runs/manual__\S+/tasks/fail", mailbox.text())


def test_without_the_variable_nothing_is_sent_and_nothing_is_logged(metadata, mailbox, monkeypatch):
    monkeypatch.delenv("AIRFLOW_VAR_SPARKIFY_ALERTS")
    assert not re.search("(No|an) alert", failed_run("alerts_failing"))
    assert mailbox.messages == []


def test_where_nobody_is_to_be_told_nothing_is_put_together(monkeypatch, logged):
    monkeypatch.setenv("AIRFLOW_VAR_SPARKIFY_ALERTS", "")
    bare: Any = {"ti": SimpleNamespace(dag_id="a", task_id="b"), "run_id": "c"}  # has no address of its log
    alerts.warn(bare, ["something"])
    assert "No alert" not in logged()


def test_scheduler_triggerer_and_dag_processor_tell_each_once(created, metadata, mailbox, monkeypatch):
    bundle = {"name": "alerts", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle"}
    bundles = json.dumps([bundle | {"kwargs": {"path": str(DAGS)}}])
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", bundles)
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL", "1")
    expected = {
        "[alerts_failing] fail failed in run by_test": "ValueError: 2 of 24 checks failed",
        "[alerts_timed_out] run by_test failed": "It took longer than 0:00:05",
    }
    if compat.CALLBACKS_READ_XCOMS:
        expected["[alerts_killed] die failed in run by_test"] = "its process was killed"
    if compat.DeadlineAlert is not None:
        expected["[alerts_late] run by_test is late"] = "It is still running. It should have ended by "
    with running_web(created) as web:
        wait_for(lambda: len(metadata.execute(VERSIONS).fetchall()) == 4)
        for dag in ("alerts_failing", "alerts_timed_out", "alerts_killed", "alerts_late"):
            now = datetime.now(UTC).isoformat()
            web.ask(f"dags/{dag}/dagRuns", {"logical_date": now, "dag_run_id": "by_test"})
        wait_for(lambda: len(mailbox.messages) >= len(expected))
        time.sleep(5)  # a second message of the same would come right after the first
    assert sorted(mailbox.subjects()) == sorted(expected)
    assert len(metadata.execute(VERSIONS).fetchall()) == 4  # reading the file again makes no new ones
    for number, subject in enumerate(mailbox.subjects()):
        assert expected[subject] in mailbox.text(number)
        assert "/runs/by_test" in mailbox.text(number)


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)
