import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from sparkify.batches import TURN
from sparkify.compat import AirflowFailException
from sparkify.operators import LoadFactOperator, load_fact
from sparkify.rejects import find_rejected_rows
from sparkify.sql import run_in_transaction
from tests.conftest import context, rows

REJECTED = "SELECT 'userid' AS column_name, 'no user' AS reason, 7 AS sessionid, '' AS userid"


@pytest.fixture
def events(warehouse):
    warehouse.run(
        [
            "DROP TABLE IF EXISTS events",
            "CREATE TABLE events (id INTEGER, what VARCHAR(10), begun TIMESTAMP) SORTKEY (begun)",
        ]
    )
    yield lambda: rows(warehouse, "SELECT id, what FROM events ORDER BY id")
    warehouse.run("DROP TABLE events")


def facts(**facts):
    return " UNION ALL ".join(
        f"SELECT {name[1:]}, '{what}', TIMESTAMP '2018-11-01 10:59:59'" for name, what in facts.items()
    )


def load(sql, **changes):
    defaults = {"task_id": "load", "table": "events", "key": ["id"], "sql": sql, "time_column": "begun"}
    return LoadFactOperator(**defaults | changes)


def test_a_batch_loaded_twice_is_there_once(events):
    for expected in ({"inserted": 2, "unchanged": 0}, {"inserted": 0, "unchanged": 2}):
        counts = load(facts(_1="play", _2="play")).execute(context(run_id="1"))
        where = {
            "within": "begun > '2018-11-01 09:00:00' AND begun < '2018-11-01 11:00:00'",
            "indexed": "1 = 1",
        }
        assert counts == {"updated": 0, "rejected": 0, "deleted": 0, **where, **expected}
    assert events() == [(1, "play"), (2, "play")]


def test_identical_copies_in_a_batch_collapse(events):
    load(f"{facts(_1='play')} UNION ALL {facts(_1='play')}").execute(context(run_id="1"))
    assert events() == [(1, "play")]


def test_facts_of_other_batches_stay_and_a_changed_one_is_replaced(events):
    load(facts(_1="play", _2="play")).execute(context(run_id="1"))
    assert load(facts(_2="stop")).execute(context(run_id="2"))["updated"] == 1
    assert events() == [(1, "play"), (2, "stop")]


def test_a_try_beside_one_that_airflow_has_given_up_waits_for_it(events, warehouse):
    loaded, given_up = Event(), Event()

    def first():
        yield from load(facts(_1="play")).transaction("1")
        loaded.set()
        given_up.wait(timeout=60)

    with ThreadPoolExecutor() as pool:
        pool.submit(run_in_transaction, warehouse, first())
        loaded.wait(timeout=60)
        second = pool.submit(load(facts(_1="play")).execute, context(run_id="1"))
        with pytest.raises(TimeoutError):
            second.result(timeout=2)
        given_up.set()
        assert second.result()["unchanged"] == 1
    assert events() == [(1, "play")]


def test_rejected_rows_of_a_run_are_kept_once(events, warehouse):
    for run in ("1", "1", "2"):
        result = load(facts(_1="play"), rejected_sql=REJECTED).execute(context(run_id=run))
        assert result["rejected"] == 1
    kept = rows(warehouse, "SELECT run_id, reason FROM etl_rejected_rows ORDER BY run_id")
    assert kept == [("1", "no user"), ("2", "no user")]


def test_a_rejected_row_is_kept_with_the_file_and_line_it_came_from(events, warehouse, s3):
    s3.create_bucket("fact-tests", region_name="us-west-2")
    lines = ['{"sessionId": 7, "userId": "8"}', "not json", '{"sessionId": 7, "userId": "", "song": "Élan"}']
    for name, text in (("a", lines[:1]), ("b", lines), ("c", ["[]", lines[2]])):
        s3.load_string("\n".join(text), f"{name}.json", "fact-tests", replace=True)
    entries = [{"url": f"s3://fact-tests/{name}.json", "mandatory": True} for name in "abc"]
    s3.load_string(json.dumps({"entries": entries}), "m", "fact-tests", replace=True)
    thrice = " UNION ALL ".join([REJECTED] * 3)
    load(facts(_1="play"), rejected_sql=thrice, manifest="s3://fact-tests/m").execute(context())
    assert rows(
        warehouse,
        "SELECT s3_key, line_number, column_name, reason, raw_value, raw_line"
        " FROM etl_rejected_rows ORDER BY s3_key",
    ) == [
        ("b.json", 3, "userid", "no user", "", lines[2]),
        ("c.json", 2, "userid", "no user", "", lines[2]),
        (None, None, "userid", "no user", "", '{"sessionid": "7", "userid": ""}'),
    ]


def test_no_other_transaction_waits_while_s3_is_read(events, warehouse, monkeypatch):
    def find(s3, manifest, rejected):
        with ThreadPoolExecutor() as pool:  # raises TimeoutError if it waits
            pool.submit(run_in_transaction, warehouse, iter_turn()).result(timeout=30)
        return find_rejected_rows(s3, manifest, rejected)

    def iter_turn():
        yield TURN

    monkeypatch.setattr(load_fact, "find_rejected_rows", find)
    load(facts(_1="play"), rejected_sql=REJECTED).execute(context())
    assert rows(warehouse, "SELECT COUNT(*) FROM etl_rejected_rows") == [(1,)]


def test_a_later_try_without_rejected_rows_removes_those_of_the_earlier_one(events, warehouse):
    load(facts(_1="play"), rejected_sql=REJECTED).execute(context())
    load(facts(_1="play"), rejected_sql=f"SELECT * FROM ({REJECTED}) AS none WHERE 1 = 0").execute(context())
    assert rows(warehouse, "SELECT COUNT(*) FROM etl_rejected_rows") == [(0,)]


def test_without_the_rejected_rows_no_facts_are_loaded(events):
    with pytest.raises(Exception, match="division by zero"):
        load(facts(_1="play"), rejected_sql="SELECT 1 / 0").execute(context(run_id="1"))
    assert events() == []


def test_a_run_id_that_could_end_a_string_does_not(events, warehouse):
    run_id = "'; DROP TABLE events; --"
    load(facts(_1="play"), rejected_sql=REJECTED).execute(context(run_id=run_id))
    assert events() == [(1, "play")]
    assert rows(warehouse, "SELECT run_id FROM etl_rejected_rows") == [(run_id,)]


WINDOW = {"replace_from": "2018-11-01T10:00:00Z", "replace_to": "2018-11-02T02:00:00+02:00"}


def at(**times):
    """Return a SELECT of facts: their id and what they are, and the time of each on 2018-11-01."""
    return " UNION ALL ".join(
        f"SELECT {name[1:]}, 'play', TIMESTAMP '2018-11-01 {time}'" for name, time in times.items()
    )


@pytest.fixture
def eleven_events(events):
    """Facts of hours from 10 to 20, and one of midnight."""
    load(at(_0="00:00", **{f"_{hour}": f"{hour}:30" for hour in range(10, 21)})).execute(context())
    return events


def test_a_window_is_replaced_by_files_that_lost_lines(eleven_events):
    load(f"{at(_10='10:00', _11='11:59:59.999')} UNION ALL {at(_99='11:30', _98='12:10')}").execute(context())
    counts = load(at(**{f"_{hour}": f"{hour}:31" for hour in range(10, 21)}), **WINDOW).execute(context())
    assert (counts["deleted"], counts["inserted"]) == (13, 11)
    assert [number for number, _ in eleven_events()] == [0, *range(10, 21)]


def test_a_window_with_hours_that_the_files_do_not_cover_is_refused_before_anything_is_deleted(eleven_events):
    before = eleven_events()
    with pytest.raises(AirflowFailException) as refused:
        load(at(_10="10:10", _20="20:10", _21="21:10"), **WINDOW).execute(context())
    assert str(refused.value).startswith(
        "The rows of events from 2018-11-01T10:00:00Z to 2018-11-02T02:00:00+02:00 were not replaced, and"
        " nothing was changed: 9 rows would be deleted from 9 hours (UTC) in which the staged files have"
        " none: 2018-11-01 11:00 (1 rows), 2018-11-01 12:00 (1 rows), "
    )
    assert "Trigger a new run with a reload_prefix that matches all files of this time" in str(refused.value)
    assert eleven_events() == before


def test_of_many_hours_some_are_named(eleven_events):
    with pytest.raises(AirflowFailException, match=r"19:00 \(1 rows\), 2018.* \(1 rows\)\. Trigger"):
        load(at(_10="10:10"), **WINDOW).execute(context())
    load(at(**{f"_{hour}": f"{hour}:30" for hour in (21, 22, 23)})).execute(context())
    with pytest.raises(AirflowFailException, match=r"20:00 \(1 rows\), and 3 more hours\. Trigger"):
        load(at(_10="10:10"), **WINDOW).execute(context())


@pytest.mark.parametrize("elsewhere", ["09:59:59.999", "00:00"])
def test_a_window_is_refused_if_the_files_have_nothing_in_it(eleven_events, elsewhere):
    before = eleven_events()
    with pytest.raises(AirflowFailException, match="the staged files have no row in this time"):
        load(at(_50=elsewhere), **WINDOW).execute(context())
    later = {"replace_from": "2018-12-01T00:00:00", "replace_to": "2018-12-02T00:00:00"}
    with pytest.raises(AirflowFailException, match="the staged files have no row in this time"):
        load(at(_50="10:00"), **later).execute(context())
    assert eleven_events() == before


def test_a_window_is_refused_if_nothing_was_staged(eleven_events, warehouse):
    warehouse.run("INSERT INTO etl_batches VALUES ('staging_events', 'run 1', 0, SYSDATE)")
    before = eleven_events()
    with pytest.raises(AirflowFailException, match="the run staged no file"):
        load(at(_10="10:00"), reads=["staging_events"], **WINDOW).execute(context())
    assert eleven_events() == before


def test_a_window_may_be_replaced_twice(eleven_events):
    corrected = at(**{f"_{hour}": f"{hour}:31" for hour in range(10, 21)})
    deleted = [load(f"-- why\n{corrected}", **WINDOW).execute(context())["deleted"] for _ in range(2)]
    assert deleted == [11, 11]
