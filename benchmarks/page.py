"""
How long the page in Airflow's web UI takes to answer, when it must ask the warehouse and when it need not.

``python -m benchmarks.page [PLAYS]`` starts a stack of its own, loads a month, multiplies it backwards in
time to PLAYS plays (500,000 by default), and asks the page's server for what the view "Listening" shows, of
the last 28 days and of all time, one question after the other. The yardstick is the same SQL on one
connection.
"""

import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from statistics import median
from typing import Any

import psycopg

if __name__ == "__main__":  # Airflow reads it when it is first imported
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"

from tests.conftest import SETTINGS, bound  # sets Airflow up

# isort: split
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi.testclient import TestClient

from benchmarks.growth import Month
from benchmarks.local_stack import local_stack
from benchmarks.results import Table, keep
from sparkify.tables import SQL_FOLDER
from sparkify.web.questions import QUESTIONS, answer

ROUNDS = 3
ASKED = [name for name, question in QUESTIONS.items() if "range_start" in question.parameters]
RANGES = {"28 days": datetime(2018, 11, 3), "all time": datetime(1900, 1, 1)}
END = datetime(2018, 12, 1)


def main(plays: int) -> None:
    """
    Print the times.

    :param plays: the plays of the fact table
    """
    with (
        local_stack("--airflow"),
        psycopg.connect(SETTINGS.redshift_dsn, autocommit=True) as warehouse,
    ):
        measure(warehouse, plays)


def measure(warehouse: psycopg.Connection, plays: int) -> None:
    """
    Load a month, multiply it, and print what each range costs.

    :param warehouse: a connection in autocommit
    :param plays: the plays to multiply it to
    """
    Month(warehouse).multiply(plays)
    client = TestClient(create_app(), base_url="http://localhost:8080")
    user = SimpleAuthManagerUser(username="ann", role="viewer")
    client.cookies.set("_token", get_auth_manager().generate_jwt(user))
    times = []
    for label, start in RANGES.items():
        values = {"range_start": f"'{start}'", "range_end": f"'{END}'"}
        sql = [bound(SQL_FOLDER / "analytics" / f"{name}.sql", values).encode() for name in ASKED]

        def by_page(start: datetime = start) -> None:
            for name in ASKED:
                query: dict[str, Any] = {"range_start": start.isoformat(), "range_end": END.isoformat()}
                client.get(f"/sparkify/api/{name}", params=query).raise_for_status()

        def by_sql(sql: list[bytes] = sql) -> None:
            for statement in sql:
                warehouse.execute(statement).fetchall()

        new, kept, direct = [], [], []
        for _ in range(ROUNDS):
            answer.cache.clear()
            new.append(seconds(by_page))
            kept.append(seconds(by_page))
            direct.append(seconds(by_sql))
        times.append((label, median(new), median(kept), median(direct), median(new) / median(direct)))
    keep(
        "page",
        [
            Table(
                f"{len(ASKED)} answers about {plays:,} plays, medians of {ROUNDS}",
                ("of", "seconds", "seconds, asked again", "seconds by SQL alone", "ratio to that"),
                times,
            )
        ],
    )


def seconds(work: Callable[[], None]) -> float:
    """Return how long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500_000)
