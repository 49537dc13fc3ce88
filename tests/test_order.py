"""However the files are cut into runs, in whatever order and how often they come, the star is the same."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from local.settings import REGION, Settings
from sparkify.tables import STAR, TABLES
from tests.expected_star import Json, Row, expected_star
from tests.pipeline import Pipeline, star

BUCKET = "deliveries"
EVENTS, SONGS = "log_data/", "song_data/"
PREFIXES = map(str, itertools.count())

# The lines of each file that is new or changed since the run before.
Delivery = Mapping[str, Sequence[Json]]

# Few values of each, the first most often, so that most of what is drawn collides; and some whose order
# depends on who compares.
titles = st.sampled_from(["Elena", "Elena ", "elena", None])
artist_names = st.sampled_from(["Elan", "Elan", "Elan  ", "Élan", "Elan feat. 𝄞"])
durations = st.sampled_from([200.0, 200.0, 200.0, 200.00001])
# Around the ends of an hour and of a year.
moments = st.sampled_from([1541105999796, 1541106000796, 1546300799796])

# A song object: any of them may contradict any other.
songs = st.fixed_dictionaries(
    {
        "song_id": st.sampled_from(["SO2", "SO1", "SO2 ", "SO10", "So1"]),
        "title": titles,
        "duration": durations,
        "year": st.sampled_from([0, 1999, None]),
        "artist_id": st.sampled_from(["AR1", "AR2", "", None]),
        "artist_name": artist_names,
        "artist_location": st.sampled_from(["Oslo", "", None]),
        "artist_latitude": st.sampled_from([0.0, -1.5, None]),
        "artist_longitude": st.sampled_from([0.0, None]),
    }
)
# What tells one event from another, and whether it is a play of a user …
events = st.fixed_dictionaries(
    {
        "sessionId": st.integers(1, 3),
        "itemInSession": st.integers(1, 3),
        "page": st.sampled_from(["NextSong", "NextSong", "Home"]),
        "userId": st.sampled_from(["8", "15", "8 ", "15", "", " ", None]),
    }
)
# … and what a later version of its file may say otherwise.
details = st.fixed_dictionaries(
    {
        "ts": moments,
        "level": st.sampled_from(["free", "paid"]),
        "firstName": st.sampled_from(["Ava", "Ava ", "ava", None]),
        "lastName": st.sampled_from(["Oe", "Ōe"]),
        "gender": st.sampled_from(["F", None]),
        "song": titles,
        "artist": artist_names,
        "length": durations,
        "location": st.sampled_from(["Oslo", "", None]),
    }
)

# In the first run, each dimension must get a row: the checks refuse an empty one.
PLAY = {"sessionId": 2, "itemInSession": 0, "page": "NextSong", "userId": "8", "ts": 1541106000796}
PLAY |= {"level": "free", "song": "Elena", "artist": "Elan", "length": 200.0}
SONG = {"song_id": "SO2", "title": "Elena", "artist_id": "AR1", "artist_name": "Elan", "duration": 200.0}
FIRST: Delivery = {f"{EVENTS}first.json": [PLAY], f"{SONGS}first.json": [SONG]}


@st.composite
def event_files(draw: st.DrawFn) -> dict[str, list[list[Json]]]:
    """
    Draw the successive versions of some log files.

    A file may grow and reword its events, but loses none; and files that share an event agree on it in their
    last versions, for if they do not, it is by design the order that decides.
    """
    drawn = draw(
        st.lists(
            events,
            min_size=1,
            max_size=6,
            unique_by=lambda event: (event["sessionId"], event["itemInSession"]),
        )
    )
    final = [event | draw(details) for event in drawn]
    files = {}
    for name in ("a", "b"):
        held = draw(st.lists(st.integers(0, len(drawn) - 1), min_size=1, max_size=6))
        last = [final[number] for number in held]
        grown = sorted(draw(st.lists(st.integers(1, len(held)), max_size=2)))
        drafts = [[drawn[number] | draw(details) for number in held[:size]] for size in grown]
        files[f"{EVENTS}{name}.json"] = [*drafts, last]
    return files


@st.composite
def schedules(draw: st.DrawFn) -> list[dict[str, Sequence[Json]]]:
    """Draw what each of several runs finds: all files' versions in order, mixed, some delivered twice."""
    files = draw(event_files())
    for name in ("a", "b"):
        files[f"{SONGS}{name}.json"] = draw(
            st.lists(st.lists(songs, min_size=1, max_size=2), min_size=1, max_size=3)
        )
    coming = {
        key: [version for version in versions for _ in range(draw(st.integers(1, 2)))]
        for key, versions in files.items()
    }
    schedule = [dict(FIRST)]
    for key in draw(st.permutations([key for key, versions in coming.items() for _ in versions])):
        if draw(st.sampled_from([False, False, True])):
            schedule.append({})
        schedule[-1][key] = coming[key].pop(0)
    return schedule


@pytest.fixture(scope="module")
def bucket(stack: Settings) -> Any:
    """The S3 client, with a bucket for the deliveries."""
    hook = S3Hook(aws_conn_id="aws_default")
    hook.create_bucket(BUCKET, region_name=REGION)
    return hook.conn


def load(hook: RedshiftSQLHook, s3: Any, schedule: Iterable[Delivery]) -> dict[str, list[Row]]:
    """Return the star that an empty warehouse holds after a run for each delivery."""
    hook.run([f"DELETE FROM {table}" for table in TABLES])
    prefix, pipeline = next(PREFIXES), Pipeline()
    variables = {
        "sparkify_log_data": f"s3://{BUCKET}/{prefix}/{EVENTS}",
        "sparkify_song_data": f"s3://{BUCKET}/{prefix}/{SONGS}",
    }
    for number, delivery in enumerate(schedule):
        for key, lines in delivery.items():
            s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body="\n".join(map(json.dumps, lines)))
        with capture_logs():  # of a failing example, the schedule is shown, not all that every run logged
            pipeline.run(f"run {number}", variables=variables)
    return star(hook)


def below(prefix: str, files: Iterable[tuple[str, Sequence[Json]]]) -> Iterator[Json]:
    """Return the lines of the files below a prefix."""
    return itertools.chain.from_iterable(lines for key, lines in files if key.startswith(prefix))


@given(schedule=schedules())
def test_any_order_of_delivery_leads_to_the_same_star(
    created: RedshiftSQLHook, bucket: Any, schedule: list[Delivery]
) -> None:
    seen = [file for delivery in schedule for file in delivery.items()]
    last = dict(seen)
    # A play is what the last version of its file says. A user, song or artist is the greatest of all rows
    # that the warehouse was ever shown, so what an older version of a file said still counts.
    expected = expected_star(below(EVENTS, last.items()), below(SONGS, seen))
    users = expected_star(below(EVENTS, seen), [])["dim_users"]

    found = load(created, bucket, schedule)
    assert found == {table: expected[table] for table in STAR} | {"dim_users": users}

    everything = {key: lines for key, lines in last.items() if key.startswith(EVENTS)}
    everything[f"{SONGS}all.json"] = list(below(SONGS, seen))
    assert load(created, bucket, [everything]) == found | {"dim_users": expected["dim_users"]}


def test_a_file_that_goes_back_to_an_older_version_is_loaded_again(
    created: RedshiftSQLHook, bucket: Any
) -> None:
    versions = [PLAY, PLAY | {"level": "paid"}, PLAY]
    found = load(created, bucket, [{**FIRST, f"{EVENTS}first.json": [version]} for version in versions])
    assert [level for _, _, _, level, *_ in found["fact_songplays"]] == ["free"]


def test_a_song_whose_titles_differ_in_blanks_at_their_end_is_matched_once(
    created: RedshiftSQLHook, bucket: Any
) -> None:
    twins = [SONG, SONG | {"song_id": "SO1", "title": "Elena "}]
    delivery = {f"{EVENTS}first.json": [PLAY | {"song": "Elena  "}], f"{SONGS}twins.json": twins}
    found = load(created, bucket, [delivery])
    assert [(row[4], row[8]) for row in found["fact_songplays"]] == [("SO1", "Elena")]
