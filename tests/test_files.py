"""What is kept of a listing."""

import tracemalloc
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from sparkify.files import list_prefix

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
