"""Parameters of a run that would destroy something, or do nothing, are refused."""

import pytest

from sparkify.params import check_reload_prefix

URLS = [
    *(f"s3://udacity-dend/log_data/2018/11/{day:02}/events.json" for day in range(1, 31)),
    "s3://udacity-dend/song_data/A/A/TRA.json",
    "s3://udacity-dend/song_data/bob's.json",
]


@pytest.mark.parametrize(
    "prefix",
    [
        None,
        "",
        "s3://u",
        "s3://udacity-dend/log_data/2018/11/07",
        "s3://udacity-dend/song_data/bob's",
        URLS[-1],
    ],
)
def test_a_prefix_that_matches_a_file_is_accepted(prefix):
    check_reload_prefix({"reload_prefix": prefix}, URLS)


@pytest.mark.parametrize(
    ("prefix", "nearest"),
    [
        (
            "s3://udacity-dend/log_data/2018/11/7",
            "s3://udacity-dend/log_data/2018/11/ (30 files), below which there is 07/, 17/, 27/.",
        ),
        (
            "s3://udacity-dend/log-data/2018/11/07/",
            "s3://udacity-dend/ (32 files), below which there is log_data/, song_data/.",
        ),
        ("s3://udacity-dent/log_data/", "s3:// (32 files), below which there is udacity-dend/."),
        (
            "s3://udacity-dend/song_data/A/A/TRB.json",
            "s3://udacity-dend/song_data/A/A/ (1 files), below which there is TRA.json.",
        ),
        (
            "s3://udacity-dend/log_data/2018/11/07/events.json/",
            "s3://udacity-dend/log_data/2018/11/07/ (1 files), below which there is events.json.",
        ),
    ],
)
def test_a_prefix_that_matches_no_file_is_refused_with_the_nearest_that_does(prefix, nearest):
    with pytest.raises(ValueError, match=f"reload_prefix {prefix} matches no file") as refused:
        check_reload_prefix({"reload_prefix": prefix}, URLS)
    assert f"The nearest prefix that matches any is {nearest} Correct reload_prefix" in str(refused.value)


def test_without_any_file_a_prefix_is_refused_too():
    with pytest.raises(ValueError, match="matches no file"):
        check_reload_prefix({"reload_prefix": "s3://udacity-dend/"}, [])
