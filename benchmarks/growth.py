"""
What an hour costs as the fact table grows: the same new events, with little and with much behind them.

``python -m benchmarks.growth [PLAYS …]`` starts a stack of its own, loads a month, and multiplies it
backwards in time to each number of PLAYS (10 thousand, 1, 3 and 10 million by default). At each, it runs
hours of new events: five of new sessions, and five with a play of a listener who was away for long, whose
session lies in the middle of the table. It prints the medians of what an hour costs: the time of its tasks;
of that, the time of its statements and of the checks' statements, as the local Redshift measured them; how
many they are; what they read of the tables that grow. Beside them stands what it costs to write all plays
anew, as a pipeline does that does not know what is new; it would first have to COPY all files.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import NamedTuple

import psycopg

if __name__ == "__main__":  # Airflow reads it when it is first imported
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"

from benchmarks.local_stack import local_stack
from benchmarks.results import Table, keep
from local.redshift import postgres
from local.settings import REDSHIFT_DATABASE
from sparkify.tables import STAGING
from tests.conftest import SETTINGS
from tests.pipeline import Pipeline, S3Hook

SIZES = (10_000, 1_000_000, 3_000_000, 10_000_000)
HOURS = 5
EVENTS_PER_HOUR = 60
NOW = datetime(2018, 12, 1, tzinfo=UTC)
PAGES_PER_MB = 128  # PostgreSQL's
COLUMNS = "user_id, level, song_id, artist_id"
REST = "item_in_session, song_title, artist_name, duration, location, user_agent"

#: The tables that grow with time, and are not read whole.
GROWING = ("fact_songplays", "dim_time", "etl_sessions", "etl_files")
READ = "SELECT SUM(heap_blks_read + heap_blks_hit) FROM pg_statio_user_tables WHERE relname = ANY(%s)"
SPENT = """
SELECT
    SUM(duration_ms),
    SUM(CASE WHEN statement LIKE '%%check_number%%' OR statement LIKE '%%etl_quality%%' THEN duration_ms END),
    COUNT(*)
FROM local_statements
WHERE client <> '' AND started_at >= %s
"""


class Cost(NamedTuple):
    """
    What an hour costs.

    :param tasks: milliseconds from the start of the first task to the end of the last
    :param warehouse: of these, milliseconds of statements
    :param checks: of these, milliseconds of the checks' statements
    :param statements: how many
    :param read: MB of the tables that grow, as often as each is read
    """

    tasks: float
    warehouse: float
    checks: float
    statements: float
    read: float


COLUMNS_OF_COST = ("tasks, ms", "warehouse, ms", "checks, ms", "statements", "MB read of what grows")


class Month:
    """
    A loaded month, of which the warehouse can be filled with copies.

    :param warehouse: a connection to an empty warehouse, in autocommit
    """

    def __init__(self, warehouse: psycopg.Connection) -> None:
        self.warehouse, self.pipeline = warehouse, Pipeline()
        self.pipeline.run("first")
        self.run("CREATE TABLE month (LIKE fact_songplays)")
        self.run("INSERT INTO month SELECT * FROM fact_songplays")
        used = {number for (number,) in warehouse.execute("SELECT session_id FROM month").fetchall()}
        self.newest, self.unused = max(used), sorted(set(range(1, max(used))) - used)

    def run(self, statement: str) -> float:
        """Run a statement, and return how many milliseconds it took."""
        began = time.perf_counter()
        self.warehouse.execute(statement.encode())
        return (time.perf_counter() - began) * 1000

    def number(self, select: str) -> int:
        """Return the one number that a SELECT yields."""
        ((number,),) = self.warehouse.execute(select.encode()).fetchall()
        return int(number)

    def multiply(self, plays: int) -> int:
        """
        Replace the plays by copies of the month, each before the last, as if loaded in their time.

        :param plays: at least so many there are then
        :return: how many copies
        """
        copies = -(-plays // self.number("SELECT COUNT(*) FROM month"))
        for table in ("fact_songplays", "dim_time", "etl_sessions"):
            self.run(f"TRUNCATE {table}")
        for copy in range(copies - 1, -1, -1):
            session = f"session_id - {copy * self.newest}"
            key = f"MD5(CAST({session} AS VARCHAR) || '-' || CAST(item_in_session AS VARCHAR))"
            moment = f"DATEADD(day, {-30 * copy}, start_time)"
            rows = f"SELECT {key}, {moment}, {COLUMNS}, {session}, {REST} FROM month"
            self.run(f"INSERT INTO fact_songplays {rows}")
        self.run(
            "INSERT INTO dim_time SELECT start_time, 0, 0, 0, 0, 0, 0"
            " FROM (SELECT DISTINCT start_time FROM fact_songplays ORDER BY start_time) AS times"
        )
        self.run(
            "INSERT INTO etl_sessions SELECT DISTINCT session_id, DATE_TRUNC('hour', start_time)"
            " FROM fact_songplays ORDER BY session_id"
        )
        for table in (*GROWING, *STAGING):  # as Redshift does by itself, and less soon
            self.run(f"VACUUM {table}")
            self.run(f"ANALYZE {table}")
        return copies


class Growth:
    """
    The hours.

    :param month: what is behind them
    :param server: a connection to the PostgreSQL behind the warehouse, which counts what is read
    """

    def __init__(self, month: Month, server: psycopg.Connection) -> None:
        self.month, self.server = month, server
        self.s3 = S3Hook(aws_conn_id="aws_default")
        self.hours = 0

    def cost_of_hour(self, old_session: int | None = None) -> Cost:
        """
        Run the pipeline with an hour's new events, and return what that cost.

        :param old_session: the number of a session that was drawn long ago and has no plays yet, if the last
            play is of one
        """
        self.hours += 1
        self.s3.load_string(
            new_events(self.hours, old_session), f"log_data/{self.hours}.json", "udacity-dend"
        )
        since, read = self.month.warehouse.execute("SELECT SYSDATE").fetchone(), self.read()
        began = time.perf_counter()
        result = self.month.pipeline.run(f"hour-{self.hours}")
        took = (time.perf_counter() - began) * 1000
        assert result["load_fact_songplays"]["inserted"] == EVENTS_PER_HOUR, result
        ((warehouse, checks, statements),) = self.month.warehouse.execute(SPENT, since).fetchall()
        read = self.read() - read
        return Cost(took, float(warehouse), float(checks), float(statements), read / PAGES_PER_MB)

    def read(self) -> int:
        """Return how many pages of the growing tables were read so far."""
        ((pages,),) = self.server.execute(READ, [list(GROWING)]).fetchall()
        return int(pages)

    def measure(self, plays: int) -> dict[str, Cost]:
        """
        Return the medians of what hours cost behind so many plays, by what is in them.

        :param plays: at least so many
        """
        far_back = self.month.multiply(plays) // 2 * self.month.newest
        self.cost_of_hour()  # warms up
        new, returning = [], []
        for number in range(HOURS):
            new.append(self.cost_of_hour())
            returning.append(self.cost_of_hour(self.month.unused[number] - far_back))
        return {
            what: Cost(*(median(each) for each in zip(*costs, strict=True)))
            for what, costs in (("an hour", new), ("an hour with a listener who was long away", returning))
        }


def new_events(hour: int, old_session: int | None) -> str:
    """Return an hour's events: plays of a new session, the last of them perhaps of an old one."""
    began = NOW + timedelta(hours=hour)
    events = [
        {
            "page": "NextSong",
            "userId": str(2 + hour % 40),
            "sessionId": 100_000 + hour,
            "itemInSession": item,
            "ts": int((began + timedelta(minutes=item)).timestamp() * 1000) + 796,
            "level": "paid",
            "song": f"Song {item}",
            "artist": "Somebody",
            "length": 200.5,
        }
        for item in range(EVENTS_PER_HOUR)
    ]
    if old_session is not None:
        events[-1] |= {"sessionId": old_session}
    return "\n".join(map(json.dumps, events))


def main(sizes: tuple[int, ...]) -> None:
    """
    Print and keep the cost of an hour at each size, and its ratio to that at the smallest.

    :param sizes: the plays behind it, the fewest first
    """
    with (
        local_stack(),
        psycopg.connect(SETTINGS.redshift_dsn, autocommit=True) as warehouse,
        psycopg.connect(postgres.dsn(SETTINGS, REDSHIFT_DATABASE), autocommit=True) as server,
    ):
        month = Month(warehouse)
        growth = Growth(month, server)
        found = []
        for size in sizes:
            costs = growth.measure(size)
            plays = month.number("SELECT COUNT(*) FROM fact_songplays")
            month.run("CREATE TABLE anew (LIKE fact_songplays)")
            anew = month.run("INSERT INTO anew SELECT * FROM fact_songplays")
            month.run("DROP TABLE anew")
            found.append((plays, costs, anew))
            print(f"{plays:,} plays: {costs}, written anew {anew:,.0f} ms", flush=True)
    keep("growth", [table(what, found) for what in found[0][1]])


def table(what: str, found: Sequence[tuple[int, Mapping[str, Cost], float]]) -> Table:
    """
    Return the table of one kind of hour.

    :param what: the kind
    :param found: of each size, the plays, what hours cost by kind, and milliseconds to write all plays anew
    """
    figures = [(*costs[what], anew) for _, costs, anew in found]
    ratios = [large / small for small, large in zip(figures[0], figures[-1], strict=True)]
    return Table(
        f"{what[0].upper()}{what[1:]}",
        ("plays behind it", *COLUMNS_OF_COST, "all plays written anew, ms"),
        [
            *((f"{plays:,}", *of_size) for (plays, *_), of_size in zip(found, figures, strict=True)),
            ("ratio of the last to the first", *ratios),
        ],
    )


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or SIZES)
