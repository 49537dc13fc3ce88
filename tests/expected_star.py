"""
The star schema that a set of JSON objects must lead to, computed without SQL.

Pipeline tests compare the warehouse with it. It follows the rules that ``include/sql/transform`` follows, but
takes everything at once, in plain loops, so that a mistake in one is not repeated in the other.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Row = tuple[Any, ...]

REAL_DATA = Path(os.environ.get("SPARKIFY_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared/data")
EPOCH = datetime(1970, 1, 1)


def read_events(folder: Path) -> Iterator[Json]:
    """Yield the log events below ``folder/log_data``."""
    for path in sorted(folder.glob("log_data/**/*.json")):
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def read_songs(folder: Path) -> Iterator[Json]:
    """Yield the song objects below ``folder/song_data``."""
    for path in sorted(folder.glob("song_data/**/*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def expected_star(events: Iterable[Json], songs: Iterable[Json]) -> dict[str, list[Row]]:
    """
    Return the sorted rows of each table of the star schema.

    Python orders text by code point, which is the order of its UTF-8 bytes.

    :param events: log events in any order, any of them repeated
    :param songs: song objects in any order, any of them repeated
    :return: rows by table name, in the table's column order, and under ``"rejected"`` the
        (session_id, item_in_session) of the plays without a user, or that the staging table refuses
    """
    events, songs = list(map(_without_blanks, events)), list(map(_without_blanks, songs))
    songs = [song for song in songs if song.get("song_id") is not None]
    staged = [event for event in events if _can_be_staged(event)]
    dim_songs = _songs(songs)
    plays = _songplays(staged, dim_songs)
    star = {
        "fact_songplays": plays,
        "dim_users": _users(staged),
        "dim_songs": dim_songs,
        "dim_artists": _artists(songs),
        "dim_time": {_time(start_time) for _, start_time, *_ in plays},
        "rejected": {
            (event.get("sessionId"), event.get("itemInSession"))
            for event in events
            if event.get("page") == "NextSong" and not (_can_be_staged(event) and _has_user(event))
        },
    }
    return {table: sorted(rows, key=_nulls_first) for table, rows in star.items()}


def _without_blanks(record: Json) -> Json:
    """Return a record whose texts do not end with blanks, which Redshift's comparisons do not see."""
    return {name: v.rstrip(" ") if isinstance(v, str) else v for name, v in record.items()}


def _nulls_first(row: Row) -> Row:
    """Return a sort key in which None is smaller than any value."""
    return tuple((value is not None, value) for value in row)


def _users(events: list[Json]) -> list[Row]:
    seen: dict[str, list[Row]] = {}
    for event in events:
        if _has_user(event):
            attributes = [event.get(name) for name in ("level", "firstName", "lastName", "gender")]
            seen.setdefault(str(event["userId"]), []).append((_timestamp(event), *attributes))
    rows = []
    for user_id, versions in seen.items():
        last_event_at, level, first_name, last_name, gender = max(versions, key=_nulls_first)
        rows.append((user_id, first_name, last_name, gender, level, last_event_at))
    return rows


def _songs(songs: list[Json]) -> list[Row]:
    seen: dict[str, list[Row]] = {}
    for song in songs:
        names = ("year", "title", "artist_id", "artist_name", "duration")
        version = song | {"artist_id": song.get("artist_id") or None}
        seen.setdefault(song["song_id"], []).append(tuple(version.get(name) for name in names))
    rows = []
    for song_id, versions in seen.items():
        year, title, artist_id, artist_name, duration = max(versions, key=_nulls_first)
        rows.append((song_id, title, artist_id, artist_name, year, duration))
    return rows


def _artists(songs: list[Json]) -> list[Row]:
    seen: dict[str, list[Row]] = {}
    for song in songs:
        location = song.get("artist_location") or None
        latitude, longitude = song.get("artist_latitude"), song.get("artist_longitude")
        version = (song.get("artist_name"), location, latitude, longitude)
        if song.get("artist_id"):
            seen.setdefault(song["artist_id"], []).append(version)
    return [(artist_id, *min(versions, key=_best_artist)) for artist_id, versions in seen.items()]


def _best_artist(version: Row) -> Row:
    """Return a sort key under which the version to keep is the smallest."""
    name, location, latitude, longitude = version
    without_coordinates = latitude is None or longitude is None
    length = (name is None, len(name or ""))
    return (without_coordinates, location is None, length, _nulls_first(version))


def _songplays(events: list[Json], dim_songs: list[Row]) -> list[Row]:
    known: dict[Row, Row] = {}  # filled in falling order of song_id, so that the smallest stays
    for song_id, title, artist_id, artist_name, _year, duration in sorted(dim_songs, reverse=True):
        known[title, artist_name, duration] = (song_id, artist_id)

    seen: dict[Row, list[Row]] = {}
    names = ("level", "song", "artist", "length", "location", "userAgent")
    for event in events:
        if event.get("page") == "NextSong" and _has_user(event):
            version = (_timestamp(event), str(event["userId"]), *(event.get(name) for name in names))
            seen.setdefault((event["sessionId"], event["itemInSession"]), []).append(version)
    rows = []
    for (session_id, item), versions in seen.items():
        start_time, user_id, level, *song, location, user_agent = max(versions, key=_nulls_first)
        match = (None, None) if None in song else known.get(tuple(song), (None, None))
        songplay_id = hashlib.md5(f"{session_id}-{item}".encode()).hexdigest()
        who = (songplay_id, start_time, user_id, level)
        rows.append((*who, *match, session_id, item, *song, location, user_agent))
    return rows


def _time(start_time: datetime) -> Row:
    _, week, iso_weekday = start_time.isocalendar()
    date_parts = (start_time.day, week, start_time.month, start_time.year)
    return (start_time, start_time.hour, *date_parts, iso_weekday % 7)


def _can_be_staged(event: Json) -> bool:
    """Return whether the event has what ``staging_events`` declares NOT NULL."""
    return all(event.get(name) is not None for name in ("sessionId", "itemInSession", "ts"))


def _has_user(event: Json) -> bool:
    return event.get("userId") not in (None, "")


def _timestamp(event: Json) -> datetime:
    return EPOCH + timedelta(milliseconds=event["ts"])
