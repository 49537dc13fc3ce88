"""Listings of many objects: for each page, moto goes through the whole bucket, and parses its own dates."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import islice
from urllib.parse import parse_qs, quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

from moto.core.utils import iso_8601_datetime_without_milliseconds_s3
from moto.s3.models import FakeBucket, FakeKey, S3Backend
from moto.s3.utils import ARCHIVE_STORAGE_CLASSES

from local.objects import asks_for_permission, bucket_and_key

_PARAMETERS = {"list-type", "prefix", "start-after", "continuation-token", "max-keys", "encoding-type"}


def listings_first(moto: WSGIApplication, backend: S3Backend) -> WSGIApplication:
    """
    Answer ListObjectsV2 without a delimiter as moto does, to the byte.

    It also returns the RestoreStatus of archived objects if a client asks for it, which moto does not.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html

    :param moto: answers all other requests, malformed ones too
    :param backend: holds the objects
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        name, key = bucket_and_key(environ)
        bucket = backend.buckets.get(name)
        is_ours = environ["REQUEST_METHOD"] == "GET" and not key and not asks_for_permission()
        if is_ours and bucket is not None:
            try:
                attributes = environ.get("HTTP_X_AMZ_OPTIONAL_OBJECT_ATTRIBUTES", "")
                page = _page(backend, bucket, environ.get("QUERY_STRING", ""), "RestoreStatus" in attributes)
            except (ValueError, KeyError):
                return moto(environ, start_response)
            headers = [("content-type", "application/xml"), ("content-length", str(len(page)))]
            start_response("200 OK", headers)
            return [page]
        return moto(environ, start_response)

    return answer


def is_archived(stored: FakeKey) -> bool:
    """
    Return whether an object must be restored before it can be read.

    GLACIER and DEEP_ARCHIVE must, GLACIER_IR need not:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/archived-objects.html

    :param stored: the object
    """
    return stored.storage_class in ARCHIVE_STORAGE_CLASSES and stored.expiry_date is None


def _page(backend: S3Backend, bucket: FakeBucket, query: str, with_restore_status: bool) -> bytes:
    """
    Return a page of a listing.

    :raises ValueError: for any other request, and for one that is malformed
    :raises KeyError: for a token that moto did not give
    """
    asked = {name: values[0] for name, values in parse_qs(query, True, errors="strict").items()}
    encoding = asked.get("encoding-type")
    if asked.get("list-type") != "2" or not asked.keys() <= _PARAMETERS or encoding not in (None, "url"):
        raise ValueError
    prefix, start_after = asked.get("prefix", ""), asked.get("start-after", "")
    token, max_keys = asked.get("continuation-token"), int(asked.get("max-keys", 1000))
    if max_keys < 0:
        raise ValueError
    after = start_after if token is None else backend._pagination_tokens[token]
    found, is_truncated, next_token = backend._truncate_result(
        _objects(bucket, prefix, after, max_keys + 1), max_keys
    )
    return "".join(
        [
            '<?xml version="1.0" encoding="utf-8"?>\n'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">',
            _element("IsTruncated", str(is_truncated).lower()),
            *(_entry(each, encoding, with_restore_status) for each in found),
            _element("Name", bucket.name),
            _element("Prefix", quote(prefix) if encoding else prefix) if prefix else "<Prefix/>",
            _element("MaxKeys", str(max_keys)),
            _element("EncodingType", encoding) if encoding else "",
            _element("KeyCount", str(len(found))),
            _element("NextContinuationToken", next_token) if next_token else "",
            _element("StartAfter", start_after) if start_after and token is None else "",
            "</ListBucketResult>",
        ]
    ).encode()


def _objects(bucket: FakeBucket, prefix: str, after: str, most: int) -> list[FakeKey]:
    """Return the first objects with a prefix whose keys come behind another, in the order of keys."""
    # Sorted anew each time, for other threads put and delete. The keys come in few runs that are in order
    # already, those of the seed and of the last start, which Python's sort merges in milliseconds.
    names = sorted(bucket.keys)
    found: list[FakeKey] = []
    for name in islice(names, max(bisect_left(names, prefix), bisect_right(names, after)), None):
        if len(found) == most or not name.startswith(prefix):
            break
        stored = bucket.keys.get(name)
        if isinstance(stored, FakeKey):  # and not deleted meanwhile, or from a bucket with versions
            found.append(stored)
    return found


def _entry(stored: FakeKey, encoding: str | None, with_restore_status: bool) -> str:
    algorithm = stored.checksum_algorithm
    restored = ""
    if with_restore_status and stored._expiry:
        # S3 leaves it out where nobody has asked to restore the object; here a restore takes no time.
        until = iso_8601_datetime_without_milliseconds_s3(stored._expiry)
        restored = (
            "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>"
            f"<RestoreExpiryDate>{until}</RestoreExpiryDate></RestoreStatus>"
        )
    return (
        f"<Contents>{_element('Key', stored.safe_name(encoding))}"
        f"<LastModified>{stored.last_modified_ISO8601}</LastModified><ETag>{stored.etag}</ETag>"
        f"{_element('ChecksumAlgorithm', algorithm) if algorithm else ''}<Size>{stored.size}</Size>"
        f"<StorageClass>{stored.storage_class}</StorageClass>{restored}</Contents>"
    )


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"
