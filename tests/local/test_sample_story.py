"""What the page shows of a sample at first glance: a month in which something happens, whatever the seed."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from local.sample import write_sample
from tests.expected_star import Json, read_events, read_songs

FIRST_SECOND = 1541030400  # of 2018-11-01, a Thursday
DAYS = 30
WEEK = 7


class Month(NamedTuple):
    """A sample: all events, the plays by day, and the catalogue."""

    events: list[Json]
    days: list[list[Json]]
    songs: list[Json]

    def plays(self, first: int = 0, last: int = DAYS) -> list[Json]:
        """Return the plays of some days."""
        return [play for day in self.days[first:last] for play in day]


@pytest.fixture(scope="module", params=range(1, 11), ids="seed {}".format)
def month(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Month:
    folder = tmp_path_factory.mktemp("sample") / "month"
    write_sample(folder, seed=request.param)
    events = list(read_events(folder))
    days: list[list[Json]] = [[] for _ in range(DAYS)]
    for event in events:
        if event["page"] == "NextSong":
            days[(event["ts"] // 1000 - FIRST_SECOND) // 86_400].append(event)
    return Month(events, days, list(read_songs(folder)))


def listeners(plays: Iterable[Json]) -> int:
    return len({play["userId"] for play in plays})


def paid_share(plays: list[Json]) -> float:
    return sum(play["level"] == "paid" for play in plays) / len(plays)


def pages(events: Iterable[Json]) -> Counter[str]:
    return Counter(event["page"] for event in events)


def is_plain(text: str) -> bool:
    return (
        text.isascii() and text.isprintable() and text == " ".join(text.split()) and text.count('"') % 2 == 0
    )


def top_songs(plays: Iterable[Json]) -> list[tuple[tuple[str, ...], int]]:
    return top_ten(plays, "song", "artist")


def top_artists(plays: Iterable[Json]) -> list[tuple[str, int]]:
    return [(artist, number) for (artist,), number in top_ten(plays, "artist")]


def top_ten(plays: Iterable[Json], *key: str) -> list[tuple[tuple[str, ...], int]]:
    """Return what is played most, in the order of the questions of the same names."""
    listeners = defaultdict(list)
    for play in plays:
        listeners[tuple(play[name] for name in key)].append(play["userId"])
    ranked = sorted(listeners.items(), key=lambda item: (-len(item[1]), -len(set(item[1])), item[0]))
    return [(names, len(users)) for names, users in ranked[:10]]


def test_each_week_has_more_plays_than_the_one_before(month: Month) -> None:
    weeks = [len(month.plays(first, first + WEEK)) for first in range(2, DAYS, WEEK)]
    assert weeks == sorted(weeks)
    assert weeks[-1] > 2 * weeks[0]


def test_more_listeners_come_every_day(month: Month) -> None:
    by_day = [listeners(day) for day in month.days]
    assert sum(by_day[-WEEK:]) > 1.2 * sum(by_day[:WEEK])


def test_users_register_all_month_long(month: Month) -> None:
    registered = {event["userId"]: event["registration"] for event in month.events if event["userId"]}
    weeks = Counter(int((each / 1000 - FIRST_SECOND) // 86_400 // WEEK) for each in registered.values())
    assert all(weeks[week] >= 3 for week in range(4))


def test_each_day_of_a_weekend_is_quieter_than_those_before_it_in_its_week(month: Month) -> None:
    plays = [len(day) for day in month.days]
    for saturday in range(2, DAYS, WEEK):
        working_days = plays[max(0, saturday - 5) : saturday]
        assert max(plays[saturday : saturday + 2]) < min(working_days)


def test_free_listeners_become_paying_ones(month: Month) -> None:
    submitted = pages(month.events)
    assert submitted["Submit Upgrade"] >= 8
    assert submitted["Submit Downgrade"] < submitted["Submit Upgrade"] / 2
    assert paid_share(month.plays(-WEEK)) > paid_share(month.plays(0, WEEK)) + 0.05


def test_an_artist_of_the_catalogue_takes_off_in_the_middle_of_the_month(month: Month) -> None:
    (artist, plays), (_, next_best), *_ = top_artists(month.plays())
    ((title, its_artist), song_plays), (_, next_song), *_ = top_songs(month.plays())
    assert 1.8 * next_best < plays < 4 * next_best
    assert its_artist == artist
    assert 1.25 * next_song < song_plays < 4 * next_song
    of_artist = [song for song in month.songs if song["artist_name"] == artist]
    assert len({song["artist_id"] for song in of_artist}) == 1
    assert title in {song["title"] for song in of_artist}
    first_week, last_week = (
        sum(play["artist"] == artist for play in part) / len(part)
        for part in (month.plays(0, WEEK), month.plays(-WEEK))
    )
    assert first_week < 0.01
    assert last_week > 0.02


@pytest.mark.parametrize("days", [DAYS, 28, WEEK])
def test_what_is_played_most_has_plain_names(month: Month, days: int) -> None:
    plays = month.plays(DAYS - days)
    names = [name for song, _ in top_songs(plays) for name in song]
    names += [artist for artist, _ in top_artists(plays)]
    assert [name for name in names if not is_plain(name)] == []


def test_odd_names_are_played_all_the_same(month: Month) -> None:
    titles = {play["song"] for play in month.plays()}
    garbled = {title for title in titles if not title.isascii()}
    assert len(garbled) > 100
    repaired = {title.encode("latin-1").decode().encode("latin-1").decode() for title in garbled}
    assert len(repaired & {song["title"] for song in month.songs}) > 5
    assert sum(not is_plain(title) for title in titles if title.isascii()) > 10
