"""What clients changed on the local S3, kept in a file, for moto keeps objects in memory alone."""

import json
import math
import sqlite3
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from threading import Lock
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from moto import settings
from moto.s3.models import FakeKey, S3Backend

from local.settings import REGION

#: The header of the metadata that sets an object's date.
LAST_MODIFIED = "x-amz-meta-local-last-modified"


class ChangedObjects:
    """
    The changes, by bucket and key; those of a bucket itself have an empty key.

    Of an object it keeps the content, date, metadata, storage class and the date until which it is restored;
    no former versions, tags or checksums.

    :param folder: holds a database of SQLite, which is made if it does not exist
    :param backend: moto's memory
    """

    def __init__(self, folder: Path, backend: S3Backend) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._backend = backend
        self._lock = Lock()
        self._file = sqlite3.connect(folder / "objects.sqlite", isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may lose the last ones
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS objects (bucket TEXT, key TEXT, content BLOB, etag TEXT,"
            " last_modified TEXT, metadata TEXT, PRIMARY KEY (bucket, key))"
        )
        present = {name for _, name, *_ in self._file.execute("PRAGMA table_info(objects)")}
        for column in ("storage_class", "restored_until"):
            if column not in present:  # in a folder of an earlier release
                self._file.execute(f"ALTER TABLE objects ADD COLUMN {column} TEXT")

    def restore(self) -> None:
        """Make the changes in moto's memory again."""
        for bucket, key, content, etag, last_modified, metadata, storage_class, until in self._file.execute(
            "SELECT * FROM objects ORDER BY bucket, key"
        ):
            if bucket not in self._backend.buckets:
                self._backend.create_bucket(bucket, REGION)
            if content is not None:
                stored = self._backend.put_object(bucket, key, content, etag=etag, storage=storage_class)
                stored.set_metadata(json.loads(metadata))
                stored.last_modified = datetime.fromisoformat(last_modified)
                stored.set_expiry(datetime.fromisoformat(until) if until else None)
            elif key in self._backend.buckets[bucket].keys:
                self._backend.buckets[bucket].keys.pop(key)

    def keep(self, bucket: str, key: str) -> None:
        """
        Write down how an object is now.

        :param bucket: its bucket
        :param key: its key; empty for the bucket itself
        """
        with self._lock:
            if bucket not in self._backend.buckets:
                self._file.execute("DELETE FROM objects WHERE bucket = ?", [bucket])
                return
            stored = self._backend.buckets[bucket].keys.get(key)
            row: list[object] = [None] * 6
            if isinstance(stored, FakeKey):
                row = [
                    *(stored.value, stored.etag.strip('"'), stored.last_modified.isoformat()),
                    *(json.dumps(dict(stored.metadata)), stored.storage_class),
                    stored._expiry.isoformat() if stored._expiry else None,
                ]
            self._file.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [bucket, key, *row]
            )


def asks_for_permission() -> bool:
    """
    Tell whether moto checks requests against the policies of IAM, which it begins to when a client says so.

    https://docs.getmoto.org/en/latest/docs/iam.html
    """
    return math.inf != settings.INITIAL_NO_AUTH_ACTION_COUNT


def keeping_changes(
    application: WSGIApplication, backend: S3Backend, changed: ChangedObjects
) -> WSGIApplication:
    """
    Answer a request when what it changed is kept.

    An object with the metadata ``local-last-modified``, a time in UTC such as ``2018-11-01T12:00:00``, gets
    that date. So a test can upload an object under an old date, as replication and a version that is rolled
    back do. To AWS it is metadata like any other.

    :param application: answers the requests
    :param backend: holds the objects
    :param changed: keeps them
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        bucket, key = bucket_and_key(environ)
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") or not bucket:
            return application(environ, start_response)
        keys = backend.buckets[bucket].keys if bucket in backend.buckets and not key else {}
        held = list(keys)
        content = list(application(environ, start_response))
        stored = backend.buckets[bucket].keys.get(key) if bucket in backend.buckets else None
        if isinstance(stored, FakeKey) and (date := stored.metadata.get(LAST_MODIFIED)):
            stored.last_modified = datetime.fromisoformat(date)
        # A request that is about a bucket may delete any number of its objects.
        for name in [key, *(name for name in held if name not in keys)]:
            changed.keep(bucket, name)
        return content

    return answer


def bucket_and_key(environ: WSGIEnvironment) -> tuple[str, str]:
    """
    Return which bucket and which object a request is about, either empty if it is about none.

    :param environ: the request, whose address begins with the bucket
    """
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    bucket, _, key = path.lstrip("/").partition("/")
    return bucket, key
