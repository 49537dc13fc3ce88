"""Which ranges of a column's values a load looks at."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkify.ranges import HOUR, MOST_RANGES, Index, Ranges, ranges_of_steps, ranges_of_times
from sparkify.sql import Result


def ranges(asking, steps):
    next(asking)
    with pytest.raises(StopIteration) as end:
        asking.send(Result(["step"], [(step,) for step in steps], -1))
    return end.value.value


def covered(value, found):
    return any(low < value < high for low, high in found.pairs)


@given(st.sets(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_every_session_is_in_one_of_a_few_ranges(sessions):
    # As Redshift divides whole numbers, which is toward zero
    steps = sorted({abs(session) // 1000 * 1000 * (1 if session > 0 else -1) for session in sessions})
    found = ranges(Index("etl_sessions", "session_id").near("batch"), steps)
    assert len(found.pairs) <= MOST_RANGES
    assert all(covered(session, found) for session in sessions)
    assert all(before[1] < after[0] for before, after in zip(found.pairs, found.pairs[1:], strict=False))


@given(st.sets(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)), min_size=1))
def test_every_time_is_in_one_of_a_few_ranges(times):
    steps = sorted({time.replace(minute=0, second=0, microsecond=0) for time in times})
    found = ranges(ranges_of_times("start_time", "batch"), steps)
    assert len(found.pairs) <= MOST_RANGES
    assert all(covered(time, found) for time in times)


def test_the_widest_gaps_are_left_out():
    steps = [0, 1, *(100 * number for number in range(1, 9)), 5000, 9000]
    assert ranges(ranges_of_steps("SELECT …", 1), steps).pairs == [
        (-1, 101),
        *((199, 201), (299, 301), (399, 401), (499, 501)),
        (599, 801),
        *((4999, 5001), (8999, 9001)),
    ]


def test_neighbours_are_one_range():
    hours = [datetime(2018, 11, 21, 20) + number * HOUR for number in range(3)]
    found = ranges(ranges_of_times("start_time", "batch"), hours)
    assert found.pairs == [(hours[0] - HOUR, hours[2] + timedelta(hours=1))]


def test_a_condition_begins_with_the_range_over_all():
    assert Ranges([(0, 2), (8, 10)]).hold("t.n") == (
        "t.n > 0 AND t.n < 10 AND ((t.n > 0 AND t.n < 2) OR (t.n > 8 AND t.n < 10))"
    )
    assert Ranges([(0, 2)]).hold("n") == "n > 0 AND n < 2"
    assert Ranges().hold("n") == "1 = 1"
