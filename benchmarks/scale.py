"""
What files cost that were loaded long ago: the ledger and the listing at the end of up to three years.

``python -m benchmarks.scale [FILES]`` starts a stack of its own. For each hour of a month and of one, two and
three years, it writes FILES files (20 by default) to the ledger by SQL, some late and some corrected. Each
time it then runs hours with one new file, and prints what they and an audit read of the ledger, as PostgreSQL
counts its pages: its BRIN indexes of a megabyte stand in for Redshift's zone maps. A prefix of 10,000 keys is
listed on the local S3; what a longer listing costs is computed from that.
"""

import json
import os
import sys
import tempfile
import time
import tracemalloc
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import psycopg

if __name__ == "__main__":  # Airflow reads it when it is first imported
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"

from benchmarks.files import PLAY, memory, song
from benchmarks.local_stack import local_stack
from benchmarks.results import Table, keep
from local.redshift import postgres
from local.settings import REDSHIFT_DATABASE
from sparkify.files import list_prefix, manifest, s3_hook
from sparkify.ledger import LEDGER, Entry, ledger_lines, recorded_files
from sparkify.state import describe_listing
from tests.conftest import SETTINGS, RedshiftSQLHook
from tests.pipeline import Pipeline, S3Hook

YEAR = 8760
AGES = {"1 month": 730, "1 year": YEAR, "2 years": 2 * YEAR, "3 years": 3 * YEAR}  # in hours
ROUNDS = 3
LISTED = 10_000
PAGE = 1000  # keys, https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
MEGABYTE = 1_000_000
BLOCK = 128  # pages of PostgreSQL that are one block of Redshift, 1 MiB
PREFIXES = {
    "sparkify_log_data": "s3://udacity-dend/log_data/",
    "sparkify_song_data": "s3://udacity-dend/song_data/few/",
}
LISTED_PREFIX = "s3://udacity-dend/song_data/listed/"

# Of an hour's files, every 50th was three days in the uploading, whose date is that of its beginning
# (https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html), and every 50th is a new version of
# a file of the week before.
FILL = f"""
INSERT INTO {LEDGER}
SELECT
    'staging_events',
    TO_CHAR(loaded_at - back * INTERVAL '1 hour', '"log_data/"YYYY/MM/DD/HH24"/part-"')
        || LPAD(CAST(number - back * %(files)s AS TEXT), 8, '0') || '.json',
    MD5(hour || '-' || number),
    16000000,
    loaded_at - CASE WHEN number %% 50 = 0 THEN INTERVAL '3 days' ELSE INTERVAL '1 minute' END,
    TO_CHAR(loaded_at, '"scheduled__"YYYY-MM-DD"T"HH24:MI:SS+00:00'),
    loaded_at
FROM
    GENERATE_SERIES(1, %(hours)s) AS hour,
    GENERATE_SERIES(hour * %(files)s, (hour + 1) * %(files)s - 1) AS number,
    LATERAL (
        SELECT
            DATE_TRUNC('hour', LOCALTIMESTAMP) - (%(hours)s - hour) * INTERVAL '1 hour' AS loaded_at,
            CASE WHEN number %% 50 = 1 AND hour > 168 THEN 168 ELSE 0 END AS back
    ) AS file
ORDER BY number
"""


def main(files: int) -> None:
    """
    Print the costs, and keep them.

    :param files: files an hour
    """
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        with (
            local_stack("--data", folder),
            psycopg.connect(SETTINGS.redshift_dsn, autocommit=True) as warehouse,
            psycopg.connect(postgres.dsn(SETTINGS, REDSHIFT_DATABASE), autocommit=True) as server,
        ):
            # Redshift has zone maps alone: it does not weigh them against a scan of all.
            server.execute(f"ALTER DATABASE {REDSHIFT_DATABASE} SET enable_seqscan = off".encode())
            listing = measure_listing()
            hours = Hours(warehouse, server)
            ages = {age: hours.measure(count, files) for age, count in AGES.items()}
    keep("scale", tables(files, listing, ages))


def write_files(data: Path) -> None:
    """Write a file of events and one of songs, which the runs load, and those that are only listed."""
    contents = {"log_data/first.json": json.dumps(PLAY), "song_data/few/1.json": song("few")}
    contents |= {f"song_data/listed/2018/11/30/23/part-{number:08}.json": "{}" for number in range(LISTED)}
    for name, content in contents.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def measure_listing() -> dict[str, float]:
    """List the long prefix, and return what it and what is made of it cost, by key."""
    s3 = s3_hook("aws_default")
    list_prefix(s3, LISTED_PREFIX)  # makes the client
    wall, cpu = time.perf_counter(), time.process_time()
    objects = list_prefix(s3, LISTED_PREFIX).objects
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert len(objects) == LISTED, len(objects)
    described = time.process_time()
    state = describe_listing(LISTED_PREFIX, objects)
    described = time.process_time() - described
    entries = [Entry(item, "loaded") for item in objects]
    tracemalloc.start()
    listing = list_prefix(s3, LISTED_PREFIX)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "wall": wall / LISTED,
        "cpu": (cpu + described) / LISTED,
        "peak": peak / LISTED,
        "manifest": len(manifest(listing.objects)) / LISTED,
        "ledger_file": len(ledger_lines("staging_events", entries, "scheduled__x", datetime.now())) / LISTED,
        "state": len(json.dumps(state)),
    }


class Hours:
    """
    Runs hours with one new file, with ledgers of several sizes.

    :param warehouse: the local Redshift
    :param server: the database behind it, as PostgreSQL's superuser
    """

    def __init__(self, warehouse: psycopg.Connection, server: psycopg.Connection) -> None:
        self.warehouse, self.server = warehouse, server
        self.s3, self.pipeline, self.count = S3Hook(aws_conn_id="aws_default"), Pipeline(), 0
        self.pipeline.run("first", variables=PREFIXES)
        server.execute(f"ALTER TABLE {LEDGER} SET (autovacuum_enabled = off)".encode())  # it reads pages, too

    def measure(self, hours: int, files: int) -> dict[str, float]:
        """
        Return what an hour and an audit read of the ledger at the end of some hours.

        :param hours: how many hours the ledger holds
        :param files: the files of an hour
        """
        filled = "run_id LIKE 'scheduled%'"
        self.server.execute(f"CREATE TEMP TABLE own AS SELECT * FROM {LEDGER} WHERE NOT {filled}".encode())
        self.server.execute(f"TRUNCATE {LEDGER}".encode())
        self.server.execute(FILL.encode(), {"hours": hours, "files": files})
        for statement in f"INSERT INTO {LEDGER} TABLE own", "DROP TABLE own", f"VACUUM ANALYZE {LEDGER}":
            self.server.execute(statement.encode())
        (rows, size) = self.server.execute(
            f"SELECT COUNT(*), PG_RELATION_SIZE('{LEDGER}') FROM {LEDGER}".encode()
        ).fetchone() or (0, 0)
        costs = [self.run() for _ in range(ROUNDS + 1)][1:]  # the first warms up
        held, began = psutil.Process().memory_info().rss, time.perf_counter()
        found = recorded_files(RedshiftSQLHook(redshift_conn_id="redshift"), "staging_events")
        seconds = time.perf_counter() - began
        return {
            "rows": rows,
            "bytes": size,
            **{name: median(cost[name] for cost in costs) for name in costs[0]},
            "keys": len(found),
            "audit_seconds": seconds,
            "audit_memory": memory() * 2**20 - held,
        }

    def run(self) -> dict[str, Any]:
        """Deliver a file, run, and return what the run's statements read of the ledger."""
        self.count += 1
        event = json.dumps(PLAY | {"sessionId": self.count + 1})
        self.s3.load_string(event, f"log_data/{self.count}.json", "udacity-dend")
        began = self.warehouse.execute("SELECT SYSDATE").fetchone()
        pages = self.pages()
        result = self.pipeline.run(f"hour-{self.count}", variables=PREFIXES)
        assert result["record_files"]["staging_events"]["files"] == 1, result
        read = self.pages() - pages
        names = ("statements", "commits", "milliseconds", "known")
        values = self.warehouse.execute(
            "SELECT COUNT(*), SUM(CASE WHEN statement = 'commit' THEN 1 ELSE 0 END),"
            f" SUM(CASE WHEN statement LIKE '%%{LEDGER}%%' THEN duration_ms END),"
            " MAX(CASE WHEN statement LIKE 'SELECT s3_key%%' THEN rows END)"
            " FROM local_statements WHERE client <> '' AND started_at >= %s",
            began,
        ).fetchone()
        return dict(zip(names, map(float, values or ()), strict=True)) | {"blocks": read / BLOCK}

    def pages(self) -> int:
        """Return how many pages of the ledger were read so far."""
        (count,) = self.server.execute(
            "SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = %s", [LEDGER]
        ).fetchone() or (0,)
        return count


def tables(files: int, listing: dict[str, float], ages: dict[str, dict[str, float]]) -> list[Table]:
    """
    Return what is printed.

    :param files: the files of an hour
    :param listing: what :func:`measure_listing` returned
    :param ages: what :meth:`Hours.measure` returned, by age
    """
    first, last = ages["1 month"], ages["3 years"]
    pages = {age: -(-hours * files // PAGE) for age, hours in AGES.items()}
    return [
        Table(
            f"The ledger, with {files} files an hour: what an hour with one new file reads of it",
            ["after", "rows", "MB", "MB read", "keys sent to Airflow", "ms", "ratio"],
            [
                [
                    *(age, int(at["rows"]), at["bytes"] / MEGABYTE, at["blocks"] * 2**20 / MEGABYTE),
                    *(int(at["known"]), at["milliseconds"], at["milliseconds"] / first["milliseconds"]),
                ]
                for age, at in ages.items()
            ],
        ),
        Table(
            "What reads the ledger whole: an audit, or check_ledger",
            ["after", "keys", "s", "MB of memory", "ratio of s"],
            [
                [
                    *(age, int(at["keys"]), at["audit_seconds"], at["audit_memory"] / MEGABYTE),
                    at["audit_seconds"] / first["audit_seconds"],
                ]
                for age, at in ages.items()
            ],
        ),
        Table(
            f"A listing, with {files} files an hour: computed from one of {LISTED:,} keys",
            ["after", "keys", "pages", "s of CPU", "s in all, on the local S3", "MB of memory"],
            [
                [
                    *(age, hours * files, pages[age], listing["cpu"] * hours * files),
                    *(listing["wall"] * hours * files, listing["peak"] * hours * files / MEGABYTE),
                ]
                for age, hours in AGES.items()
            ],
        ),
        Table(
            "What each file costs, and each hour",
            ["", "measured"],
            [
                ["bytes of memory a listed key", listing["peak"]],
                ["ms of CPU a page of 1,000 keys", listing["cpu"] * PAGE * 1000],
                ["bytes of a manifest a new file", listing["manifest"]],
                ["bytes of the file of ledger rows a new file", listing["ledger_file"]],
                ["bytes of the ledger a file, in PostgreSQL", last["bytes"] / last["rows"]],
                ["bytes of the state of a listing, of any length", int(listing["state"])],
                ["statements of an hour without new songs", int(first["statements"])],
                ["commits of an hour without new songs", int(first["commits"])],
            ],
        ),
    ]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
