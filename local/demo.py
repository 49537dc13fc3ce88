"""One run of the pipeline against the local stack, with a line for each step: the heart of ``make demo``."""

import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from local.airflow import AIRFLOW
from local.settings import REPOSITORY, LocalError

# 2026-11-22T20:23:37.516835Z [info     ] message   [logger] key=value …
_LINE = re.compile(r"\S+ \[(?P<level>\w+) *\] (?P<message>.*?) +\[(?P<logger>[\w.]+)\]")
_STARTING = re.compile(r"\[DAG TEST\] starting task_id=(\w+)")
_OUR_LOGGERS = ("airflow.task.operators.sparkify.", "sparkify.")


def run_pipeline(log_file: Path, environment: Mapping[str, str]) -> float:
    """
    Run ``airflow dags test sparkify_etl``, and show what the project's tasks log.

    :param log_file: where the whole log goes
    :param environment: the variables that point Airflow at the stack, which is up, with Airflow's database
    :return: seconds that the run took, without Airflow's own set-up
    :raises LocalError: if the run fails
    """
    command = [AIRFLOW, "dags", "test", "sparkify_etl"]
    print(f"$ airflow dags test sparkify_etl  # whole log: {log_file}", flush=True)
    began = time.monotonic()
    with (
        log_file.open("w") as log,
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as run,
    ):
        for line in run.stdout or ():
            log.write(line)
            _show(line)
    if run.returncode:
        raise LocalError(f"The run failed; its log is {log_file}")
    return time.monotonic() - began


def _show(line: str) -> None:
    if starting := _STARTING.search(line):
        print(f"  {starting[1]}", flush=True)
    elif (entry := _LINE.match(line)) and (
        entry["logger"].startswith(_OUR_LOGGERS) or entry["level"] in ("error", "critical")
    ):
        if entry["message"].startswith("passed: "):  # there are some 80 of them, and a line that counts them
            return
        print(f"    {entry['message'].strip()}", flush=True)
