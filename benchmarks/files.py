"""
What many files cost: thousands in one run, and three new ones among many that are loaded.

``python -m benchmarks.files [NEW] [KNOWN]`` starts a stack of its own. It loads NEW song objects (15,000 by
default) in one run; then it records KNOWN (100,000) in the ledger, and runs once more with three new ones. It
keeps what each run took, beside one with three new ones among a thousand, and the most memory that the
process held.
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

if __name__ == "__main__":  # Airflow reads it when it is first imported
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"

from benchmarks.local_stack import local_stack
from benchmarks.results import Table, keep

# What is above tells Airflow where its settings are, and Python where the plugins are.
# isort: split

from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook

from sparkify.files import list_prefix
from sparkify.ledger import Entry, ledger_lines
from sparkify.sql import copy_json
from tests.pipeline import Pipeline, S3Hook

FEW = 1000
SHOWN = ("find_new_files", "stage_songs", "check_star")
PLAY = {"sessionId": 1, "itemInSession": 0, "page": "NextSong", "userId": "8", "ts": 1541106000796}
PLAY |= {"level": "free"}
WORK = "s3://sparkify-etl/benchmark"


def main(new: int, known: int) -> None:
    """
    Measure what the runs cost.

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
    """Run with few, new and known objects, and keep what each run took."""
    before = memory()
    few = Bench("few")
    many = Bench("new")
    runs = [
        few.run(f"{FEW:,} new objects"),
        few.run(f"3 new objects among {FEW:,}", more=3),
        many.run(f"{new:,} new objects"),
    ]
    many.prefixes["sparkify_song_data"] = "s3://udacity-dend/song_data/"
    many.record("s3://udacity-dend/song_data/")
    runs.append(many.run(f"3 new objects among {known + FEW:,}", more=3))
    keep(
        "files",
        [
            Table(
                f"Runs with objects of a song each; before them, the process held {before:.0f} MB",
                ("", "seconds", *(f"`{task}`" for task in SHOWN), "MB at most"),
                runs,
            )
        ],
    )


class Bench:
    """
    One run after another over a part of the songs.

    :param part: its folder below ``song_data/``
    """

    def __init__(self, part: str) -> None:
        self.s3, self.pipeline, self.runs = S3Hook(aws_conn_id="aws_default"), Pipeline(), 0
        self.prefixes = {"sparkify_song_data": f"s3://udacity-dend/song_data/{part}/"}

    def run(self, what: str, more: int = 0) -> tuple[str | float, ...]:
        """Run once, with some more objects; return what it is about, and what it took."""
        prefix = self.prefixes["sparkify_song_data"].removeprefix("s3://udacity-dend/")
        for number in range(more):
            self.s3.load_string(
                song(f"MORE{number}"), f"{prefix}more/{number}.json", "udacity-dend", replace=True
            )
        seconds: dict[str, float] = {}
        self.runs += 1
        with timed_tasks(self.pipeline, seconds):
            result = self.pipeline.run(f"{prefix}-{self.runs}", variables=self.prefixes)
        staged = result["record_files"]["staging_songs"]["files"]
        assert staged == more or not more, f"{staged} files were staged"
        return (what, sum(seconds.values()), *(seconds[task] for task in SHOWN), memory())

    def record(self, prefix: str) -> None:
        """Write all objects of a prefix to the ledger, as if they had been loaded."""
        objects = list_prefix(self.s3, prefix).objects
        entries = [Entry(item, "loaded") for item in objects]
        lines = ledger_lines("staging_songs", entries, "before", datetime(2018, 11, 1))
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
