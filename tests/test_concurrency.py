"""Two runs at the same time, and an analyst meanwhile: the star is right all the same."""

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from local.settings import REGION, Settings
from sparkify.tables import STAR
from tests.concurrent_run import Outcome, run
from tests.expected_star import Json, expected_star
from tests.pipeline import Pipeline, star

BUCKET = "concurrency"
PAIRS = int(os.environ.get("SPARKIFY_CONCURRENT_PAIRS", "2"))
MANY = 20  # so many that some of their transactions conflict
OVERLAPPED = "holds the files of run"  # what a run ends with whose staged files another's have replaced
REPORT = """
CREATE TABLE report AS
SELECT u.level, s.title, COUNT(*) AS plays
FROM fact_songplays AS f INNER JOIN dim_users AS u USING (user_id) LEFT JOIN dim_songs AS s USING (song_id)
GROUP BY u.level, s.title
"""
# Users, songs and artists are loaded before the plays that refer to them
ORPHANS = """
SELECT COUNT(*)
FROM fact_songplays AS f
LEFT JOIN dim_users AS u USING (user_id)
LEFT JOIN dim_songs AS s USING (song_id)
WHERE u.user_id IS NULL OR (f.song_id IS NOT NULL AND s.song_id IS NULL)
"""


class Analyst(threading.Thread):
    """Makes reports, and looks twice at the tables in one transaction, until told to stop."""

    def __init__(self, hook: RedshiftSQLHook) -> None:
        super().__init__()
        self.hook, self.stop = hook, threading.Event()
        self.reports, self.surprises = 0, list[Any]()

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self.hook.run(["DROP TABLE IF EXISTS report", REPORT], autocommit=True)
                looks = [ORPHANS, "SELECT COUNT(*) FROM dim_time", "SELECT COUNT(*) FROM dim_time"]
                answers: Any = self.hook.run(looks, handler=lambda cursor: cursor.fetchall()[0][0])
                orphans, first, second = answers
                if orphans or first != second:
                    self.surprises.append(answers)
                self.reports += 1
            except Exception as error:
                self.surprises.append(error)


@pytest.fixture(scope="module")
def workers(stack: Settings) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.fixture(params=["SERIALIZABLE", "SNAPSHOT"])
def level(request: pytest.FixtureRequest, warehouse: RedshiftSQLHook) -> Iterator[str]:
    """The database's isolation level."""
    warehouse.run(f"ALTER DATABASE sparkify ISOLATION LEVEL {request.param}", autocommit=True)
    yield request.param
    warehouse.run("ALTER DATABASE sparkify ISOLATION LEVEL SNAPSHOT", autocommit=True)


@pytest.fixture
def bucket(stack: Settings) -> Iterator[S3Hook]:
    s3 = S3Hook(aws_conn_id="aws_default")
    s3.create_bucket(BUCKET, region_name=REGION)
    yield s3
    s3.delete_bucket(BUCKET, force_delete=True)


def draw_events(chance: random.Random, session: int) -> list[Json]:
    """Draw the events of a session, of one of few users, most of them plays of few songs."""
    user = str(chance.randrange(6)) if chance.random() < 0.9 else ""
    return [
        {
            "sessionId": session,
            "itemInSession": item,
            "page": chance.choice(["NextSong", "NextSong", "NextSong", "Home"]),
            "userId": user,
            "firstName": f"Ada {user}",
            "lastName": "Bell",
            "gender": "F",
            "level": chance.choice(["free", "paid"]),
            "ts": 1541106000796 + chance.randrange(1000) * 60_000,
            "song": f"Song {(number := chance.randrange(8))}",
            "artist": "Elena",
            "length": 200.5 + number,
        }
        for item in range(4)
    ]


def draw_song(chance: random.Random) -> Json:
    """Draw a record of one of few songs, which may contradict the others of it."""
    number = chance.randrange(8)
    return {
        "song_id": f"SO{number}",
        "title": f"Song {number}",
        "duration": 200.5 + number,
        "year": chance.choice([0, 1999, 2001]),
        "artist_id": "AR1",
        "artist_name": "Elena",
        "artist_location": chance.choice(["Oslo", ""]),
        "artist_latitude": chance.choice([None, 1.5]),
        "artist_longitude": 2.5,
    }


def deliver(s3: S3Hook, chance: random.Random, number: int) -> tuple[list[Json], list[Json]]:
    """Put new files of two runs on S3, and return the events and the songs in them."""
    events, songs = list[Json](), list[Json]()
    for side in range(2):
        sessions = range(1000 * number + 100 * side, 1000 * number + 100 * side + 20)
        of_side = [event for session in sessions for event in draw_events(chance, session)]
        songs_of_side = [draw_song(chance) for _ in range(5)]
        for dataset, lines in (("log_data", of_side), ("song_data", songs_of_side)):
            text = "\n".join(map(json.dumps, lines))
            s3.load_string(text, f"{number}/{dataset}/{side}/file.json", BUCKET)
        events += of_side
        songs += songs_of_side
    return events, songs


def prefixes(number: int, side: str) -> dict[str, str]:
    return {
        "sparkify_log_data": f"s3://{BUCKET}/{number}/log_data/{side}",
        "sparkify_song_data": f"s3://{BUCKET}/{number}/song_data/{side}",
        "sparkify_work_prefix": f"s3://{BUCKET}/runs/",
    }


def run_pairs(
    hook: RedshiftSQLHook, s3: S3Hook, workers: ProcessPoolExecutor, *, same: bool = False, turns: bool = True
) -> list[Outcome]:
    """
    Run pairs of runs, the second of each some time after the first, and after each pair a third run.

    A run may end early, since another's files have replaced those that it staged: the third then loads them.

    :param same: let the pair be one run, done by two processes
    :param turns: whether transactions that change tables take turns
    """
    events, songs, outcomes, seconds = list[Json](), list[Json](), list[Outcome](), 1.0
    for number in range(PAIRS):
        chance = random.Random(number)
        new_events, new_songs = deliver(s3, chance, number)
        events, songs, start = events + new_events, songs + new_songs, time.time()
        running = [
            workers.submit(run, f"{number}, {side}", prefixes(number, f"{side}/"), start + wait, turns=turns)
            for side, wait in ((0, 0.0), (0 if same else 1, chance.random() * seconds))
        ]
        pair = [each.result() for each in running]
        assert all(OVERLAPPED in each.failure for each in pair if each.failure), (number, pair)
        start = time.time()
        Pipeline().run(f"{number}, after", variables=prefixes(number, ""))
        seconds = time.time() - start
        expected, found = expected_star(events, songs), star(hook)
        for table in STAR:
            assert found[table] == expected[table], (number, pair)
        outcomes += pair
    return outcomes


def report(capsys: pytest.CaptureFixture[str], what: str, outcomes: list[Outcome]) -> Counter[str]:
    """Print, and return, how many errors of which kinds the retries healed."""
    healed = Counter(message.partition(".")[0] for each in outcomes for _, message in each.healed)
    left = sum(bool(each.failure) for each in outcomes)
    with capsys.disabled():
        print(f"\n{what}: {PAIRS} pairs of runs, {left} left files to the next; healed: {dict(healed)}")
    return healed


def test_two_runs_at_once_and_the_next_one_build_the_star(
    warehouse: RedshiftSQLHook,
    bucket: S3Hook,
    workers: ProcessPoolExecutor,
    level: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    analyst = Analyst(warehouse)
    analyst.start()
    try:
        outcomes = run_pairs(warehouse, bucket, workers)
    finally:
        analyst.stop.set()
        analyst.join()
    assert analyst.surprises == []
    report(capsys, f"{level}, {analyst.reports} reports meanwhile", outcomes)


def test_a_run_that_two_processes_do_at_once_builds_the_star(
    warehouse: RedshiftSQLHook,
    bucket: S3Hook,
    workers: ProcessPoolExecutor,
    level: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report(capsys, f"{level}, one run twice", run_pairs(warehouse, bucket, workers, same=True))


@pytest.mark.parametrize("level", ["SERIALIZABLE"], indirect=True)
def test_retries_heal_the_conflicts_of_transactions_that_do_not_take_turns(
    warehouse: RedshiftSQLHook,
    bucket: S3Hook,
    workers: ProcessPoolExecutor,
    level: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcomes = run_pairs(warehouse, bucket, workers, same=True, turns=False)
    healed = report(capsys, f"{level}, one run twice, without turns", outcomes)
    assert healed["1023"] or PAIRS < MANY
