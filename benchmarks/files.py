"""
What many files cost: thousands in one run, and three new ones among many that are loaded.

``python -m benchmarks.files [NEW] [KNOWN]`` starts a stack of its own. It loads NEW song objects (15,000 by
default) in one run; then it records KNOWN (100,000) in the ledger, and runs once more with three new ones. It
prints what each run took, by task, the ratio of the second to a run with three new ones among a thousand, and
the most memory that the process held.
"""

import json
import os
import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"  # Airflow reads it when it is first imported

from benchmarks.local_stack import local_stack

# What is above tells Airflow where its settings are, and Python where the plugins are.
# isort: split

from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook

from sparkify.files import list_prefix
from sparkify.ledger import ledger_lines
from sparkify.sql import copy_json
from tests.pipeline import Pipeline, S3Hook

FEW = 1000
PLAY = {"sessionId": 1, "itemInSession": 0, "page": "NextSong", "userId": "8", "ts": 1541106000796}
PLAY |= {"level": "free"}
WORK = "s3://sparkify-etl/benchmark"


def main(new: int, known: int) -> None:
    """
    Print what the runs cost.

    :param new: objects of the first run
    :param known: keys below the prefix in the last one
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_songs(data, "few", FEW)
        write_songs(data, "new", new)
        write_songs(data, "known", known - new)
        (data / "log_data").mkdir()
        (data / "log_data" / "1.json").write_text(json.dumps(PLAY))
        with local_stack("--data", folder):
            measure(new, known)


def measure(new: int, known: int) -> None:
    """Run with few, new and known objects, and print what each run took."""
    print(f"before the runs, the process held {memory():.0f} MB")
    few = Bench("few")
    few.run(f"{FEW:,} new objects")
    among_few = few.run(f"3 new objects among {FEW:,}", more=3)
    many = Bench("new")
    many.run(f"{new:,} new objects")
    many.prefixes["sparkify_song_data"] = "s3://udacity-dend/song_data/"
    many.record("s3://udacity-dend/song_data/")
    among_many = many.run(f"3 new objects among {known + FEW:,}", more=3)
    print(f"ratio {among_many / among_few:.2f}")


class Bench:
    """
    One run after another over a part of the songs.

    :param part: its folder below ``song_data/``
    """

    def __init__(self, part: str) -> None:
        self.s3, self.pipeline, self.runs = S3Hook(aws_conn_id="aws_default"), Pipeline(), 0
        self.prefixes = {"sparkify_song_data": f"s3://udacity-dend/song_data/{part}/"}

    def run(self, what: str, more: int = 0) -> float:
        """Run once, with some more objects; print and return the seconds that it took."""
        prefix = self.prefixes["sparkify_song_data"].removeprefix("s3://udacity-dend/")
        for number in range(more):
            self.s3.load_string(
                song(f"MORE{number}"), f"{prefix}more/{number}.json", "udacity-dend", replace=True
            )
        seconds: dict[str, float] = {}
        self.runs += 1
        with timed_tasks(self.pipeline, seconds):
            result = self.pipeline.run(f"{prefix}-{self.runs}", variables=self.prefixes)
        account = result["record_files"]["staging_songs"]
        total = sum(seconds.values())
        slowest = sorted(seconds.items(), key=lambda item: -item[1])[:5]
        print(f"{what}: {total:.1f} s, {account['files']:,} files staged, peak {memory():.0f} MB")
        print("    " + ", ".join(f"{task} {took:.1f} s" for task, took in slowest))
        return total

    def record(self, prefix: str) -> None:
        """Write all objects of a prefix to the ledger, as if they had been loaded."""
        objects = list_prefix(self.s3, prefix).objects
        lines = ledger_lines("staging_songs", objects, "before", datetime(2018, 11, 1))
        self.s3.load_string(lines, "benchmark/ledger.json", "sparkify-etl")
        role = os.environ["AIRFLOW_VAR_SPARKIFY_IAM_ROLE"]
        copy = copy_json("etl_files", f"{WORK}/ledger.json", iam_role=role, region="us-west-2")
        RedshiftSQLHook(redshift_conn_id="redshift").run(
            ["DELETE FROM etl_files", f"{copy}\nTIMEFORMAT 'auto'"]
        )


@contextmanager
def timed_tasks(pipeline: Pipeline, seconds: dict[str, float]) -> Any:
    """Note how long each task takes."""
    execute = pipeline._execute

    def timed(task: Any, run: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(task, run)
        finally:
            seconds[task.task_id] = time.perf_counter() - began

    pipeline._execute = timed  # type: ignore[method-assign]
    yield
    del pipeline._execute


def write_songs(data: Path, part: str, count: int) -> None:
    """Write one file for each of some songs."""
    for number in range(count):
        path = data / "song_data" / part / f"{number % 100:02}" / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(song(f"{part}{number}"))


def song(name: str) -> str:
    """Return a song object."""
    fields = {"num_songs": 1, "song_id": f"SO{name}", "title": name, "artist_id": f"AR{name[-3:]}"}
    return json.dumps(fields | {"artist_name": "Somebody", "duration": 200.5, "year": 0})


def memory() -> float:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    numbers = [int(number) for number in sys.argv[1:]]
    main(numbers[0] if numbers else 15_000, numbers[1] if numbers[1:] else 100_000)
