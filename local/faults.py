"""Faults of the local S3 on demand: a test makes it throttle requests."""

import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from local.objects import bucket_and_key

FILE_VARIABLE = "LOCAL_S3_FAULTS"

_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class Faults:
    """
    Answers the next requests of a kind with SlowDown, as a file asks for.

    The file holds an operation and a number, for example ``ListObjectsV2 3``. The operation is ListObjectsV2
    (any GET of a bucket), GetObject or PutObject. Each request of this kind lowers the number; the last one
    removes the file, and a test may remove it earlier. boto3 itself repeats a throttled request a few times.

    :param file: the file, which need not exist (the environment variable ``LOCAL_S3_FAULTS``)
    """

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, Lock()

    @classmethod
    def from_environment(cls) -> "Faults | None":
        """Return the faults that the environment asks for, None outside of tests."""
        name = os.environ.get(FILE_VARIABLE)
        return cls(Path(name)) if name else None

    @property
    def pending(self) -> bool:
        """Whether any request is to fail."""
        return self._file.exists()

    def hits(self, operation: str) -> bool:
        """
        Count a request; return whether it fails.

        :param operation: what it asks for
        """
        with self._lock:
            if not self.pending:
                return False
            wanted, count = self._file.read_text().split()
            if operation != wanted:
                return False
            if int(count) > 1:
                self._file.write_text(f"{wanted} {int(count) - 1}")
            else:
                self._file.unlink()
            return True


def throttled(application: WSGIApplication, faults: Faults) -> WSGIApplication:
    """
    Throttle requests as S3 does (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).

    :param application: answers the requests that are not throttled
    :param faults: says which are
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _, key = bucket_and_key(environ)
        operations = {"GET": "GetObject" if key else "ListObjectsV2", "PUT": "PutObject"}
        if not faults.hits(operations.get(environ["REQUEST_METHOD"], "")):
            return application(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("503 Slow Down", [("content-type", "application/xml")])
        return [_SLOW_DOWN]

    return answer
