"""
Redshift's ``COPY … FROM 's3://…' FORMAT AS JSON``: the objects on S3, and the load.

https://docs.aws.amazon.com/redshift/latest/dg/r_COPY.html
"""

import bz2
import re
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from http.client import HTTPConnection, HTTPException, IncompleteRead
from queue import SimpleQueue
from typing import Any, cast
from urllib.parse import quote, urlsplit

import boto3
import msgspec
from backports import zstd
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.redshift.clock import now
from local.redshift.copy_statement import CopyStatement, parse_copy
from local.redshift.errors import SqlError, service_error
from local.redshift.json_rows import BLOCK, JsonRows, Rejected, parse_paths
from local.redshift.json_values import Column
from local.settings import REGION

__all__ = ["Column", "CopyStatement", "Load", "LoadedFile", "Rejected", "parse_copy", "start_load"]

#: Bytes of rows that are handed on at a time, at least.
_BATCH = 64 * 1024
#: Requests to S3 under way at a time.
_REQUESTS = 8
#: What Redshift's details of a failed COPY say of the object.
_BEING_READ = "S3 key being read : {}"


@cache
def _client(url: str) -> Any:
    # Building a client takes longer than a small load; clients may be shared between threads.
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(
            retries={"total_max_attempts": 1},
            max_pool_connections=_REQUESTS,
            s3={"addressing_style": "path"},
            response_checksum_validation="when_required",
        ),
    )


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


@contextmanager
def _reported(url: str, doing: str = "", problem: str = "") -> Iterator[None]:
    """
    Turn an S3 error into one worded as Redshift's.

    Redshift's words are taken from reports of its users, such as
    https://github.com/awslabs/aws-lambda-redshift-loader/issues/73.

    :param url: what is read
    :param doing: what the details say that Redshift was doing, if not reading this object
    :param problem: what the message begins with
    """
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        hint = {
            "NoSuchBucket": f"create the bucket {_split(url)[0]}, or correct its name",
            "NoSuchKey": "upload the object, or correct its name",
            "AccessDenied": "let the role read this bucket: s3:ListBucket and s3:GetObject",
            "InvalidObjectState": "restore the object: it is archived",
        }.get(code, "")
        message = error.response["Error"].get("Message", code)
        request, host = (error.response["ResponseMetadata"].get(name, "") for name in ("RequestId", "HostId"))
        raise service_error(
            f"{problem}S3ServiceException:{message},Status {status},Error {code},Rid {request},ExtRid {host},"
            "CanRetry 1",
            doing or _BEING_READ.format(url),
            hint,
        ) from error
    except (BotoCoreError, HTTPException, OSError) as error:
        raise SqlError(
            f"S3 cannot be read: {url}: {error}", hint="is the local S3 running? python -m local status"
        ) from error


@dataclass(frozen=True)
class _Object:
    """An object to load; one that is not mandatory may be missing."""

    url: str
    mandatory: bool = True


class _S3:
    """
    Reads from one S3.

    :param url: its endpoint
    """

    def __init__(self, url: str) -> None:
        self._host, self._client = urlsplit(url).netloc, _client(url)

    def read(self, url: str, problem: str = "") -> bytes:
        """
        Return a whole object.

        :raises SqlError: if it cannot be read; its message begins with ``problem``
        """
        return b"".join(self._stream(url, problem))

    def _connection(self) -> HTTPConnection:
        """Return a connection, which opens with its first request."""
        return HTTPConnection(self._host, timeout=60)

    def _get(self, url: str, connection: HTTPConnection) -> tuple[Mapping[str, str], Any]:
        """Return an object's headers, and a stream of its content, to be read before the next request."""
        bucket, key = _split(url)
        # boto3 takes a millisecond for each, several times as long as all the rest.
        with suppress(HTTPException, OSError):
            connection.request("GET", f"/{quote(bucket)}/{quote(key)}")
            response = connection.getresponse()
            if response.status == 200:
                return cast(Mapping[str, str], response.headers), response
            response.close()
        connection.close()
        # An error, which boto3 reads, a connection that S3 closed, or an S3 that wants signed requests.
        answer = self._client.get_object(Bucket=bucket, Key=key)
        return answer["ResponseMetadata"]["HTTPHeaders"], answer["Body"]

    def under(self, url: str) -> list[_Object]:
        """
        Return the objects whose keys begin with a prefix, in the order of their keys.

        :raises SqlError: if there are none
        """
        bucket, prefix = _split(url)
        with _reported(url, f"Listing bucket={bucket} prefix={prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        if not keys:
            raise SqlError(
                f"The specified S3 prefix '{prefix}' does not exist",
                hint=f"no key in bucket {bucket} begins with '{prefix}'",
            )
        return [_Object(f"s3://{bucket}/{key}") for key in keys]

    def manifest(self, url: str) -> list[_Object]:
        """
        Return what a manifest lists.

        https://docs.aws.amazon.com/redshift/latest/dg/loading-data-files-using-manifest.html

        :raises SqlError: if it is missing or malformed
        """
        try:
            # https://github.com/databricks/spark-redshift/issues/136 has Redshift's words.
            content = self.read(url, "Problem reading manifest file - ")
            entries = msgspec.json.decode(content)["entries"]
            objects = [_Object(entry["url"], entry.get("mandatory", False)) for entry in entries]
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError):
            objects = []
        if not objects or not all(re.fullmatch(r"s3://[^/\0]+/[^\0]+", o.url) for o in objects):
            raise SqlError(
                f"The manifest {url} is malformed",
                hint='it reads {"entries": [{"url": "s3://bucket/key", "mandatory": true}, …]}',
            )
        return objects

    def fetch(
        self, objects: Sequence[_Object]
    ) -> Generator[tuple["LoadedFile", Iterable[bytes]], None, None]:
        """
        Yield each object and its content, in order: small ones fetched ahead, large ones streamed.

        :raises SqlError: if a mandatory object, or every object, is missing
        """
        found = False
        waiting: deque[Future[tuple[LoadedFile, Iterable[bytes]] | None]] = deque()
        remaining = iter(objects)
        idle: SimpleQueue[HTTPConnection] = SimpleQueue()
        for _ in range(_REQUESTS):
            idle.put(self._connection())
        pool = ThreadPoolExecutor(_REQUESTS, "copy")
        try:
            while True:
                while len(waiting) < 2 * _REQUESTS and (item := next(remaining, None)):
                    waiting.append(pool.submit(self._fetch, item, idle))
                if not waiting:
                    break
                fetched = waiting.popleft().result()
                if fetched is not None:
                    found = True
                    yield fetched
        finally:
            pool.shutdown(cancel_futures=True)
            for _ in range(_REQUESTS):
                idle.get().close()
        if not found:
            raise SqlError("The manifest lists no object that exists", hint=f"the first is {objects[0].url}")

    def _fetch(
        self, item: _Object, idle: SimpleQueue[HTTPConnection]
    ) -> tuple["LoadedFile", Iterable[bytes]] | None:
        started = now()
        connection = idle.get()  # there is one for each thread
        try:
            with _reported(item.url):
                try:
                    headers, body = self._get(item.url, connection)
                except self._client.exceptions.NoSuchKey:
                    if item.mandatory:
                        raise
                    return None
                file = LoadedFile(item.url, headers["etag"], headers["last-modified"], started)
                if int(headers["content-length"]) <= BLOCK:
                    return file, [body.read()]
                # Left open until its turn it could time out.
                body.close()
                connection.close()
                return file, self._stream(item.url)
        finally:
            idle.put(connection)

    def _stream(self, url: str, problem: str = "") -> Iterator[bytes]:
        with _reported(url, problem=problem), closing(self._connection()) as connection:
            headers, body = self._get(url, connection)
            left = int(headers["content-length"])
            while left:
                chunk = body.read(BLOCK)
                if not chunk:  # which the standard library takes for the end
                    raise IncompleteRead(b"", left)
                left -= len(chunk)
                yield chunk


def _decompressed(chunks: Iterable[bytes], compression: str, url: str) -> Iterator[bytes]:
    """
    Decompress a stream of one or more members, a block at a time.

    The error is worded as one of a real COPY was: https://github.com/snowplow/snowplow/pull/1265.
    """

    def failed(reason: str, hint: str) -> SqlError:
        message = f"failed to inflate with {compression}: {reason}."
        return service_error(message, _BEING_READ.format(url), hint, 9001)

    member = _DECOMPRESSORS[compression]()
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                if member.eof:
                    member = _DECOMPRESSORS[compression]()
                yield member.decompress(rest, BLOCK)
                while not (member.eof or getattr(member, "needs_input", True)):
                    yield member.decompress(b"", BLOCK)
                rest = member.unused_data or getattr(member, "unconsumed_tail", b"")
    except (zlib.error, OSError, zstd.ZstdError) as error:
        reason = str(error).rpartition(": ")[2]
        raise failed(reason, f"leave out {compression.upper()} if it is not compressed") from error
    if not member.eof:
        raise failed("unexpected end of file", "upload it again")


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "bzip2": bz2.BZ2Decompressor,
    "zstd": zstd.ZstdDecompressor,
}


@dataclass
class LoadedFile:
    """
    An object that was read.

    :param url: where
    :param etag: as S3 writes it
    :param last_modified: its date, as HTTP writes it
    :param started: when COPY asked for it, UTC
    :param ended: when COPY had read it, UTC
    :param bytes: how many bytes of it were read
    """

    url: str
    etag: str
    last_modified: str
    started: datetime
    ended: datetime | None = None
    bytes: int = 0


class Load:
    """
    A load under way: read :meth:`rows` to its end, then the rest, which is true after a failure, too.

    :param statement: the COPY
    :param columns: the columns to load, in the order of the rows
    :param s3_url: the endpoint of S3
    """

    def __init__(self, statement: CopyStatement, columns: Sequence[Column], s3_url: str) -> None:
        self._statement, self._columns, self._s3 = statement, columns, _S3(s3_url)
        #: The names of the columns, in the order of the rows.
        self.target_columns = tuple(column.name for column in columns)
        #: How many rows were handed out.
        self.loaded = 0
        self.rejected: list[Rejected] = []
        self.files: list[LoadedFile] = []
        #: How many objects of each file were loaded or rejected, by its URL.
        self.lines: Counter[str] = Counter()

    def rows(self) -> Generator[bytes, None, None]:
        """
        Yield the rows in PostgreSQL's COPY text format, some thousand at a time; none with NOLOAD.

        :raises SqlError: if S3 cannot be read, or as many rows are rejected as MAXERROR says
        """
        source = self._statement.source
        paths = None
        if self._statement.json.startswith("s3://"):
            paths = parse_paths(self._s3.read(self._statement.json), self._statement.json, len(self._columns))
        converter = JsonRows(self._columns, self._statement, paths)
        objects = self._s3.manifest(source) if self._statement.manifest else self._s3.under(source)
        batch, count = b"", 0
        # Left to the garbage collector, the requests might end in a thread that is just being started, and
        # wait for it for ever.
        with closing(self._contents(objects)) as contents:
            for url, rows, text in converter.convert(contents, self._reject):
                self.lines[url] += rows
                batch, count = batch + text, count + rows
                if len(batch) >= _BATCH:
                    yield from self._hand_out(batch, count)
                    batch, count = b"", 0
        yield from self._hand_out(batch, count)

    def _contents(self, objects: Sequence[_Object]) -> Generator[tuple[str, Iterator[bytes]], None, None]:
        with closing(self._s3.fetch(objects)) as fetched:
            for file, chunks in fetched:
                self.files.append(file)
                yield file.url, self._content(chunks, file)

    def _hand_out(self, batch: bytes, count: int) -> Iterator[bytes]:
        if count and not self._statement.noload:
            self.loaded += count
            yield batch

    def _content(self, chunks: Iterable[bytes], file: LoadedFile) -> Iterator[bytes]:
        """Yield an object's text, and record its size."""

        def compressed() -> Iterator[bytes]:
            for chunk in chunks:
                file.bytes += len(chunk)
                yield chunk
            file.ended = now()

        compression = self._statement.compression
        return _decompressed(compressed(), compression, file.url) if compression else compressed()

    def _reject(self, row: Rejected) -> None:
        """
        Record a rejected row, and fail at the last one that MAXERROR allows.

        The load fails with error_count errors or more; 0 and 1 mean the first
        (https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-load.html#copy-maxerror).
        """
        self.rejected.append(row)
        self.lines[row.file_name] += 1
        if len(self.rejected) < max(self._statement.maxerror, 1):
            return
        first = self.rejected[0]
        column = f", column {first.column_name}" if first.column_name else ""
        table = self._statement.table.rpartition(".")[2].strip('"')
        raise SqlError(
            f"Load into table '{table}' failed.  Check 'stl_load_errors' system table for details.",
            hint=f"the first is {first.file_name}, line {first.line_number}{column}: {first.error_message}",
        )


def start_load(statement: CopyStatement, columns: Sequence[Column], s3_url: str) -> Load:
    """
    Check a COPY against its table; nothing is read from S3 yet.

    https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-column-mapping.html

    :param statement: the COPY
    :param columns: the table's columns, in order
    :param s3_url: the endpoint of S3
    :return: the load, to be consumed
    :raises SqlError: for a column list, a column type or a date pattern that does not fit
    """
    chosen = list(columns)
    if statement.columns is not None:
        by_name = {column.name: column for column in columns}
        for name in statement.columns:
            if name not in by_name:
                raise SqlError(f'column "{name}" of relation "{statement.table}" does not exist', "42703")
        chosen = [by_name[name] for name in statement.columns]
        for column in columns:
            if column.name not in statement.columns and not (column.nullable or column.has_default):
                raise SqlError(
                    f"COPY leaves out column {column.name}, which is NOT NULL and has no default",
                    "23502",
                    "add it to the column list",
                )
    JsonRows(chosen, statement)
    return Load(statement, chosen, s3_url)
