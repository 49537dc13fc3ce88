"""What an operator reloads replaces what is stored, and a wrong prefix or window destroys nothing."""

import pytest

from sparkify.compat import AirflowFailException
from sparkify.tables import STAR
from tests.conftest import rows
from tests.runs import EVENT, OTHER_SONG, SONG

DAY = 86_400_000
WINDOW = {"replace_from": "2018-11-21T00:00:00Z", "replace_to": "2018-11-22T00:00:00Z"}


def star(warehouse):
    return {table: sorted(rows(warehouse, f"SELECT * FROM {table}"), key=str) for table in STAR}


@pytest.mark.parametrize("params", [{}, WINDOW, {"dry_run": True}, {"check_ledger": True}], ids=str)
def test_a_prefix_that_matches_no_file_is_refused_before_anything_is_changed(runs, warehouse, params):
    runs.put("log_data/2018/11/21.json", EVENT | {"itemInSession": 2})
    runs()
    before = star(warehouse)
    with pytest.raises(
        (ValueError, AirflowFailException),
        match=r"s3://runs/log_data/2018/11/ \(1 files\), .* 21\.json\. Corr",
    ):
        runs(reload_prefix="s3://runs/log_data/2018/11/2018", **params)
    assert runs.pipeline.current_task == "find_new_files"
    assert star(warehouse) == before


@pytest.mark.parametrize("prefix", ["s3://runs/log_data/2.json", "s3://runs/song_data/"])
def test_a_window_that_the_reloaded_files_do_not_cover_is_refused_before_anything_is_deleted(
    runs,
    warehouse,
    prefix,
):
    runs.put("log_data/2.json", EVENT | {"sessionId": 819, "ts": EVENT["ts"] + DAY})
    runs()
    before = star(warehouse)
    with pytest.raises(AirflowFailException, match=r"from 2018-11-21T00.* nothing was changed: the .* file"):
        runs(reload_prefix=prefix, **WINDOW)
    assert runs.pipeline.current_task == "load_fact_songplays"
    assert star(warehouse)["fact_songplays"] == before["fact_songplays"]
    assert star(warehouse)["dim_time"] == before["dim_time"]


def test_an_hour_that_the_reloaded_files_do_not_cover_is_named(runs, warehouse):
    runs.put("log_data/2.json", EVENT | {"sessionId": 819, "ts": EVENT["ts"] - DAY // 12})
    runs()
    before = star(warehouse)
    with pytest.raises(
        AirflowFailException, match=r"1 rows would be deleted from 1 hours .*: 2018-11-21 19:00 "
    ):
        runs(reload_prefix="s3://runs/log_data/1.json", **WINDOW)
    assert star(warehouse)["fact_songplays"] == before["fact_songplays"]
    assert runs(reload_prefix="s3://runs/log_data/", **WINDOW)["load_fact_songplays"]["deleted"] == 3
    assert star(warehouse) == before


def test_a_correction_that_sorts_lower_arrives_if_it_is_reloaded(runs, warehouse):
    songs = "SELECT song_id, title, year FROM dim_songs ORDER BY song_id"
    artists = "SELECT name, location, latitude FROM dim_artists"
    users = "SELECT user_id, level, first_name FROM dim_users"
    wrong = {
        "title": "Zeta",
        "year": 2999,
        "artist_location": "Rome",
        "artist_latitude": 1.5,
        "artist_longitude": 2,
    }
    runs.put("song_data/other.json", SONG | wrong | {"year": 1999}, OTHER_SONG)
    runs()
    runs.put("song_data/other.json", SONG, OTHER_SONG)
    corrected = EVENT | {"level": "free", "firstName": "Li"}
    runs.put("log_data/1.json", corrected, corrected | {"itemInSession": 1, "ts": EVENT["ts"] + 1000})
    runs()
    assert rows(warehouse, songs) == [("SO1", "Zeta", 1999), ("SO9", "Another", 0)]
    assert rows(warehouse, artists) == [("Elena", "Rome", 1.5)]
    assert rows(warehouse, users) == [("15", "paid", "Lily")]
    runs(reload_prefix="s3://runs/")
    assert rows(warehouse, songs) == [("SO1", "Setanta matins", 0), ("SO9", "Another", 0)]
    assert rows(warehouse, artists) == [("Elena", None, None)]
    assert rows(warehouse, users) == [("15", "free", "Li")]
    after = star(warehouse)
    runs(check_ledger=True)
    assert star(warehouse) == after


def test_reloading_yesterdays_file_does_not_undo_todays_event(runs, warehouse):
    runs.put("log_data/today.json", EVENT | {"sessionId": 819, "ts": EVENT["ts"] + DAY, "level": "free"})
    runs()
    before = star(warehouse)
    runs(reload_prefix="s3://runs/log_data/1.json")
    assert star(warehouse) == before


def test_reloading_a_file_that_lost_the_last_play_of_a_user_asks_for_a_window(runs, warehouse):
    other = EVENT | {"userId": "8", "sessionId": 900, "ts": EVENT["ts"] + 5000}
    runs.put("log_data/1.json", EVENT, EVENT | {"itemInSession": 1, "ts": EVENT["ts"] + 1000}, other)
    runs()
    runs.put("log_data/1.json", EVENT, other)
    runs()
    with pytest.raises(AirflowFailException, match="reload them with replace_from and replace_to"):
        runs(reload_prefix="s3://runs/log_data/")
    assert runs(reload_prefix="s3://runs/log_data/", **WINDOW)["load_fact_songplays"]["deleted"] == 3
    assert rows(warehouse, "SELECT COUNT(*) FROM fact_songplays") == [(2,)]
