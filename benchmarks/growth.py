"""
What an hour costs as the fact table grows: the same new events, with little and with much behind them.

``python -m benchmarks.growth [PLAYS]`` starts a stack of its own, loads a month, then multiplies it backwards
in time to PLAYS plays (3,000,000 by default), and runs five hours of new events at each size. It prints what
an hour costs the warehouse, and what of it are the checks, as the local Redshift measured its statements: the
median of five, and the ratio.
"""

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from statistics import median

import psycopg

os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"  # Airflow reads it when it is first imported

from benchmarks.local_stack import local_stack
from tests.conftest import SETTINGS
from tests.pipeline import Pipeline, S3Hook

HOURS = 5
EVENTS_PER_HOUR = 60
NOW = datetime(2018, 12, 1, tzinfo=UTC)
COLUMNS = "user_id, level, song_id, artist_id"
REST = "item_in_session, song_title, artist_name, duration, location, user_agent"


def main(plays: int) -> None:
    """
    Print the cost of an hour at both sizes.

    :param plays: the plays of the larger fact table
    """
    with local_stack(), psycopg.connect(SETTINGS.redshift_dsn, autocommit=True) as warehouse:
        measure(warehouse, plays)


def measure(warehouse: psycopg.Connection, plays: int) -> None:
    """
    Load a month, then measure before and after it has been multiplied.

    :param warehouse: a connection in autocommit
    :param plays: the plays to multiply it to
    """
    s3, pipeline = S3Hook(aws_conn_id="aws_default"), Pipeline()
    pipeline.run("first")
    warehouse.execute("CREATE TABLE month (LIKE fact_songplays)")
    warehouse.execute("INSERT INTO month SELECT * FROM fact_songplays")
    used = {number for (number,) in warehouse.execute("SELECT session_id FROM month").fetchall()}
    unused = sorted(set(range(1, max(used))) - used)
    small = hours(warehouse, s3, pipeline, "small", unused)
    copies = multiply(warehouse, plays)
    far_back = [number - copies // 2 * max(used) for number in unused]
    large = hours(warehouse, s3, pipeline, "large", far_back)
    for what in ("an hour", "its checks"):
        print(f"ratio {median(large[what]) / median(small[what]):.2f} of {what}")


def hours(
    warehouse: psycopg.Connection, s3: S3Hook, pipeline: Pipeline, label: str, unused: list[int]
) -> dict[str, list[float]]:
    """
    Run the hours, print their cost and return it, in milliseconds.

    :param warehouse: a connection in autocommit
    :param s3: the hook of the local S3
    :param pipeline: runs the DAG
    :param label: tells the hours from others
    :param unused: numbers of sessions that were drawn long ago and have no plays yet
    """
    for table in ("fact_songplays", "dim_time", "etl_sessions"):
        warehouse.execute(f"VACUUM {table}".encode())
        warehouse.execute(f"ANALYZE {table}".encode())
    costs: dict[str, list[float]] = {"an hour": [], "its checks": []}
    for hour in range(HOURS + 1):  # the first warms up
        s3.load_string(new_events(label, hour, unused[hour]), f"log_data/{label}-{hour}.json", "udacity-dend")
        began = warehouse.execute("SELECT SYSDATE").fetchone()
        result = pipeline.run(f"{label}-{hour}")
        assert result["load_fact_songplays"]["inserted"] == EVENTS_PER_HOUR, result
        spent = warehouse.execute(
            "SELECT SUM(duration_ms), SUM(CASE WHEN statement LIKE '%%check_number%%'"
            " OR statement LIKE '%%etl_quality_results%%' THEN duration_ms END)"
            " FROM local_statements WHERE client <> '' AND started_at >= %s",
            began,
        ).fetchone() or (0, 0)
        for of_what, cost in zip(costs.values(), spent, strict=True):
            of_what.append(float(cost))
    (count,) = warehouse.execute("SELECT COUNT(*) FROM fact_songplays").fetchone() or (0,)
    costs = {what: each[1:] for what, each in costs.items()}
    for what, each in costs.items():
        print(f"{count:>9,} plays: {median(each):.0f} ms {what} {[round(cost) for cost in each]}")
    slowest = warehouse.execute(
        "SELECT duration_ms, rows, LEFT(statement, 70) FROM local_statements"
        " WHERE client <> '' AND started_at >= %s ORDER BY duration_ms DESC LIMIT 3",
        began,
    ).fetchall()
    for duration, row_count, statement in slowest:
        print(f"    {duration:7.1f} ms  {row_count}  {' '.join(statement.split())}")
    return costs


def multiply(warehouse: psycopg.Connection, plays: int) -> int:
    """Put copies of the month before it, the oldest first, as if loaded in their time; return how many."""
    (month, newest) = warehouse.execute("SELECT COUNT(*), MAX(session_id) FROM month").fetchone() or (0, 0)
    warehouse.execute("DELETE FROM fact_songplays")
    warehouse.execute("DELETE FROM dim_time")
    for copy in range(plays // month, -1, -1):
        session = f"session_id - {copy * newest}"
        key = f"MD5(CAST({session} AS VARCHAR) || '-' || CAST(item_in_session AS VARCHAR))"
        moment = f"DATEADD(day, {-30 * copy}, start_time)"
        rows = f"SELECT {key}, {moment}, {COLUMNS}, {session}, {REST} FROM month"
        warehouse.execute(f"INSERT INTO fact_songplays {rows}".encode())
    warehouse.execute(
        "INSERT INTO dim_time SELECT start_time, 0, 0, 0, 0, 0, 0"
        " FROM (SELECT DISTINCT start_time FROM fact_songplays ORDER BY start_time) AS times"
    )
    warehouse.execute("DELETE FROM etl_sessions")
    warehouse.execute(
        "INSERT INTO etl_sessions SELECT DISTINCT session_id, DATE_TRUNC('hour', start_time)"
        " FROM fact_songplays ORDER BY session_id"
    )
    return plays // month


def new_events(label: str, hour: int, old_session: int) -> str:
    """Return an hour's events: plays of a new session, and one of a listener who was away for long."""
    began = NOW + timedelta(hours=hour + (100 if label == "large" else 0))
    events = [
        {
            "page": "NextSong",
            "userId": str(2 + hour % 40),
            "sessionId": 100_000 + hour + (1000 if label == "large" else 0),
            "itemInSession": item,
            "ts": int((began + timedelta(minutes=item)).timestamp() * 1000) + 796,
            "level": "paid",
            "song": f"Song {item}",
            "artist": "Somebody",
            "length": 200.5,
        }
        for item in range(EVENTS_PER_HOUR)
    ]
    events[-1] |= {"sessionId": old_session}
    return "\n".join(map(json.dumps, events))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3_000_000)
