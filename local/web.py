"""Airflow's web UI and scheduler in the foreground of this process: the heart of ``make web``."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from local.settings import LocalError

START_SECONDS = 180
LOG_LINES = 15


def serve(log_file: Path, port: int, environment: Mapping[str, str]) -> int:
    """
    Run Airflow until it is interrupted or ends.

    :param log_file: where its log goes
    :param port: TCP port of the web UI, on 127.0.0.1
    :param environment: the variables that point Airflow at the local stack
    :return: Airflow's exit code
    :raises LocalError: if Airflow does not come up
    """
    url = f"http://localhost:{port}"
    folder = Path(sys.executable).parent
    variables = {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",  # where it looks for its own command
    }
    log_file.parent.mkdir(parents=True, exist_ok=True)
    print(f"Starting Airflow; its log is {log_file}", flush=True)
    with (
        log_file.open("w") as log,
        subprocess.Popen(
            [folder / "airflow", "standalone"],
            env=os.environ | environment | variables,
            stdout=log,
            stderr=log,
        ) as airflow,
    ):
        try:
            _wait(airflow, url, log_file)
            passwords = Path(environment["AIRFLOW_HOME"], "simple_auth_manager_passwords.json.generated")
            for user, password in json.loads(passwords.read_text()).items():
                print(f"Airflow is up: {url}, user {user}, password {password} (Ctrl-C stops it)", flush=True)
            return airflow.wait()
        finally:
            airflow.terminate()


def _wait(airflow: subprocess.Popen[bytes], url: str, log_file: Path) -> None:
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    deadline = time.monotonic() + START_SECONDS
    while airflow.poll() is None and time.monotonic() < deadline:
        with (
            suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=5) as answer,
        ):
            health = json.load(answer)
            if all(health[part]["status"] == "healthy" for part in parts):
                return
        time.sleep(0.5)
    end = "\n".join(log_file.read_text(errors="replace").splitlines()[-LOG_LINES:])
    raise LocalError(f"Airflow did not come up. The end of {log_file}:\n{end}")
