"""ListObjectsV2 of the local S3 against moto's own, byte by byte."""

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus, urlencode
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import S3Backend, s3_backends
from werkzeug.test import Client

from local.listings import listings_first
from local.settings import ACCOUNT, REGION

BUCKET = "listings"
_REQUEST = re.compile(b"<RequestId>.*</RequestId>")  # in errors
# Some of all that URLs and XML treat in ways of their own, and few letters, so that prefixes are met.
KEYS = st.text("ab/ +&<>%\"'=;é\x01\x7f\r\n😀", min_size=1, max_size=4)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "prefix": st.text("ab/ +é😀", max_size=2),
        "start-after": KEYS | st.just(""),
        "max-keys": st.sampled_from(["0", "1", "2", "3", "1000", "2000"]),
        "encoding-type": st.just("url"),
    },
)


class Moto:
    """Moto's server, which counts its requests."""

    def __init__(self) -> None:
        self._application, self.requests = DomainDispatcherApplication(create_backend_app), 0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.requests += 1
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer


class Both:
    """The listings in front of moto, and moto alone, over the same objects."""

    def __init__(self) -> None:
        self.backend: S3Backend = s3_backends[ACCOUNT]["aws"]
        self.moto = Moto()
        self._ours, self._moto = Client(listings_first(self.moto, self.backend)), Client(self.moto)

    def new_bucket(self, *keys: str) -> None:
        self.remove_bucket()
        self.backend.create_bucket(BUCKET, REGION)
        for key in keys:
            self.backend.put_object(BUCKET, key, key.encode())

    def remove_bucket(self) -> None:
        if BUCKET in self.backend.buckets:
            self.backend.buckets[BUCKET].keys.clear()
            self.backend.delete_bucket(BUCKET)

    def get(self, query: str, path: str = f"/{BUCKET}") -> tuple[bytes, bool]:
        """Compare the answers to a request; return the body, and whether moto made it."""
        theirs = self._moto.get(path, query_string=query)
        before = self.moto.requests
        ours = self._ours.get(path, query_string=query)
        assert _REQUEST.sub(b"", ours.data) == _REQUEST.sub(b"", theirs.data)
        assert (ours.status, ours.content_type) == (theirs.status, theirs.content_type)
        assert ours.content_length == len(ours.data)
        return ours.data, self.moto.requests > before


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    both = Both()
    yield both
    both.remove_bucket()


@settings(deadline=None, max_examples=150)
@given(keys=st.sets(KEYS, max_size=8), asked=PARAMETERS, quoting=st.sampled_from([quote, quote_plus]))
def test_a_page_is_motos(both: Both, keys: set[str], asked: dict[str, str], quoting: Any) -> None:
    both.new_bucket(*keys)
    query = {"list-type": "2", **asked}
    _, by_moto = both.get(urlencode(query, quote_via=quoting))
    assert not by_moto


@settings(deadline=None, max_examples=75)
@given(
    keys=st.lists(KEYS, min_size=2, max_size=8, unique=True),
    asked=PARAMETERS,
    changes=st.lists(st.tuples(st.booleans(), KEYS), max_size=8),
    versioned=st.booleans(),
)
def test_pages_are_motos_while_keys_come_and_go(
    both: Both, keys: list[str], asked: dict[str, str], changes: list[tuple[bool, str]], versioned: bool
) -> None:
    both.new_bucket(*keys)
    if versioned:
        both.backend.put_bucket_versioning(BUCKET, "Enabled")
    query = {"list-type": "2", **asked, "max-keys": "1"}
    while True:
        body, by_moto = both.get(urlencode(query))
        assert not by_moto
        _, more, rest = body.partition(b"<NextContinuationToken>")
        if not more:
            break
        query["continuation-token"] = rest.partition(b"<")[0].decode()
        if changes:
            comes, key = changes.pop()
            if comes:
                both.backend.put_object(BUCKET, key, b"new")
            else:
                both.backend.delete_object(BUCKET, keys.pop() if keys else key)


def test_a_page_holds_a_thousand_keys_if_it_is_not_said_otherwise(both: Both) -> None:
    both.new_bucket(*(f"{number}.json" for number in range(1001)))
    for limit, keys in (("", 1000), ("&max-keys=1001", 1001), ("&max-keys=2000", 1001)):
        body, by_moto = both.get(f"list-type=2{limit}")
        assert (body.count(b"<Contents>"), by_moto) == (keys, False)


def test_an_uploads_checksum_is_listed(both: Both) -> None:
    both.new_bucket()
    both.backend.put_object(BUCKET, "a", b"").checksum_algorithm = "CRC32"
    body, by_moto = both.get("list-type=2")
    assert b"<ChecksumAlgorithm>CRC32<" in body
    assert not by_moto


def test_a_storage_class_is_listed(both: Both) -> None:
    both.new_bucket()
    both.backend.put_object(BUCKET, "a", b"", storage="GLACIER").restore(1)
    body, by_moto = both.get("list-type=2")
    assert b"<StorageClass>GLACIER<" in body
    assert not by_moto


@pytest.mark.parametrize(
    "query",
    [
        "",
        "list-type=1",
        "list-type=2&delimiter=/",
        "list-type=2&delimiter=",
        "list-type=2&fetch-owner=true",
        "list-type=2&encoding-type=other",
        "list-type=2&max-keys=-1",
        "list-type=2&continuation-token=",
        "list-type=2&prefix=%ff",
        "list-type=2&versions",
        "location",
    ],
)
def test_what_is_asked_in_another_way_is_left_to_moto(both: Both, query: str) -> None:
    both.new_bucket("a", "b/c")
    _, by_moto = both.get(query)
    assert by_moto


def test_what_is_no_bucket_is_left_to_moto(both: Both) -> None:
    both.new_bucket("a")
    for path in ("/no-such-bucket", f"/{BUCKET}/a", "/"):
        _, by_moto = both.get("list-type=2", path)
        assert by_moto


@pytest.mark.parametrize("parameter", ["max-keys=x", "continuation-token=made-up"])
def test_what_moto_cannot_read_is_left_to_moto(both: Both, parameter: str) -> None:
    both.new_bucket("a")
    with pytest.raises((ValueError, TypeError)):  # which its server reports
        both.get(f"list-type=2&{parameter}")
