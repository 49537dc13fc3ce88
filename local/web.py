"""Airflow's web UI, scheduler, DAG processor and triggerer on this machine: the heart of ``make web``."""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil

from local.airflow import AIRFLOW, migrate
from local.settings import LocalError, Settings
from local.stack import stop_processes

START_SECONDS = 180
LOG_LINES = 15

# What `airflow standalone` runs, but without the log servers, which would listen on every network interface:
# all parts read logs from the one folder. The scheduler comes last: a task that it starts before the API
# server answers fails, and is tried again only minutes later.
PARTS = {
    "api-server": ["api-server"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
}


def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """
    Run Airflow until it is interrupted, or until one of its parts ends.

    :param settings: port of the web UI, on 127.0.0.1, and folder of the parts' logs, ``airflow-<part>.log``
    :param environment: the variables that point Airflow at the local stack
    :raises LocalError: if a part does not come up, or ends
    """
    log_folder = settings.home / "log"
    url = f"http://localhost:{settings.web_port}"
    variables = {
        **os.environ,
        **environment,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(settings.web_port),
        "AIRFLOW__API__WORKERS": "1",  # Airflow 3.0 starts four, which end each other on a slow machine
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the parts end with this process
    print(f"Starting Airflow; its logs are {log_folder}/airflow-*.log", flush=True)
    parts: dict[str, psutil.Popen] = {}
    try:
        migrate(settings, variables)
        for part, command in PARTS.items():
            if part == "scheduler":
                _wait(["metadatabase"], parts, url, log_folder)
            with (log_folder / f"airflow-{part}.log").open("w") as log:
                parts[part] = psutil.Popen([AIRFLOW, *command], env=variables, stdout=log, stderr=log)
        _wait(["scheduler", "dag_processor", "triggerer"], parts, url, log_folder)
        passwords = Path(environment["AIRFLOW_HOME"], "simple_auth_manager_passwords.json.generated")
        for user, password in json.loads(passwords.read_text()).items():
            print(f"Airflow is up: {url}, user {user}, password {password} (Ctrl-C stops it)", flush=True)
        print(
            f"  {url}/dags/sparkify_etl  the pipeline, which runs now, every hour, and by Trigger", flush=True
        )
        if not version("apache-airflow").startswith("3.0."):  # which has no place for pages
            print(f"  {url}/plugin/sparkify    what it found, under Sparkify in the navigation", flush=True)
        while True:
            _refuse_ended(parts, log_folder)
            time.sleep(1)
    finally:
        stop_processes(list(parts.values()))


def _wait(healthy: Sequence[str], parts: Mapping[str, psutil.Popen], url: str, log_folder: Path) -> None:
    """Wait until the API server calls all of these healthy."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        _refuse_ended(parts, log_folder)
        with (
            suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=5) as answer,
        ):
            health = json.load(answer)
            if all(health[part]["status"] == "healthy" for part in healthy):
                return
        time.sleep(0.5)
    raise LocalError(f"Airflow is not healthy after {START_SECONDS} s; see {log_folder}/airflow-*.log")


def _refuse_ended(parts: Mapping[str, psutil.Popen], log_folder: Path) -> None:
    for part, process in parts.items():
        if process.poll() is not None:
            raise LocalError(_ended(log_folder, part))


def _ended(log_folder: Path, part: str) -> str:
    log_file = log_folder / f"airflow-{part}.log"
    end = "\n".join(log_file.read_text(errors="replace").splitlines()[-LOG_LINES:])
    return f"Airflow's {part} has ended. The end of {log_file}:\n{end}"
