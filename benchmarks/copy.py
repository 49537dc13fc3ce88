"""
What COPY costs: events from JSON on S3, against PostgreSQL's own COPY of the same rows as ready text.

``python -m benchmarks.copy [EVENTS]`` starts a stack of its own with EVENTS events (500,000 by default) in
daily files, loads them both ways, and keeps rows per second, their ratio, and what memory the local Redshift
held.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
import psycopg

if __name__ == "__main__":  # Airflow reads it when it is first imported
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"

from benchmarks.local_stack import local_stack
from benchmarks.results import Table, keep
from local.redshift.postgres import Postgres
from local.sample import write_sample
from local.settings import REDSHIFT_ROLE
from tests.conftest import _HOME, REPOSITORY, SETTINGS

COPY = f"""
COPY staging_events FROM 's3://udacity-dend/log_data/' IAM_ROLE '{REDSHIFT_ROLE}'
REGION 'us-west-2' FORMAT AS JSON 'auto ignorecase' TIMEFORMAT 'epochmillisecs'
"""
ROUNDS = 3


def main(events: int) -> None:
    """
    Print how fast both ways are.

    :param events: how many events to load
    """
    with tempfile.TemporaryDirectory() as folder:
        write_sample(Path(folder) / "data", events=events)
        with local_stack("--data", f"{folder}/data"):
            measure()


def measure() -> None:
    """Load the events both ways."""
    server = Postgres(SETTINGS)
    server.start()  # adopts the one that runs
    process = psutil.Process(int((_HOME / "run" / "redshift.pid").read_text()))
    ddl = (REPOSITORY / "include" / "sql" / "ddl" / "staging_events.sql").read_text()
    with (
        psycopg.connect(SETTINGS.redshift_dsn, autocommit=True) as redshift,
        psycopg.connect(server.dsn, autocommit=True) as postgres,
        tempfile.TemporaryFile() as text,
    ):
        redshift.execute(ddl.encode())
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(ROUNDS):
            postgres.execute("TRUNCATE staging_events")
            began = time.perf_counter()
            redshift.execute(COPY)
            ours.append(time.perf_counter() - began)
            if not theirs:
                with postgres.cursor().copy("COPY staging_events TO STDOUT") as out:
                    for chunk in out:
                        text.write(chunk)
            text.seek(0)
            postgres.execute("TRUNCATE staging_events")
            began = time.perf_counter()
            with postgres.cursor().copy("COPY staging_events FROM STDIN") as into:
                while chunk := text.read(1 << 20):
                    into.write(chunk)
            theirs.append(time.perf_counter() - began)
        held = sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])
        (rows,) = redshift.execute("SELECT COUNT(*) FROM staging_events").fetchone() or (0,)
    seconds = {"COPY of JSON from S3": median(ours), "PostgreSQL's COPY of ready text": median(theirs)}
    keep(
        "copy",
        [
            Table(
                f"{rows:,} events, medians of {ROUNDS}",
                ("", "seconds", "rows a second", "ratio"),
                [(what, took, rows / took, took / median(theirs)) for what, took in seconds.items()],
            ),
            Table(
                "Memory of the local Redshift and its workers, without PostgreSQL",
                ("", "MB"),
                [("after these loads", held / 1e6)],
            ),
        ],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500_000)
