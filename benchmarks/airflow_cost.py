"""
What Airflow costs, and what this project adds: parsing the DAGs, running a task, the memory of a task.

``python -m benchmarks.airflow_cost`` starts a stack of its own, with Airflow's database. Each file of DAGs is
parsed in new processes, an empty one beside them. Then Airflow's own command runs a DAG of tasks that do
nothing, a first load and an idle hour of ``sparkify_etl``; and single tasks, each in a process whose memory
is known when it has ended. What a scheduler, an executor and an API server of their own take is not measured.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psycopg

from benchmarks.local_stack import local_stack
from benchmarks.peers.report import task_seconds
from benchmarks.results import Table, keep
from local.airflow import AIRFLOW
from tests.conftest import REPOSITORY, SETTINGS

ROUNDS = 3
TASKS = 20
DATE = "2018-12-01"
EMPTY_DAG = """
from datetime import datetime
from airflow.sdk import dag

@dag(schedule=None, start_date=datetime(2018, 11, 1))
def empty():
    pass

empty()
"""
IDLE_TASKS = f"""
from datetime import datetime
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import chain, dag

@dag(schedule=None, start_date=datetime(2018, 11, 1))
def idle():
    chain(*(PythonOperator(task_id=f"task_{{n}}", python_callable=lambda: None) for n in range({TASKS})))

idle()
"""
# As Airflow's DAG processor does it again and again: what the files themselves import of Airflow was imported
# by a process whose objects no garbage collection looks at any more, and which forks to parse each file.
PARSE = """
import gc, importlib, json, os, sys, time
from airflow.models import DagBag
from airflow.utils.file import iter_airflow_imports
for file in sys.argv[1:]:
    for module in iter_airflow_imports(file):
        importlib.import_module(module)
gc.collect()
gc.freeze()
for file in sys.argv[1:]:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    before, wall, cpu = len(sys.modules), time.perf_counter(), time.process_time()
    bag = DagBag(dag_folder=file)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert not bag.import_errors and len(bag.dags) == 1, bag.import_errors
    print(json.dumps({"wall": wall, "cpu": cpu, "modules": len(sys.modules) - before}), flush=True)
    os._exit(0)
"""


@dataclass(frozen=True)
class Done:
    """
    What a process has cost.

    :param output: what it printed
    :param seconds: from its start to its end
    :param cpu: seconds of CPU
    :param megabytes: the most memory that it held
    """

    output: str
    seconds: float
    cpu: float
    megabytes: float


def main() -> None:
    """Measure, print and keep all of it."""
    with tempfile.TemporaryDirectory() as folder, local_stack("--airflow"):
        (Path(folder) / "empty.py").write_text(EMPTY_DAG)
        (Path(folder) / "idle.py").write_text(IDLE_TASKS)
        parsing = measure_parsing([Path(folder) / "empty.py", *sorted((REPOSITORY / "dags").glob("*.py"))])
        elsewhere = {"AIRFLOW__CORE__DAGS_FOLDER": folder}
        runs = {
            f"{TASKS} tasks that do nothing": airflow("dags", "test", "idle", **elsewhere),
            "`sparkify_etl`, a first load": airflow("dags", "test", "sparkify_etl"),
        }
        warehouse = warehouse_seconds()
        runs["`sparkify_etl`, an idle hour"] = airflow("dags", "test", "sparkify_etl")
        tasks = {
            "`import airflow.sdk`, no task": run([sys.executable, "-c", "import airflow.sdk"]),
            "a task that does nothing": airflow("tasks", "test", "idle", "task_0", DATE, **elsewhere),
            **{
                f"`{task}`": airflow("tasks", "test", "sparkify_etl", task, DATE)
                for task in ("find_new_files", "stage_songs")
            },
        }
    keep("airflow", tables(parsing, runs, warehouse, tasks))


def measure_parsing(files: list[Path]) -> dict[str, dict[str, float]]:
    """Parse each file in new processes, in turns, and return the medians."""
    found: dict[str, list[dict[str, float]]] = {file.name: [] for file in files}
    for _ in range(ROUNDS):
        lines = run([sys.executable, "-c", PARSE, *files]).output.splitlines()
        for costs, line in zip(found.values(), (line for line in lines if line[:1] == "{"), strict=True):
            costs.append(json.loads(line))
    return {
        name: {what: median(each[what] for each in rounds) for what in rounds[0]}
        for name, rounds in found.items()
    }


def airflow(*command: str, **variables: str) -> Done:
    """Run a command of Airflow, with some more variables."""
    return run([AIRFLOW, *command], variables)


def run(command: list[str | Path], variables: Mapping[str, str] | None = None) -> Done:
    """
    Run a command, and return what it has cost.

    :raises CalledProcessError: if it fails
    """
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | (variables or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, text[-5000:])
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Done(text, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / unit)


def warehouse_seconds() -> float:
    """Return how long the statements of the DAGs have taken so far."""
    with psycopg.connect(SETTINGS.redshift_dsn) as warehouse:
        (milliseconds,) = warehouse.execute(
            "SELECT SUM(duration_ms) FROM local_statements WHERE client = 'sparkify_etl'"
        ).fetchone() or (0,)
    return float(milliseconds) / 1000


def tables(
    parsing: dict[str, dict[str, float]], runs: dict[str, Done], warehouse: float, tasks: dict[str, Done]
) -> list[Table]:
    """
    Return what is printed.

    :param parsing: what :func:`measure_parsing` returned
    :param runs: each ``airflow dags test``
    :param warehouse: seconds of the warehouse's statements in the first load
    :param tasks: each ``airflow tasks test``, and a process without a task
    """
    in_tasks = {name: list(task_seconds(done.output).values()) for name, done in runs.items()}
    of_nothing, of_first_load, _ = in_tasks.values()
    base = tasks["a task that does nothing"].megabytes
    return [
        Table(
            "Parsing a file of DAGs, as Airflow does every 30 seconds",
            ["file", "ms", "ms of CPU", "modules imported", "ms more than an empty DAG"],
            [
                [
                    *(name, cost["wall"] * 1000, cost["cpu"] * 1000, int(cost["modules"])),
                    (cost["wall"] - parsing["empty.py"]["wall"]) * 1000,
                ]
                for name, cost in parsing.items()
            ],
        ),
        Table(
            "`airflow dags test` of a run, in one process",
            ["run", "tasks", "s", "s of CPU", "s before, between and after its tasks", "s in its first task"],
            [
                [name, len(each), done.seconds, done.cpu, done.seconds - sum(each), each[0]]
                for (name, done), each in zip(runs.items(), in_tasks.values(), strict=True)
            ],
        ),
        Table(
            "What of it is work: Airflow's first task in a process starts an API server in it",
            ["", "s"],
            [
                ["each task more that does nothing", median(of_nothing[1:])],
                ["first load: its tasks but the first", sum(of_first_load[1:])],
                ["first load: of that in the warehouse's statements", warehouse],
            ],
        ),
        Table(
            "The most memory of a process that ran one task (`airflow tasks test`)",
            ["process", "MB", "MB more than the task that does nothing"],
            [[name, done.megabytes, done.megabytes - base] for name, done in tasks.items()],
        ),
    ]


if __name__ == "__main__":
    main()
