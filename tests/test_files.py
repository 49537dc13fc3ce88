"""What is kept of a listing, and what an address on S3 may be."""

import tracemalloc
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from sparkify.files import list_prefix, split_url

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
