from datetime import datetime
from typing import Any

import pytest

from tests.expected_star import REAL_DATA, Json, Row, expected_star, read_events, read_songs

TS = 1542837407796  # 2018-11-21 21:56:47.796 UTC, a Wednesday


def event(**values: Any) -> Json:
    play = {"page": "NextSong", "sessionId": 1, "itemInSession": 0, "userId": "8", "level": "free", "ts": TS}
    return play | {"song": "Setanta", "artist": "Elena", "length": 269.5} | values


def song(**values: Any) -> Json:
    row = {
        "song_id": "SO1",
        "title": "Setanta",
        "artist_id": "AR1",
        "artist_name": "Elena",
        "duration": 269.5,
    }
    place = {"artist_location": "", "artist_latitude": None, "artist_longitude": None}
    return row | place | {"year": 0} | values


def artist(**values: Any) -> Row:
    """The artist's row that the song above and one more, with these values, lead to."""
    [row] = expected_star([], [song(), song(song_id="SO2", **values)])["dim_artists"]
    return row


@pytest.fixture(scope="module")
def real_star() -> dict[str, list[Row]]:
    if not (REAL_DATA / "log_data").is_dir():
        pytest.skip(f"the real data is not in {REAL_DATA}; set SPARKIFY_REAL_DATA to its folder")
    return expected_star(read_events(REAL_DATA), read_songs(REAL_DATA))


def test_the_real_data_gives_the_known_numbers(real_star: dict[str, list[Row]]) -> None:
    sizes = {table: len(rows) for table, rows in real_star.items()}
    assert sizes == {
        "fact_songplays": 6820,
        "dim_users": 97,
        "dim_songs": 71,
        "dim_artists": 69,
        "dim_time": 6813,
        "rejected": 0,
    }


def test_one_real_play_matches_a_song(real_star: dict[str, list[Row]]) -> None:
    [play] = [row for row in real_star["fact_songplays"] if row[4] is not None]
    assert play[1] == datetime(2018, 11, 21, 21, 56, 47, 796000)
    assert (play[2], play[4]) == ("15", "SOZCTXZ12AB0182364")


def test_real_levels_are_those_of_the_newest_event(real_star: dict[str, list[Row]]) -> None:
    listeners = {row[2] for row in real_star["fact_songplays"]}
    paid = {row[0] for row in real_star["dim_users"] if row[4] == "paid"}
    assert (len(listeners), len(paid & listeners)) == (96, 22)
    assert "15" in paid


def test_real_plays_keep_the_level_of_their_time(real_star: dict[str, list[Row]]) -> None:
    levels = [row[3] for row in real_star["fact_songplays"]]
    assert (levels.count("paid"), levels.count("free")) == (5591, 1229)


def test_a_play_becomes_one_complete_row() -> None:
    star = expected_star([event(location="Dallas, TX", userAgent="Mozilla")], [song()])
    identity = ("eca26941bc5187d1e2983961edb6dbb6", datetime(2018, 11, 21, 21, 56, 47, 796000), "8", "free")
    text = ("Setanta", "Elena", 269.5, "Dallas, TX", "Mozilla")
    assert star["fact_songplays"] == [(*identity, "SO1", "AR1", 1, 0, *text)]
    assert star["dim_time"] == [(identity[1], 21, 21, 47, 11, 2018, 3)]


def test_sunday_is_weekday_0_and_belongs_to_the_iso_week_before() -> None:
    sunday = TS + 4 * 86_400_000
    [(_, *parts)] = expected_star([event(ts=sunday)], [])["dim_time"]
    assert parts == [21, 25, 47, 11, 2018, 0]


def test_order_and_repetition_change_nothing() -> None:
    events = [event(), event(ts=TS + 1000, itemInSession=1, level="paid"), event(song="Other")]
    songs = [song(), song(year=1999), song(song_id="SO0")]
    assert expected_star(events, songs) == expected_star(events[::-1] * 2, songs[::-1] * 2)


def test_the_newest_event_of_any_page_makes_the_user() -> None:
    newer = event(page="Home", ts=TS + 1000, level="paid", itemInSession=1)
    [user] = expected_star([newer, event()], [])["dim_users"]
    assert user == ("8", None, None, None, "paid", datetime(2018, 11, 21, 21, 56, 48, 796000))


@pytest.mark.parametrize("missing", [{"userId": ""}, {"userId": None}, {"ts": None}])
def test_a_play_without_user_or_time_is_rejected(missing: Json) -> None:
    star = expected_star([event(**missing)], [])
    assert star["rejected"] == [(1, 0)]
    assert star["fact_songplays"] == star["dim_users"] == []


def test_of_contradicting_copies_of_a_play_the_greatest_wins_before_it_is_matched() -> None:
    [play] = expected_star([event(), event(song="Zebra")], [song()])["fact_songplays"]
    assert (play[4], play[8]) == (None, "Zebra")


def test_a_song_without_an_artist_makes_no_artist() -> None:
    star = expected_star([], [song(artist_id="")])
    assert (len(star["dim_songs"]), star["dim_artists"]) == (1, [])


@pytest.mark.parametrize("other", [{"title": "setanta"}, {"artist_name": " Elena"}, {"duration": 269.50001}])
def test_a_play_matches_on_the_exact_title_artist_and_duration(other: Json) -> None:
    [play] = expected_star([event()], [song(**other)])["fact_songplays"]
    assert play[4:6] == (None, None)


def test_blanks_at_the_end_of_a_text_do_not_matter() -> None:
    [play] = expected_star([event()], [song(artist_name="Elena ")])["fact_songplays"]
    assert play[4:6] == ("SO1", "AR1")


def test_the_smallest_matching_song_id_wins() -> None:
    [play] = expected_star([event()], [song(), song(song_id="SO0", artist_id="AR9")])["fact_songplays"]
    assert play[4:6] == ("SO0", "AR9")


def test_a_play_matches_only_the_winning_version_of_a_song() -> None:
    [play] = expected_star([event()], [song(), song(title="Renamed", year=1999)])["fact_songplays"]
    assert play[4:6] == (None, None)


def test_the_later_year_wins_a_song() -> None:
    star = expected_star([], [song(year=1999, title="A"), song(year=0, title="Z")])
    assert star["dim_songs"] == [("SO1", "A", "AR1", "Elena", 1999, 269.5)]


def test_an_artist_with_coordinates_goes_before_one_with_a_location() -> None:
    place = {"artist_latitude": 1.5, "artist_longitude": -2.5}
    records = [song(artist_location="Dublin"), song(artist_name="Elena feat. X", **place)]
    assert expected_star([], records)["dim_artists"] == [("AR1", "Elena feat. X", None, 1.5, -2.5)]


def test_an_artist_with_half_a_coordinate_has_none() -> None:
    assert artist(artist_name="Elena feat. X", artist_latitude=1.5) == ("AR1", "Elena", None, None, None)


def test_an_artist_with_a_location_goes_before_one_without() -> None:
    longer = artist(artist_name="Elena feat. X", artist_location="Dublin")
    assert longer == ("AR1", "Elena feat. X", "Dublin", None, None)


def test_the_shortest_then_smallest_name_of_an_artist_wins() -> None:
    assert artist(artist_name="Zoe") == ("AR1", "Zoe", None, None, None)
    assert artist(artist_name="elena") == ("AR1", "Elena", None, None, None)
