"""``python -m local web``: Airflow as a user starts it, driven over its REST API."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from sparkify.tables import TABLES
from tests.conftest import REPOSITORY, SETTINGS, free_port


def request(url, token=None, body=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
            return json.load(answer)
    except OSError as error:  # no answer in time, or one that it is refused
        logs = sorted((SETTINGS.home / "log").glob("airflow-*.log"))
        ends = "\n".join(f"{path}:\n{path.read_text()[-10_000:]}" for path in logs)
        raise AssertionError(f"{url}: {error}\n{ends}") from error


@pytest.fixture(scope="module")
def web(metadata, created):
    """The process, its address, and an API token of the user it names; the last test stops it."""
    # Before it starts, for its scheduler begins with a run at once.
    created.run([f"DELETE FROM {table}" for table in TABLES])
    command = [sys.executable, "-m", "local", "web"]
    environment = os.environ | {"SPARKIFY_WEB_PORT": str(free_port())}
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(2)]
        url, user, password = re.findall(r"up: (\S+), user (\S+), password (\S+)", "".join(lines))[0]
        login = {"username": user, "password": password}
        yield process, url, request(f"{url}/auth/token", body=login)["access_token"]
        process.terminate()


def test_scheduled_and_triggered_runs_end_green_and_nothing_listens_beyond_this_machine(web, created):
    process, url, token = web
    runs = f"{url}/api/v2/dags/sparkify_etl/dagRuns"
    request(runs, token, {"logical_date": None, "note": "by hand"})
    request(runs, token, {"logical_date": None, "dag_run_id": "checked", "conf": {"check_ledger": True}})
    states: dict[str, str] = {}
    progress: list[tuple[str, str]] = []
    while len(states) < 3 or set(states.values()) != {"success"}:
        assert "failed" not in states.values()
        time.sleep(1)
        found = request(runs, token)["dag_runs"]
        states = {run["dag_run_id"]: run["state"] for run in found}
        tasks = request(f"{runs}/~/taskInstances", token)["task_instances"]
        before, progress = progress, sorted((task["id"], str(task["state"])) for task in tasks)
        if progress != before:  # a busy machine is slow, which is no fault: standing still is
            deadline = time.monotonic() + 120
        assert time.monotonic() < deadline, progress
    assert {run["run_type"] for run in found} == {"manual", "scheduled"}
    assert {task["try_number"] for task in tasks} <= {0, 1}  # a skipped task has not been tried
    notes = {run["dag_run_id"]: run["note"] for run in found}
    assert "by hand" in notes.values()
    assert notes["checked"].startswith("Loaded staging_events: ")
    assert created.get_first("SELECT COUNT(*) FROM fact_songplays")[0] > 6000
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    listening = set()
    for member in family:
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            listening |= {
                connection.laddr.ip
                for connection in member.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    assert listening == {"127.0.0.1"}


def test_changes_asked_for_at_once_are_all_made(web):
    _, url, token = web
    variables = f"{url}/api/v2/variables"
    names = [f"changed_{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: request(variables, token, {"key": name, "value": "1"}), names))
    found = request(f"{variables}?variable_key_pattern=changed_", token)
    assert found["total_entries"] == len(names)


def test_stopping_it_stops_every_part_even_one_that_hangs(web):
    process, *_ = web
    web_process = psutil.Process(process.pid)
    web_process.children()[0].suspend()
    parts = web_process.children(recursive=True)
    assert len(parts) >= 4
    process.terminate()
    process.wait(timeout=60)
    _, alive = psutil.wait_procs(parts, timeout=30)
    assert alive == []
