"""
Runs every ``tests/sql/<table>/<case>/case.yaml``: rows given, rows expected of the task that loads the table.

A case holds ``given`` and ``expect``; in both a row may leave columns out. Columns that are NOT NULL and left
out of a given row get a default; columns left out of an expected row are not compared. ``task`` names the
loading task if it isn't ``load_<table>``, and ``params`` are the run's parameters. Times are UTC.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.models import DagBag

from sparkify.tables import STAGING
from tests.conftest import REPOSITORY, context

CASES = sorted(Path(__file__).parent.glob("*/*/case.yaml"))
DEFAULTS: dict[str, dict[str, Any]] = {
    "staging_events": {"sessionid": 1, "ts": datetime(2018, 11, 1)},
    "fact_songplays": {
        "songplay_id": "x",
        "start_time": datetime(2018, 11, 1),
        "user_id": "8",
        "session_id": 1,
    },
    "dim_users": {"last_event_at": datetime(2018, 11, 1)},
}
COUNTED = {"staging_events": "iteminsession", "fact_songplays": "item_in_session"}


def with_defaults(table: str, rows: list[dict]) -> Iterator[dict]:
    for number, row in enumerate(rows):
        counted = {COUNTED[table]: number} if table in COUNTED else {}
        yield {**counted, **DEFAULTS.get(table, {}), **row}


def rendered(task, params=None):
    task = task.prepare_for_execution()
    before = {"within": "1 = 1", "indexed": "1 = 1", "manifest": None}
    ti = SimpleNamespace(xcom_pull=lambda task_ids: before)
    task.render_template_fields(context(ti=ti, params=params or {}))
    return task


@pytest.fixture(scope="module")
def tasks():
    return DagBag(dag_folder=str(REPOSITORY / "dags")).dags["sparkify_etl"].task_dict


@pytest.mark.parametrize("path", CASES, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_case(path, warehouse, tasks):
    case = yaml.safe_load(path.read_text())
    table = path.parts[-3]
    for given, rows in case["given"].items():
        for row in with_defaults(given, rows):
            columns, places = ", ".join(row), ", ".join(["%s"] * len(row))
            warehouse.run(f"INSERT INTO {given} ({columns}) VALUES ({places})", parameters=list(row.values()))
    for staging in STAGING:
        warehouse.run(f"INSERT INTO etl_batches VALUES ('{staging}', 'run 1', 1, SYSDATE)")
    rendered(tasks[case.get("task", f"load_{table}")], case.get("params")).execute(context())
    compared = sorted({column for row in case["expect"] for column in row}) or ["1"]
    found = [
        dict(zip(compared, values, strict=True))
        for values in warehouse.get_records(f"SELECT {', '.join(compared)} FROM {table}")
    ]
    missing = [row for row in case["expect"] if not any(row.items() <= other.items() for other in found)]
    assert missing == [], found
    assert len(found) == len(case["expect"]), found


def test_every_transform_has_its_tables_columns_in_order(warehouse, tasks):
    for task in tasks.values():
        if task.task_id.startswith(("load_", "relink_")):
            task = rendered(task)
            assert columns(warehouse, f"SELECT * FROM ({task.sql}) AS batch") == columns(
                warehouse, f"SELECT * FROM {task.table}"
            )


def columns(warehouse, sql: str) -> list[str]:
    warehouse.get_first(f"{sql} LIMIT 0")
    return [column[0] for column in warehouse.last_description]
