"""
Invented input data: a month of event logs, and a song catalogue in which a third of the plays can be found.

``sample_profile.json`` holds the figures it imitates, measured on the public data: how often each page
follows each other one, when sessions start, how long songs are. (A submitted downgrade, seen once, is made
twice as likely, so that most samples have one.) Names are put together from ``sample_words.json``.

The public data have no story, and charts of them show little. So this month departs from them, on purpose:

- Users join all the time, and the last day has ``GROWTH`` times the events of the first.
- A day has the events that are due by its weekday, give or take a few; weekends are quiet.
- Few users pay at first. Upgrades are as frequent as measured, which leaves most plays paid in the end.
- In the middle of the month, one artist's songs catch on.
- Names that the logs garble, and other odd ones, are not among what is played most.
"""

import argparse
import json
import shutil
from bisect import bisect, bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from itertools import accumulate, count, islice
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

Json = dict[str, Any]

HERE = Path(__file__).parent
PROFILE = json.loads((HERE / "sample_profile.json").read_text(encoding="utf-8"))
LISTS = json.loads((HERE / "sample_words.json").read_text(encoding="utf-8"))
STAR = LISTS["artist_of_the_month"]

FREE, PAID = "free", "paid"
DAY = 86_400
MILLISECOND = 796  # every time in the public data ends in it
EVENTS_PER_USER_AND_DAY = 2.75
EVENTS_PER_100_SESSIONS = {FREE: 274, PAID: 2680}
PAUSE = 1800  # seconds, at least, between two sessions of a user
OVERTIME = 5  # events by which a day's last session may exceed what is due on that day
GROWTH = 4  # times as many events on the last day as on the first, apart from the weekday
FIRST_USERS_PER_PAYING_ONE = 24  # of those who are there when the logs begin
STAR_SHARE = 0.03  # of the plays are of the artist of the month, once the songs have caught on
KNOWN_SHARE = 0.36  # of the others are of the catalogue; those whose name the logs garble do not match
WORLD, WORLD_ARTISTS = 2_000_000, 30_000  # songs that the catalogue does not have, and their artists
SONGS_PER_FOLDER = 24

IN, OUT = "Logged In", "Logged Out"
PLAY, END = "NextSong", "END"
REDIRECT = ("PUT", 307)
RESPONSES = dict.fromkeys(
    ("Login", "Logout", "Save Settings", "Submit Upgrade", "Submit Downgrade"), REDIRECT
)
RESPONSES |= {PLAY: ("PUT", 200), "Error": ("GET", 404)}  # all other pages: GET, 200

ENCODER = json.JSONEncoder(separators=(",", ":"))

Weighted = tuple[Sequence[Any], Sequence[float]]  # values, and their cumulative weights


def _weighted(weights: dict[Any, int]) -> Weighted:
    return list(weights), list(accumulate(weights.values()))


HOURS = _weighted(dict(enumerate(PROFILE["session_starts_by_hour"])))
FIRST_PAGES = {
    level: _weighted(
        {(auth, page): number for auth, pages in table.items() for page, number in pages.items()}
    )
    for level, table in PROFILE["first_page"].items()
}
# By level, or OUT for whoever is not logged in, and by page.
NEXT_PAGES = {
    state: {page: _weighted(following) for page, following in pages.items()}
    for state, pages in PROFILE["next_page"].items()
}

# What these many of a thousand titles look like: stray spaces, an unbalanced quotation mark, and control
# characters where somebody's typographic quotes were.
ODD_TITLES = (
    *(" {}", "{} ", "{} ", '"{}', '{} "Live'),
    *["{}  (Live)"] * 5,
    *("Howlin\x19 {}", "\x18{}\x19", "{}\x19s"),
)

CHROME = '"Mozilla/5.0 ({}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.1985.125 Safari/537.36"'
FIREFOX = "Mozilla/5.0 ({}; rv:{}.0) Gecko/20100101 Firefox/{}.0"
AGENTS = [CHROME.format(system, version) for system in LISTS["systems"] for version in (35, 36)]
AGENTS += [FIREFOX.format(system, version, version) for system in LISTS["systems"] for version in (30, 31)]


class Place(NamedTuple):
    """Where an artist is from, as the catalogue writes it."""

    location: str
    latitude: float | None
    longitude: float | None


NOWHERE = Place("", None, None)
PLACES = [Place(*values) for values in LISTS["places"]]


class Artist(NamedTuple):
    """An artist of the catalogue."""

    artist_id: str
    name: str
    place: Place


class Song(NamedTuple):
    """A song as the logs write it; an event that plays none has no values."""

    artist: str | None = None
    title: str | None = None
    length: float | None = None


class Person(NamedTuple):
    """What the logs write about a user; of somebody who is not logged in, nothing."""

    first_name: str | None = None
    last_name: str | None = None
    gender: str | None = None
    location: str | None = None
    registration: float | None = None
    user_agent: str | None = None
    user_id: str = ""


NO_SONG = Song()
NOBODY = Person()


@dataclass(slots=True, eq=False)
class User:
    """A listener: what never changes, the level, and the second before which no other session starts."""

    person: Person
    joined: int
    activity: int
    level: str
    busy_until: int = -1


class Written(NamedTuple):
    """How many events and song objects a sample holds."""

    events: int
    songs: int


def write_sample(
    folder: Path,
    *,
    events: int = 8000,
    songs: int = 300,
    seed: int = 1,
    start: date = date(2018, 11, 1),
    days: int = 30,
) -> Written:
    """
    Write ``folder/log_data/<year>/<month>/<date>-events.json`` and ``folder/song_data/A/B/C/TRABC….json``.

    The same arguments give the same bytes. The folder appears when all of it is written; a run that died
    leaves ``<folder>.unfinished``, which the next one removes.

    :param folder: what to create; it may exist if it is empty
    :param events: how many events to write, about (sessions are whole)
    :param songs: how many songs the catalogue has; one in a hundred has a second file that differs
    :param seed: another seed gives another sample
    :param start: the first day, UTC
    :param days: how many days the logs cover
    :return: how many events and song objects were written
    :raises ValueError: if a number is less than one
    :raises FileExistsError: if the folder holds something
    """
    if min(events, songs, days) < 1:
        raise ValueError("a sample needs at least one event, one song and one day")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: remove it, or name another folder for the sample")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    rng = Random(seed)
    records, catalogue = _write_songs(unfinished / "song_data", rng, songs)
    written = _write_logs(unfinished / "log_data", rng, events, catalogue, start, days)
    unfinished.rename(folder)
    return Written(written, records)


def _write_songs(folder: Path, rng: Random, songs: int) -> tuple[int, list[Song]]:
    """Write the catalogue; return the number of files, and the songs as the logs spell them, hits first."""
    plain: list[Song] = []
    odd: list[Song] = []
    files = 0
    for record in _catalogue(rng, songs):
        letters = _letters(files // SONGS_PER_FOLDER, 3)
        name = f"TR{letters}{_letters(rng.getrandbits(16), 2)}128F{rng.getrandbits(28):07X}.json"
        path = folder.joinpath(*letters, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record), encoding="ascii")
        files += 1
        artist, title = _log_spelling(record["artist_name"]), _log_spelling(record["title"])
        song = Song(artist, title, record["duration"])
        (plain if _is_plain(artist) and _is_plain(title) else odd).append(song)
    # Names that look broken are not what is seen first. Issued again, a song is the same song to listeners.
    return files, list(dict.fromkeys(plain + odd))


def _catalogue(rng: Random, songs: int) -> Iterator[Json]:
    record: Json = {}
    artists = []
    for _ in range(songs * 5 // 8 + 1):
        place = rng.choice(PLACES) if rng.random() < 0.7 else NOWHERE
        artists.append(Artist(_identifier(rng, "AR"), _phrase(LISTS["artists"], rng.getrandbits(64)), place))
    star = Artist(_identifier(rng, "AR"), STAR["name"], rng.choice(PLACES))
    star_titles = STAR["titles"][:songs]
    for number in range(songs - len(star_titles)):
        if number % 50 == 49:  # issued again: only the ids, of the song and of the artist, tell the two apart
            record = record | {"song_id": _identifier(rng, "SO"), "artist_id": _identifier(rng, "AR")}
            yield record
            continue
        record = _song_record(rng, artists[number % len(artists)], artists)  # no artist has two of the hits
        yield record
        if number % 100 == 60:  # a second file about the same song, which may win
            yield record | {"title": f"{record['title']} (Remastered)", "artist_location": "", "year": 0}
    for title in star_titles:
        yield _song_record(rng, star, artists) | {"artist_name": star.name, "title": title}


def _song_record(rng: Random, artist: Artist, artists: list[Artist]) -> Json:
    name, place = artist.name, artist.place
    spelling = rng.random()
    if spelling < 0.1:
        name = f"{name} feat. {rng.choice(artists).name}"
    elif spelling < 0.105:
        name = ";".join([name, *(guest.name for guest in rng.choices(artists, k=20))])
    if rng.random() < 0.15:
        place = place._replace(latitude=None, longitude=None)
    if rng.random() < 0.15:
        place = place._replace(location="")
    return {
        "num_songs": 1,
        "artist_id": artist.artist_id,
        "artist_latitude": place.latitude,
        "artist_longitude": place.longitude,
        "artist_location": place.location,
        "artist_name": name,
        "song_id": _identifier(rng, "SO"),
        "title": _title(rng.getrandbits(64)),
        "duration": _length(rng.getrandbits(64)),
        "year": 0 if rng.random() < 0.6 else rng.randrange(1955, 2011),
    }


def _write_logs(folder: Path, rng: Random, events: int, catalogue: list[Song], start: date, days: int) -> int:
    """Write one file for each day that has events; return the number of events."""
    first_second = (start - date(1970, 1, 1)).days * DAY
    users = _users(rng, max(2, round(events / days / EVENTS_PER_USER_AND_DAY)), first_second, days)
    dates = [start + timedelta(days=day) for day in range(days)]
    weights = [
        PROFILE["events_by_weekday"][each.weekday()] * (days + (GROWTH - 1) * day) * rng.randrange(97, 104)
        for day, each in enumerate(dates)
    ]
    star = [song for song in catalogue if song.artist == STAR["name"]]

    written = 0
    session_ids = count(3)
    lines: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)  # by day; a session may reach the next
    for day in range(days):
        midnight = first_second + day * DAY
        due = round((events - written) * weights[day] / sum(weights[day:])) - len(lines[day])
        caught_on = min(1, max(0, 5 * day / days - 2))  # from two fifths of the time to three
        draw_song = partial(_draw_song, rng, catalogue, star, STAR_SHARE * caught_on)
        present = [user for user in users if user.joined <= midnight]
        for event in _day(rng, present, midnight, due, session_ids, draw_song):
            event_day = (event["ts"] // 1000 - first_second) // DAY
            if event_day < days:
                lines[event_day].append((event["ts"], _log_line(event)))
        of_day = sorted(lines.pop(day), key=itemgetter(0))
        written += len(of_day)
        if of_day:
            path = folder / f"{dates[day]:%Y/%m/%Y-%m-%d}-events.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(line for _, line in of_day), "ascii")
    return written


def _day(
    rng: Random,
    users: list[User],
    midnight: int,
    due: int,
    session_ids: Iterator[int],
    draw_song: Callable[[], Song],
) -> Iterator[Json]:
    """Yield the events of as many sessions as it takes for the events that are due on a day."""
    starts: defaultdict[User, list[int]] = defaultdict(list)
    sessions: defaultdict[User, list[list[Json]]] = defaultdict(list)
    of_day: Counter[User] = Counter()
    for user in _listeners(rng, users, due):
        if due <= 0:
            break
        insort(starts[user], midnight + _draw(rng, HOURS) * 3600 + rng.randrange(3600))
        sessions[user].append(list(islice(_session(rng, user, next(session_ids), draw_song), due + OVERTIME)))
        due += of_day[user]
        of_day[user] = sum(
            bisect_left(session, midnight + DAY - begin, key=itemgetter("ts"))
            for begin, session in _in_turn(starts[user], sessions[user], user.busy_until)
        )
        due -= of_day[user]
    for user in sessions:
        for begin, session in _in_turn(starts[user], sessions[user], user.busy_until):
            user.busy_until = begin + session[-1]["ts"] + PAUSE
            for event in session:
                event["ts"] = (begin + event["ts"]) * 1000 + MILLISECOND
                yield event


def _in_turn(
    starts: list[int], sessions: list[list[Json]], not_before: int
) -> Iterator[tuple[int, list[Json]]]:
    """Yield a user's sessions and when they begin: in this order, for the level may change in each."""
    for start, session in zip(starts, sessions, strict=True):
        begin = max(start, not_before)
        not_before = begin + session[-1]["ts"] + PAUSE
        yield begin, session


def _listeners(rng: Random, users: list[User], due: int) -> Iterator[User]:
    """
    Yield who starts a session on a day, more of them than it takes for the events that are due.

    Those who pay stay ten times as long, some of them far longer. So first come the others, as many as usual,
    and then those who pay fill the day: neither the listeners nor the plays of a day are left to chance.
    """
    free, paid = (
        _weighted({user: user.activity for user in users if user.level == level}) for level in (FREE, PAID)
    )
    free_activity = sum(user.activity for user in users if user.level == FREE)
    usual = sum(user.activity * EVENTS_PER_100_SESSIONS[user.level] for user in users)
    free_sessions = 100 * due * free_activity // usual
    for number in range(due):  # a session has at least one event
        yield _draw(rng, paid if number >= free_sessions and paid[0] else free)


def _users(rng: Random, number: int, first_second: int, days: int) -> list[User]:
    """
    Return users by falling activity, the last of whom has the name of the first.

    Every other one is there when the logs begin, and a few of these pay. The rest join later, to listen free.
    """
    users = []
    for rank, user_id in enumerate(rng.sample(range(2, number + 2), number)):
        gender, first_names = rng.choice((("F", LISTS["women"]), ("M", LISTS["men"])))
        joined = first_second + (rng.randrange(days * DAY) if rank % 2 else -rng.randrange(14 * DAY))
        person = Person(
            first_name=rng.choice(first_names),
            last_name=rng.choice(LISTS["last_names"]),
            gender=gender,
            location=rng.choice(LISTS["cities"]),
            registration=float(joined * 1000 + MILLISECOND),
            user_agent=rng.choice(AGENTS),
            user_id=str(user_id),
        )
        # The most active user has about five times the sessions of the least active one.
        activity = 1_000_000 * number // (number + 4 * rank)
        level = PAID if rank % (2 * FIRST_USERS_PER_PAYING_ONE) == FIRST_USERS_PER_PAYING_ONE else FREE
        users.append(User(person, joined, activity, level))
    namesake = users[0].person
    users[-1].person = users[-1].person._replace(
        first_name=namesake.first_name, last_name=namesake.last_name, gender=namesake.gender
    )
    return users


def _session(rng: Random, user: User, session_id: int, draw_song: Callable[[], Song]) -> Iterator[Json]:
    """
    Yield the events of one session, and leave the user with the level that it ends with.

    An event's ``ts`` is in seconds since the start of the session.
    """
    second = 0
    auth, page = _draw(rng, FIRST_PAGES[user.level])
    for item in count():
        person = user.person if auth == IN else NOBODY
        song = draw_song() if page == PLAY else NO_SONG
        method, status = RESPONSES.get(page, ("GET", 200))
        yield {
            "artist": song.artist,
            "auth": auth,
            "firstName": person.first_name,
            "gender": person.gender,
            "itemInSession": item,
            "lastName": person.last_name,
            "length": song.length,
            "level": user.level,
            "location": person.location,
            "method": method,
            "page": page,
            "registration": person.registration,
            "sessionId": session_id,
            "song": song.title,
            "status": status,
            "ts": second,
            "userAgent": person.user_agent,
            "userId": person.user_id,
        }
        following = _draw(rng, NEXT_PAGES[user.level if auth == IN else OUT][page])
        if following == END:
            return
        second += _pause(rng, song, following)
        auth = {"Login": IN, "Logout": OUT}.get(page, auth)
        user.level = {"Submit Upgrade": PAID, "Submit Downgrade": FREE}.get(page, user.level)
        page = following


def _pause(rng: Random, song: Song, following: str) -> int:
    """Return the seconds from one page to the next: a song is heard to its end if another one follows."""
    if song.length is not None:
        return int(song.length) if following == PLAY else int(song.length * 1.2 * rng.random())
    if RESPONSES.get(following) == REDIRECT:
        return 1
    part = rng.random()
    return min(3600, int(60 * part / (1 - part)))  # half of them are shorter than a minute


def _draw_song(rng: Random, catalogue: list[Song], star: list[Song], star_share: float) -> Song:
    """
    Return a song; those near the start of the star's songs, the catalogue, or the world's list, are the hits.

    Products rather than powers: the last digit of a power depends on the C library.
    """
    place = rng.random()
    if rng.random() < star_share:
        return star[int(len(star) * place * place * place)]
    if rng.random() < KNOWN_SHARE:
        return catalogue[int(len(catalogue) * place * (1 + 4 * place) / 5)]
    return _world_song(int(WORLD * place * place * place))


def _world_song(number: int) -> Song:
    """Return a song that the catalogue does not have, always the same for a number."""
    number = _scatter(number)
    artist = number % WORLD_ARTISTS
    return Song(
        artist=_log_spelling(_phrase(LISTS["artists"], _scatter(artist * artist // WORLD_ARTISTS))),
        title=_log_spelling(_title(number)),
        length=_length(_scatter(number)),
    )


def _log_spelling(text: str) -> str:
    """Return the text as the logs have it, whose writers took UTF-8 for Latin-1 twice."""
    return text.encode().decode("latin-1").encode().decode("latin-1")


def _is_plain(name: str) -> bool:
    """Return whether a name has nothing that the logs garble, and nothing of ``ODD_TITLES``."""
    tidy = name.isprintable() and name == " ".join(name.split())
    return tidy and name.isascii() and name.count('"') % 2 == 0


def _title(number: int) -> str:
    number, odd = divmod(number, 1000)
    title = _phrase(LISTS["titles"], number)
    return ODD_TITLES[odd].format(title) if odd < len(ODD_TITLES) else title


def _phrase(forms: Sequence[str], number: int) -> str:
    """Return one of the forms, filled with words: which ones, the number says."""
    number, form = divmod(number, len(forms))
    words = {}
    for kind, choices in LISTS["words"].items():
        number, index = divmod(number, len(choices))
        words[kind] = choices[index]
    return forms[form].format_map(words)


def _length(number: int) -> float:
    """Return the seconds of a song: the number picks a band, all equally likely, and a place in it."""
    quantiles = PROFILE["length_quantiles"]
    number, band = divmod(number, len(quantiles) - 1)
    shortest, longest = quantiles[band : band + 2]
    return (shortest * 100_000 + number % ((longest - shortest) * 100_000)) / 100_000


def _scatter(number: int) -> int:
    """Return the 64-bit number that SplitMix64 makes of another, far from what it makes of the next."""
    number = (number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 31


def _identifier(rng: Random, prefix: str) -> str:
    """Return an id of 18 characters in the manner of the Million Song Dataset."""
    return f"{prefix}{_letters(rng.getrandbits(32), 5)}12{rng.getrandbits(36):09X}"


def _letters(number: int, width: int) -> str:
    """Return a number in base 26, its lowest digits, as capital letters."""
    letters = ""
    for _ in range(width):
        number, digit = divmod(number, 26)
        letters = chr(ord("A") + digit) + letters
    return letters


def _log_line(event: Json) -> str:
    """Return an event in JSON as the logs write it: compact, ASCII, slashes escaped."""
    return ENCODER.encode(event).replace("/", "\\/")


def _draw(rng: Random, weighted: Weighted) -> Any:
    values, cumulative = weighted
    return values[bisect(cumulative, rng.random() * cumulative[-1], hi=len(values) - 1)]


def main() -> None:
    """Write a sample to the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m local.sample", description="Write invented input data.")
    parser.add_argument("folder", type=Path, help="what to create; it must be empty if it exists")
    parser.add_argument("--events", type=int, default=8000, help="events, about (default: %(default)s)")
    parser.add_argument(
        "--songs", type=int, default=300, help="songs in the catalogue (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="another seed, another sample (default: %(default)s)"
    )
    parser.add_argument("--days", type=int, default=30, help="days from 2018-11-01 on (default: %(default)s)")
    options = parser.parse_args()
    try:
        written = write_sample(**vars(options))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"Wrote {written.events:,} events and {written.songs:,} song objects to {options.folder}")


if __name__ == "__main__":
    main()
