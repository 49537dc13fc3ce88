import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from local.sample import PROFILE, main, write_sample
from tests.expected_star import REAL_DATA, Json, expected_star, read_events, read_songs

PLAY = "NextSong"
GARBLED = "Ã\x83Â"  # how a letter like é begins after UTF-8 was taken for Latin-1 twice


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "demo"
    write_sample(folder)
    return folder


@pytest.fixture(scope="module")
def events(sample: Path) -> list[Json]:
    return list(read_events(sample))


@pytest.fixture(scope="module")
def plays(events: list[Json]) -> list[Json]:
    return [event for event in events if event["page"] == PLAY]


@pytest.fixture(scope="module")
def sessions(events: list[Json]) -> list[list[Json]]:
    return by_session(events)


@pytest.fixture(scope="module")
def many_sessions(tmp_path_factory: pytest.TempPathFactory) -> list[list[Json]]:
    """The sessions of a sample that is large enough for its frequencies to be compared."""
    folder = tmp_path_factory.mktemp("sample") / "large"
    write_sample(folder, events=60_000)
    return by_session(read_events(folder))


@pytest.fixture(scope="module")
def songs(sample: Path) -> list[Json]:
    return list(read_songs(sample))


def by_session(events: Iterable[Json]) -> list[list[Json]]:
    found = defaultdict(list)
    for event in events:
        found[event["sessionId"]].append(event)
    return list(found.values())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json")}


def first_log(folder: Path) -> str:
    return min(folder.glob("log_data/**/*.json")).read_text(encoding="ascii")


def test_the_same_seed_gives_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path)
    assert contents(tmp_path) == contents(sample)


def test_another_seed_gives_other_files(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path, seed=2)
    assert not contents(tmp_path).items() & contents(sample).items()


def test_the_return_value_counts_what_was_written(tmp_path: Path) -> None:
    written = write_sample(tmp_path, events=1000, songs=200, days=3)
    assert written.events == len(list(read_events(tmp_path)))
    assert written.songs == len(list(read_songs(tmp_path)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_month_has_about_eight_thousand_events(tmp_path: Path, seed: int) -> None:
    written = write_sample(tmp_path, seed=seed)
    assert 7600 <= written.events <= 8400


@pytest.mark.parametrize(("events", "songs", "days"), [(1, 1, 1), (1, 3, 30), (60, 4, 400), (3000, 2, 1)])
def test_samples_of_any_size_hold_about_what_was_asked_for(
    tmp_path: Path, events: int, songs: int, days: int
) -> None:
    for seed in range(5):
        written = write_sample(tmp_path / str(seed), events=events, songs=songs, days=days, seed=seed)
        assert 1 <= written.events <= events + 50
        assert written.songs == songs


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty: remove it, or name another"):
        write_sample(tmp_path)


def test_what_a_dead_run_left_behind_does_not_get_into_the_sample(tmp_path: Path) -> None:
    (tmp_path / "sample.unfinished/log_data").mkdir(parents=True)
    (tmp_path / "sample.unfinished/log_data/half.json").write_text("{")
    write_sample(tmp_path / "sample", events=100)
    assert list(tmp_path.iterdir()) == [tmp_path / "sample"]
    assert all(content != b"{" for content in contents(tmp_path).values())


@pytest.mark.parametrize("nothing", [{"events": 0}, {"songs": 0}, {"days": 0}])
def test_a_sample_of_nothing_is_refused(tmp_path: Path, nothing: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one event, one song and one day"):
        write_sample(tmp_path, **nothing)


def test_the_command_says_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sample", str(tmp_path), "--events=500", "--songs=20", "--days=2"])
    main()
    number = len(list(read_events(tmp_path)))
    assert capsys.readouterr().out == f"Wrote {number} events and 20 song objects to {tmp_path}\n"


def test_every_event_is_in_the_file_of_its_utc_day(sample: Path) -> None:
    for path in sample.glob("log_data/**/*.json"):
        for event in map(json.loads, path.read_text(encoding="ascii").split("\n")):
            day = datetime.fromtimestamp(event["ts"] / 1000, UTC)
            assert path.relative_to(sample / "log_data") == Path(f"{day:%Y/%m/%Y-%m-%d}-events.json")


def test_a_file_is_in_order_of_time(sample: Path) -> None:
    for path in sample.glob("log_data/**/*.json"):
        times = [json.loads(line)["ts"] for line in path.read_text(encoding="ascii").split("\n")]
        assert times == sorted(times)


def test_the_days_are_those_asked_for(tmp_path: Path) -> None:
    write_sample(tmp_path, events=2000, start=date(2024, 2, 28), days=3)
    names = sorted(path.name[:10] for path in tmp_path.glob("log_data/2024/0[23]/*.json"))
    assert names == ["2024-02-28", "2024-02-29", "2024-03-01"]


def test_song_files_lie_in_the_folders_of_their_name(sample: Path) -> None:
    for path in sample.glob("song_data/**/*.json"):
        assert path.parent == sample.joinpath("song_data", *path.name[2:5])
        assert len(path.name) == len("TRABBNP128F932546F.json")


def test_log_lines_have_the_form_of_the_real_ones(sample: Path, events: list[Json]) -> None:
    line = first_log(sample).split("\n")[0]
    assert line == json.dumps(events[0], separators=(",", ":")).replace("/", "\\/")
    assert not first_log(sample).endswith("\n")
    assert list(events[0]) == sorted(events[0])


def test_real_log_lines_have_the_same_keys_and_types(events: list[Json]) -> None:
    if not (REAL_DATA / "song_data").is_dir():
        pytest.skip(f"the real data is not in {REAL_DATA}; set SPARKIFY_REAL_DATA to its folder")
    real = list(read_events(REAL_DATA))
    assert {tuple(event) for event in events} == {tuple(event) for event in real}
    assert forms(events) == forms(real)


def test_real_song_objects_have_the_same_keys_and_types(songs: list[Json]) -> None:
    if not (REAL_DATA / "song_data").is_dir():
        pytest.skip(f"the real data is not in {REAL_DATA}; set SPARKIFY_REAL_DATA to its folder")
    real = list(read_songs(REAL_DATA))
    assert {tuple(song) for song in songs} == {tuple(song) for song in real}
    assert forms(songs) == forms(real)


def forms(objects: list[Json]) -> set[tuple[str, type]]:
    return {(key, type(value)) for item in objects for key, value in item.items()}


def test_a_page_has_one_method_and_status(events: list[Json]) -> None:
    answers = {event["page"]: (event["method"], event["status"]) for event in events}
    assert all((event["method"], event["status"]) == answers[event["page"]] for event in events)
    assert (answers[PLAY], answers["Home"], answers["Login"]) == (("PUT", 200), ("GET", 200), ("PUT", 307))


def test_the_items_of_a_session_have_no_gap(sessions: list[list[Json]]) -> None:
    for session in sessions:
        assert [event["itemInSession"] for event in session] == list(range(len(session)))


def test_a_song_followed_by_a_song_is_heard_to_its_end(sessions: list[list[Json]]) -> None:
    pairs = [(a, b) for session in sessions for a, b in pairwise(session) if a["page"] == b["page"] == PLAY]
    assert len(pairs) > 4000
    assert all(b["ts"] - a["ts"] == int(a["length"]) * 1000 for a, b in pairs)


def test_times_end_in_the_same_millisecond(events: list[Json]) -> None:
    assert {event["ts"] % 1000 for event in events} == {796}
    assert {event["registration"] % 1000 for event in events if event["userId"]} == {796}


def test_no_event_is_before_its_user_registered(events: list[Json]) -> None:
    assert all(event["registration"] <= event["ts"] for event in events if event["userId"])


def test_a_level_changes_only_after_it_was_submitted(many_sessions: list[list[Json]]) -> None:
    changes = Counter(
        (a["page"], b["level"]) for s in many_sessions for a, b in pairwise(s) if a["level"] != b["level"]
    )
    assert set(changes) == {("Submit Upgrade", "paid"), ("Submit Downgrade", "free")}
    assert changes["Submit Upgrade", "paid"] > 4 * changes["Submit Downgrade", "free"]


def test_a_user_keeps_the_level_from_one_session_to_the_next(sessions: list[list[Json]]) -> None:
    levels: dict[str, str] = {}
    for session in sessions:
        first = next((event for event in session if event["userId"]), None)
        if first:
            assert levels.get(first["userId"], first["level"]) == first["level"]
            levels[first["userId"]] = session[-1]["level"]


def test_sessions_of_one_user_do_not_overlap(sessions: list[list[Json]]) -> None:
    ends: dict[str, int] = {}
    for session in sessions:
        for user_id in {event["userId"] for event in session} - {""}:
            assert ends.get(user_id, 0) < session[0]["ts"]
            ends[user_id] = session[-1]["ts"]


def test_pages_follow_each_other_as_often_as_in_the_public_data(many_sessions: list[list[Json]]) -> None:
    found: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for session in many_sessions:
        for event, following in pairwise([*session, {"page": "END"}]):
            state = event["level"] if event["auth"] == "Logged In" else "Logged Out"
            found[state, event["page"]][following["page"]] += 1
    compared = [(state, page) for (state, page), following in found.items() if following.total() > 1000]
    assert {("free", PLAY), ("paid", PLAY), ("free", "Home")} <= set(compared)
    for state, page in compared:
        expected = PROFILE["next_page"][state][page]
        assert shares(found[state, page]) == pytest.approx(shares(expected), abs=0.03), (state, page)


def test_sessions_start_when_they_do_in_the_public_data(many_sessions: list[list[Json]]) -> None:
    hours = Counter(datetime.fromtimestamp(session[0]["ts"] / 1000, UTC).hour for session in many_sessions)
    expected = dict(enumerate(PROFILE["session_starts_by_hour"]))
    assert shares(hours) == pytest.approx(shares(expected), abs=0.01)


def test_songs_are_as_long_as_in_the_public_data(many_sessions: list[list[Json]]) -> None:
    lengths = [event["length"] for session in many_sessions for event in session if event["page"] == PLAY]
    quantiles = PROFILE["length_quantiles"]
    for number, quantile in enumerate(quantiles):
        share = sum(length < quantile for length in lengths) / len(lengths)
        assert share == pytest.approx(number / (len(quantiles) - 1), abs=0.06), quantile


def shares(numbers: Mapping[Any, int]) -> dict[Any, float]:
    return {key: number / sum(numbers.values()) for key, number in numbers.items() if number}


def test_paying_users_listen_longer(sessions: list[list[Json]]) -> None:
    by_level = defaultdict(list)
    for session in sessions:
        by_level[session[0]["level"]].append(len(session))
    means = {level: sum(lengths) / len(lengths) for level, lengths in by_level.items()}
    assert means["paid"] > 5 * means["free"]


def test_events_of_nobody_name_nobody(events: list[Json]) -> None:
    nobody = [event for event in events if event["auth"] == "Logged Out"]
    about = ("firstName", "lastName", "gender", "location", "registration", "userAgent")
    assert len(nobody) > 100
    assert all(event["userId"] == "" and event["level"] for event in nobody)
    assert {event[name] for event in nobody for name in about} == {None}


def test_only_plays_have_a_song(events: list[Json]) -> None:
    for event in events:
        has_song = {event[name] is not None for name in ("artist", "song", "length")}
        assert has_song == {event["page"] == PLAY}


def test_some_sessions_cross_midnight(sessions: list[list[Json]]) -> None:
    days = [{event["ts"] // 86_400_000 for event in session} for session in sessions]
    assert sum(len(of_session) > 1 for of_session in days) >= 3


def test_a_third_of_the_plays_matches_a_song(events: list[Json], songs: list[Json]) -> None:
    plays = expected_star(events, songs)["fact_songplays"]
    assert 0.25 < sum(play[4] is not None for play in plays) / len(plays) < 0.42


def test_most_songs_are_played_once_and_a_few_often(plays: list[Json]) -> None:
    times = Counter((play["song"], play["artist"]) for play in plays)
    assert max(times.values()) > 20
    assert sum(number == 1 for number in times.values()) > 0.6 * len(times)


def test_few_users_make_most_of_the_plays(plays: list[Json]) -> None:
    top = Counter(play["userId"] for play in plays).most_common(20)
    assert sum(number for _, number in top) > 0.6 * len(plays)


def test_two_users_share_a_name(events: list[Json]) -> None:
    names = {event["userId"]: (event["firstName"], event["lastName"]) for event in events if event["userId"]}
    assert len(set(names.values())) < len(names)


@pytest.mark.parametrize("odd", ["'", "  ", '"', "\x19", "\x18", GARBLED, "/"])
def test_song_titles_hold_odd_text(plays: list[Json], odd: str) -> None:
    assert any(odd in play["song"] for play in plays)


def test_some_titles_begin_and_some_end_with_a_space(plays: list[Json]) -> None:
    titles = {play["song"] for play in plays}
    assert any(title.startswith(" ") for title in titles)
    assert any(title.endswith(" ") for title in titles)


def test_the_catalogue_spells_right_what_the_logs_garble(plays: list[Json], songs: list[Json]) -> None:
    garbled = {play["song"] for play in plays if GARBLED in play["song"]}
    repaired = {title.encode("latin-1").decode().encode("latin-1").decode() for title in garbled}
    assert repaired & {song["title"] for song in songs}
    assert not garbled & {song["title"] for song in songs}


def test_a_part_of_the_user_agents_is_in_quotes(plays: list[Json]) -> None:
    quoted = sum(play["userAgent"].startswith('"') for play in plays)
    assert 0.1 < quoted / len(plays) < 0.9


def test_some_songs_differ_only_in_their_ids(songs: list[Json]) -> None:
    twins = defaultdict(set)
    for song in songs:
        twins[song["title"], song["artist_name"], song["duration"]].add((song["song_id"], song["artist_id"]))
    assert any(len(ids) > 1 for ids in twins.values())


def test_some_songs_have_two_files_that_differ(songs: list[Json]) -> None:
    versions = defaultdict(set)
    for song in songs:
        versions[song["song_id"]].add((song["title"], song["artist_location"]))
    assert sum(len(differing) > 1 for differing in versions.values()) == 3


def test_some_artists_differ_from_record_to_record(songs: list[Json]) -> None:
    names, places = defaultdict(set), defaultdict(set)
    for song in songs:
        names[song["artist_id"]].add(song["artist_name"])
        places[song["artist_id"]].add((song["artist_location"], song["artist_latitude"]))
    assert any(f"{min(spellings)} feat. " in max(spellings) for spellings in names.values())
    assert any(len(versions) > 1 for versions in places.values())


def test_coordinates_are_there_or_missing_together(songs: list[Json]) -> None:
    present = {(song["artist_latitude"] is None, song["artist_longitude"] is None) for song in songs}
    assert present == {(True, True), (False, False)}


def test_ten_thousand_events_a_second_are_written(tmp_path: Path) -> None:
    began = time.process_time()
    written = write_sample(tmp_path, events=50_000)
    assert written.events == pytest.approx(50_000, rel=0.05)
    assert time.process_time() - began < 5
