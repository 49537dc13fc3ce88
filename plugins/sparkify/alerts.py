"""
Messages to people: that a run failed, that a check warns, or that a run is late.

The Airflow variable ``sparkify_alerts`` says whom to tell, and is read only when there is something to tell.
Airflow's own notifiers deliver. Whatever goes wrong with an alert is logged, and never fails a task or a run.

A failure is told once, by whoever knows most of it: the task itself, while it can, with its exception; else
the run, once that has failed, of a task that was killed, or of a run that took too long.
"""

import asyncio
import functools
import html
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec
from urllib.parse import quote

from airflow.configuration import conf
from airflow.sdk import Connection, Variable

from sparkify.compat import AirflowException, AirflowNotFoundException, callbacks_read_xcoms, deadline, redact
from sparkify.errors import error_message

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

P = ParamSpec("P")

VARIABLE = "sparkify_alerts"
LATE_AFTER = timedelta(hours=1)
# Airflow kills a task's process 20 s after its end ([core] task_success_overtime), whatever it still does.
SECONDS = 15
# The log has the rest. Slack takes 40,000 characters of text, and shows the first 4,000.
MAX_LINES, MAX_CHARACTERS = 20, 2000
# https://docs.aws.amazon.com/sns/latest/api/API_Publish.html: less than 100 of ASCII
MAX_SNS_SUBJECT = 99
TOLD = "failure_told"  # the XCom of a task that told of its failure: the number of the try

_FORMS = {
    "smtp": r"[^@\s]+@[^@\s]+",
    "sns": r"arn:[\w-]+:sns:[\w-]+:\d{12}:[\w-]+",
    "slack": r"[\w.-]+",
}
_CLEAR = "then clear the task. Any task may be run again at any time."


class Target(NamedTuple):
    """
    Where alerts go to.

    :param kind: one of ``smtp``, ``sns`` and ``slack``
    :param address: an e-mail address, the ARN of a topic, or the connection of a webhook
    """

    kind: str
    address: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.address}"


class Alert(NamedTuple):
    """
    A message.

    :param subject: one line
    :param text: plain text, its subject not included
    """

    subject: str
    text: str


def targets(variable: str) -> Iterator[str]:
    """
    Return what a value of the variable has for targets, each as it is written.

    :param variable: targets with commas or spaces between them
    """
    return filter(None, re.split(r"[,\s]+", variable))


def target(text: str) -> Target:
    """
    Return a target.

    :param text: such as ``smtp:oncall@example.com``
    :raises ValueError: if it is none; what it begins with is shown alone, for the rest may be a secret
    """
    kind, _, address = text.partition(":")
    if kind not in _FORMS or not re.fullmatch(_FORMS[kind], address):
        raise ValueError(
            f"'{kind}:…' is none of smtp:<e-mail address>, sns:<ARN of a standard topic> and"
            " slack:<connection of an incoming webhook>"
        )
    return Target(kind, address)


def check_targets(variable: str) -> None:
    """
    Check the form of all targets, and that the connections exist which they need.

    :param variable: a value of the variable
    :raises ValueError: names the first target that is wrong, without what may be secret
    """
    for kind, address in [target(text) for text in targets(variable)]:
        conn_id = {"smtp": "smtp_default", "slack": address}.get(kind)
        try:
            if conn_id:
                Connection.get(conn_id)
        except AirflowNotFoundException:
            raise ValueError(
                f"{VARIABLE}: '{kind}:…' needs the Airflow connection {conn_id}, which does not exist. Create"
                " it as .env.example shows."
            ) from None


def _never_failing(tell: Callable[P, None]) -> Callable[P, None]:
    @functools.wraps(tell)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            tell(*args, **kwargs)
        except Exception as error:
            log.error("No alert was sent (%s): %s: %s", tell.__name__, type(error).__name__, error)

    return run


@_never_failing
def task_failed(context: "Context") -> None:
    """
    Tell that a task has failed for good. It is a task's ``on_failure_callback``.

    :param context: the task's context, with its exception if its own process runs this
    """
    error = context.get("exception")
    if callbacks_read_xcoms() and error is None:
        return  # a DAG processor runs this of a lost process, and cannot leave word: run_failed will tell
    ti = context["ti"]
    text = _exception_text(error) if error else "The log has the reason."
    _send(
        f"[{ti.dag_id}] {ti.task_id} failed in run {context['run_id']}",
        text,
        context,
        f"Read the end of the log, which says what to do; {_CLEAR}",
    )
    if callbacks_read_xcoms():
        ti.xcom_push(TOLD, ti.try_number)
    if error:
        # Airflow's web UI shows an exception's traceback below its text, and this below both.
        log.error("%s", text)


@_never_failing
def run_failed(context: "Context") -> None:
    """
    Tell that a run has failed, unless a task of it told. It is a DAG's ``on_failure_callback``.

    :param context: the run's context, with that of the last of its tasks if there is one
    """
    reason: Any = context.get("reason")
    ti: Any = context.get("ti")
    dag = context["dag"]
    failed = f"[{dag.dag_id}] run {context['run_id']} failed"
    if reason == "task_failure":
        if not ti or not callbacks_read_xcoms():
            return
        if ti.xcom_pull(task_ids=ti.task_id, key=TOLD) == ti.try_number:
            return
        _send(
            f"[{dag.dag_id}] {ti.task_id} failed in run {context['run_id']}",
            "The task could not say why: its process was killed (no memory left, a lost worker) or did not"
            " start, or somebody marked the task failed.",
            context,
            f"See how the log ends, and what became of the worker; {_CLEAR}",
        )
    elif reason == "timed_out":
        _send(
            failed,
            f"It took longer than {dag.dagrun_timeout}, the DAG's dagrun_timeout. The rest is skipped.",
            context,
            "Read the log of the task that took so long, mend the cause, and clear what was skipped.",
        )
    else:
        _send(
            failed,
            f"Airflow says: {reason}.",
            context,
            "Look at the run's tasks: one that can never run holds up all that follow. Clear it.",
        )


@_never_failing
def warn(context: "Context", findings: Sequence[str]) -> None:
    """
    Tell what a task warns of, in one message. The task goes on.

    :param context: the task's context
    :param findings: a line each
    """
    if not findings:
        return
    ti = context["ti"]
    _send(
        f"[{ti.dag_id}] {ti.task_id} warns in run {context['run_id']}",
        "\n".join(f"- {finding}" for finding in findings),
        context,
        "Nothing need be done at once: the run goes on. The table etl_quality_results keeps what was found.",
    )


@_never_failing
def report_left_out(context: "Context", staged: Sequence[Mapping[str, Any]]) -> None:
    """
    Report the files that a run quarantined, and kinds of objects that it ignored for the first time.

    :param context: the context of the task that recorded them
    :param staged: what each staging task returned
    """
    ti = context["ti"]
    for result in staged:
        if result["quarantined"]:
            lines = [f"- {url}\n  {reason}" for url, reason in result["quarantined_files"]]
            if more := result["quarantined"] - len(lines):
                lines.append(f"… and {more} more: see etl_files, or the page Sparkify, Pipeline")
            if result["same_cause"]:
                lines.insert(
                    0, "It looks like a change of the source's format: all new files fail the same way."
                )
            _send(
                f"[{ti.dag_id}] {result['quarantined']} files of {result['dataset']} are quarantined",
                "\n".join(lines),
                context,
                "Nothing of these files was loaded; all others were. Upload a corrected file: the next run"
                " loads it. To try the same file again, trigger the DAG with its address as reload_prefix.",
            )
        if result["new_rules"]:
            _send(
                f"[{ti.dag_id}] objects of a new kind are ignored below the prefix of {result['dataset']}",
                "\n".join(f"- {url}: {rule}" for rule, url in result["new_rules"]),
                context,
                "If they are data, upload them as .json, .jsonl or .ndjson, perhaps compressed (.gz, .bz2,"
                " .zst). If not, nothing: later ones of their kind are ignored without an alert.",
            )


async def late_run(context: Mapping[str, Any]) -> None:
    """
    Report that a run has not ended in time. It is the callback of a DAG's ``deadline``.

    :param context: ``dag_run``, as Airflow's REST API shows it, and ``deadline``
    """
    # All that the triggerer waits for shares its loop, which a call of a mail server would hold up.
    await asyncio.to_thread(_late_run, context)


@_never_failing
def _late_run(context: Mapping[str, Any]) -> None:
    run, due = context["dag_run"], str(context["deadline"]["deadline_time"])
    if run["state"] not in ("queued", "running"):
        return  # it has failed, which was told, or it ended just now
    if datetime.fromisoformat(run["queued_at"]) >= datetime.fromisoformat(due):
        return  # a backfill of a past hour, or a run that was cleared later, is not late
    _send(
        f"[{run['dag_id']}] run {run['dag_run_id']} is late",
        f"It is still {run['state']}. It should have ended by {due}.",
        {"dag_id": run["dag_id"], "run_id": run["dag_run_id"]},
        "Open its tasks: the log of a task that runs long or is retried says why. A queued run waits for an"
        " earlier one. Later hours wait for this run, and load what it did not.",
    )


def _exception_text(error: BaseException | str) -> str:
    if isinstance(error, str):
        return error
    message = error_message(error)
    # The project's own errors are sentences. Others, such as a KeyError, mean little without their class.
    return message if isinstance(error, AirflowException) else f"{type(error).__name__}: {message}"


def _send(subject: str, what: str, where: Mapping[str, Any], to_do: str) -> None:
    """
    Send an alert to all targets, one after the other. None may use up the time of those that follow.

    :param subject: its first line
    :param what: what happened
    :param where: the context: a task's, a run's, or ``dag_id`` and ``run_id`` alone
    :param to_do: what to do
    """
    names = list(targets(Variable.get(VARIABLE, default=None) or ""))
    if not names:
        return
    subject = " ".join(str(redact(subject)).split())
    alert = Alert(subject, f"{_cut(str(redact(what)))}\n\n{_place(where)}\n\nWhat to do: {to_do}\n")
    end = time.monotonic() + SECONDS
    threads = []
    for number, name in enumerate(names):
        thread = Thread(target=_deliver, args=(name, number + 1, alert), daemon=True)
        thread.start()
        thread.join((end - time.monotonic()) / (len(names) - number))
        threads.append(thread)
    for number, thread in enumerate(threads):
        thread.join(max(0, end - time.monotonic()))
        if thread.is_alive():
            log.error(
                "No alert to target %s of the variable %s: no answer in %s s. Is its server reached?",
                *(number + 1, VARIABLE, SECONDS),
            )


def _cut(text: str) -> str:
    kept = "\n".join(text.strip().splitlines()[:MAX_LINES])[:MAX_CHARACTERS]
    return kept if kept == text.strip() else f"{kept}\n… (cut: the log has all of it)"


def _place(where: Mapping[str, Any]) -> str:
    ti = where.get("ti")
    dag_id = where["dag_id"] if "dag_id" in where else where["dag"].dag_id
    page = (
        f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/dags/{dag_id}/runs/{quote(where['run_id'])}"
    )
    lines = [f"DAG: {dag_id}", f"Run: {where['run_id']}"]
    if ti:
        # Airflow 3.0 sets the log's address in the task's own process alone.
        task_log = ti.log_url or f"{page}/tasks/{ti.task_id}?try_number={ti.try_number}"
        lines += [f"Task: {ti.task_id}, try {ti.try_number}", f"Log: {task_log}"]
    else:
        lines += [f"Page: {page}"]
    return "\n".join(lines)


def _deliver(name: str, number: int, alert: Alert) -> None:
    try:
        kind, address = target(name)
    except ValueError as error:
        log.error("No alert to target %s of the variable %s: %s", number, VARIABLE, error)
        return
    try:
        notifier = _NOTIFIERS[kind](address, alert)
        # A call of the notifier itself would render the text as a template, and it may hold anything.
        notifier.notify({"dag": None})
        log.info("Sent an alert to %s: %s", name, alert.subject)
    except Exception as error:
        log.error(
            "No alert to %s: %s: %s. %s",
            *(name, type(error).__name__, redact(str(error)), _ADVICE[kind].format(address)),
        )


def _smtp(address: str, alert: Alert) -> Any:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    text = re.sub(r'https?://[^\s"]+', r'<a href="\g<0>">\g<0></a>', html.escape(alert.text, quote=False))
    return SmtpNotifier(
        to=address,
        subject=alert.subject,
        html_content=f'<pre style="white-space: pre-wrap; font-size: 14px">{text}</pre>',
    )


def _sns(address: str, alert: Alert) -> Any:
    from airflow.providers.amazon.aws.notifications.sns import SnsNotifier

    return SnsNotifier(
        target_arn=address,
        region_name=address.split(":")[3],
        subject=alert.subject.encode("ascii", "replace").decode()[:MAX_SNS_SUBJECT],
        message=f"{alert.subject}\n\n{alert.text}",
    )


def _slack(address: str, alert: Alert) -> Any:
    from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

    # https://docs.slack.dev/messaging/formatting-message-text/#escaping
    text = html.escape(f"*{alert.subject}*\n{alert.text}", quote=False)
    return SlackWebhookNotifier(slack_webhook_conn_id=address, text=text, timeout=SECONDS)


_NOTIFIERS: dict[str, Callable[[str, Alert], Any]] = {"smtp": _smtp, "sns": _sns, "slack": _slack}
_ADVICE = {
    "smtp": "Does the connection smtp_default name a mail server that is reached from here, and from_email in"
    " its extra?",
    "sns": "Is there such a topic, and may the identity of the connection aws_default do sns:Publish on {0}?",
    "slack": "Is apache-airflow-providers-slack installed, and is the webhook's address the password of the"
    " connection {0}, of type slackwebhook?",
}

#: The arguments of a DAG.
ALERTS: dict[str, Any] = {
    "on_failure_callback": run_failed,
    **deadline(LATE_AFTER, late_run),
}
#: The default arguments of its tasks.
TASK_ALERTS: dict[str, Any] = {"on_failure_callback": task_failed}
