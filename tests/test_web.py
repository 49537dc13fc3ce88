"""``python -m local web``: Airflow as a user starts it, driven over its REST API."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from tests.web import running_web


@pytest.fixture(scope="module")
def web(metadata, created):
    """Airflow, as before its first run; the last test stops it."""
    with running_web(created) as running:
        yield running


def failures(web, tasks):
    """Return the end of the log of each task that has failed."""
    ends = []
    for task in tasks:
        if task["state"] == "failed":
            place = f"dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
            log = web.ask(f"{quote(place)}/logs/{task['try_number']}")
            ends.append(f"{place}:\n{json.dumps(log)[-3000:]}")
    return "\n".join(ends)


def test_scheduled_and_triggered_runs_end_green_and_nothing_listens_beyond_this_machine(web, created):
    runs = "dags/sparkify_etl/dagRuns"
    web.ask(runs, {"logical_date": None, "note": "by hand"})
    web.ask(runs, {"logical_date": None, "dag_run_id": "checked", "conf": {"check_ledger": True}})
    states: dict[str, str] = {}
    progress: list[tuple[str, str]] = []
    tasks: list[Any] = []
    while len(states) < 3 or set(states.values()) != {"success"}:
        assert "failed" not in states.values(), failures(web, tasks)
        time.sleep(1)
        found = web.ask(runs)["dag_runs"]
        states = {run["dag_run_id"]: run["state"] for run in found}
        tasks = web.ask(f"{runs}/~/taskInstances")["task_instances"]
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
    family = [psutil.Process(web.process.pid), *psutil.Process(web.process.pid).children(recursive=True)]
    listening = set()
    for member in family:
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            listening |= {
                connection.laddr.ip
                for connection in member.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    assert listening == {"127.0.0.1"}


@pytest.mark.parametrize("cleared", ["task", "run"])
def test_a_failed_run_is_cleared_through_the_api_and_succeeds(web, cleared):
    run = f"dags/sparkify_etl/dagRuns/{cleared}"
    web.ask(
        "dags/sparkify_etl/dagRuns",
        {"logical_date": datetime.now(UTC).isoformat(), "dag_run_id": cleared},
    )
    web.ask(run, {"state": "failed"}, "PATCH")
    clear(web, cleared, all_of_it=cleared == "run")
    end = time.monotonic() + 120
    while (state := web.ask(run)["state"]) != "success":
        assert state in ("queued", "running")
        assert time.monotonic() < end, state
        time.sleep(1)


def test_a_task_that_is_cleared_has_all_its_retries_again(web):
    # What the delays of retries rely on.
    task = "dags/sparkify_etl/dagRuns/task/taskInstances/find_new_files"
    before = web.ask(task)
    clear(web, "task")
    assert (before["try_number"], before["max_tries"]) == (1, 3)
    assert web.ask(task)["max_tries"] == 1 + 3


def clear(web, run, *, all_of_it=False):
    if all_of_it:
        web.ask(f"dags/sparkify_etl/dagRuns/{run}/clear", {"dry_run": False})
        return
    choice = {"dag_run_id": run, "task_ids": ["find_new_files"], "include_downstream": True}
    web.ask("dags/sparkify_etl/clearTaskInstances", {**choice, "only_failed": False, "dry_run": False})


def test_changes_asked_for_at_once_are_all_made(web):
    names = [f"changed_{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: web.ask("variables", {"key": name, "value": "1"}), names))
    found = web.ask("variables?variable_key_pattern=changed_")
    assert found["total_entries"] == len(names)


def test_stopping_it_stops_every_part_even_one_that_hangs(web):
    web_process = psutil.Process(web.process.pid)
    web_process.children()[0].suspend()
    parts = web_process.children(recursive=True)
    assert len(parts) >= 4
    web.process.terminate()
    web.process.wait(timeout=60)
    _, alive = psutil.wait_procs(parts, timeout=30)
    assert alive == []
