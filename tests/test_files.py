"""Listings, addresses on S3, and files that cannot be written or read."""

import tracemalloc
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from sparkify.files import SourceError, list_prefix, open_object, split_url, write_text

PAGES, PAGE = 20, 1000


def pages(**_):
    """Yield pages as boto3 makes them of S3's answers."""
    for page in range(PAGES):
        yield {
            "Contents": [
                {
                    "Key": f"log_data/2018/11/30/part-{page * PAGE + number:08}.json",
                    "LastModified": datetime(2018, 11, 30, tzinfo=UTC),
                    "ETag": f'"{number:032x}"',
                    "Size": 1 + number,
                    "ChecksumAlgorithm": ["CRC64NVME"],
                    "ChecksumType": "FULL_OBJECT",
                    "StorageClass": "STANDARD",
                }
                for number in range(PAGE)
            ]
        }


def test_of_each_page_only_what_is_used_is_kept():
    paginator = SimpleNamespace(paginate=pages)
    s3: Any = SimpleNamespace(get_conn=lambda: SimpleNamespace(get_paginator=lambda _: paginator))
    tracemalloc.start()
    listing = list_prefix(s3, "s3://udacity-dend/log_data/")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(listing.objects) == PAGES * PAGE
    assert peak < 1.5 * held


@pytest.mark.parametrize("key", ["log_data/", "", "bob's phone.json", "a\\b", 'a"b\n%s\x01', "é 😀/?#"])
def test_a_key_may_have_any_characters(key):
    assert split_url(f"s3://udacity-dend/{key}") == ("udacity-dend", key)


@pytest.mark.parametrize(
    "url", ["s3://a'b/key", "s3://bucket", "https://bucket/key", "s3://B/key", "key", " s3://b/k"]
)
def test_anything_else_is_no_address(url):
    with pytest.raises(ValueError, match="is not an S3 address of the form s3://bucket/key"):
        split_url(url)


def test_a_work_file_whose_bucket_does_not_exist_names_the_variable(s3):
    with pytest.raises(SourceError) as failure:
        write_text(s3, "s3://no-such-bucket/runs/a.json", "{}")
    assert str(failure.value) == (
        "Cannot write s3://no-such-bucket/runs/a.json: The specified bucket does not exist (NoSuchBucket):"
        " there is no such bucket: correct the name, or create it. The Airflow variable sparkify_work_prefix"
        " names the bucket"
    )


def test_a_work_file_that_has_expired_says_what_to_trigger(s3):
    with pytest.raises(SourceError) as failure:
        open_object(s3, "s3://sparkify-etl/runs/expired.json")
    assert str(failure.value) == (
        "The work file s3://sparkify-etl/runs/expired.json is gone: work files may expire. Trigger a new run"
        " instead of clearing this one"
    )
