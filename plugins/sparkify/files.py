"""What lies on S3: listings of a prefix, and the manifests that name what a COPY shall load."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from sparkify.advice import aws_advice
from sparkify.formats import ignored_because

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.response import StreamingBody


class SourceError(Exception):
    """What should be read from S3 is not there, or may not be read."""


@dataclass(frozen=True)
class S3Object:
    """
    One version of an object.

    :param bucket: the bucket's name
    :param key: the object's key
    :param etag: the version's entity tag, without quotes
    :param size: bytes
    :param last_modified: UTC, without zone
    :param archived: the storage class that it has to be restored from before it can be read, empty if none
    """

    bucket: str
    key: str
    etag: str
    size: int
    last_modified: datetime
    archived: str = ""

    @property
    def url(self) -> str:
        """The object's address, as COPY takes it."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def ignored(self) -> str:
        """Why the object is no data, empty if it is."""
        return ignored_because(self.key, self.size)


@dataclass(frozen=True)
class Listing:
    """
    What lies below a prefix.

    :param objects: objects that hold data, in key order
    :param ignored: all other objects, in key order (:func:`sparkify.formats.ignored_because`)
    """

    objects: list[S3Object]
    ignored: list[S3Object]


def split_url(url: str) -> tuple[str, str]:
    """
    Split an S3 address into bucket and key.

    :param url: ``s3://bucket/key``; the key may have any characters
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)
    :raises ValueError: if it is anything else
    """
    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.*)", url, re.DOTALL)
    if not match:
        raise ValueError(f"{url!r} is not an S3 address of the form s3://bucket/key")
    return match[1], match[2]


def s3_hook(aws_conn_id: str) -> "S3Hook":
    """
    Return the hook of an AWS connection for S3.

    boto3 is imported only now. It took half of the time in which a DAG is parsed, again and again, and that
    needs none of it
    (https://airflow.apache.org/docs/apache-airflow/stable/best-practices.html#top-level-python-code).

    :param aws_conn_id: the AWS connection
    """
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    return S3Hook(aws_conn_id=aws_conn_id)


def list_prefix(s3: "S3Hook", prefix: str) -> Listing:
    """
    List the objects below a prefix.

    :param s3: the hook of the AWS connection
    :param prefix: ``s3://bucket/prefix``
    :raises SourceError: if the bucket or the prefix does not exist or may not be listed
    """
    bucket, key_prefix = split_url(prefix)
    objects: list[S3Object] = []
    ignored: list[S3Object] = []
    try:
        # S3Hook also lists with dates and sizes, but by another method from provider 9.13 on.
        pages = s3.get_conn().get_paginator("list_objects_v2")
        for page in pages.paginate(
            Bucket=bucket, Prefix=key_prefix, OptionalObjectAttributes=["RestoreStatus"]
        ):
            # What else a page says of each object, which is most of it, goes with the page.
            for item in page.get("Contents", ()):
                found = _described(bucket, item["Key"], item["Size"], item)
                (ignored if found.ignored else objects).append(found)
    except (BotoCoreError, ClientError) as error:
        resource = f"arn:aws:s3:::{bucket} with the prefix {key_prefix}"
        raise SourceError(f"Cannot list {prefix}: {aws_advice(error, 's3:ListBucket', resource)}") from error
    if not objects and not ignored:
        raise SourceError(f"Nothing lies below {prefix}: is the prefix right, and has the source delivered?")
    return Listing(*(sorted(found, key=lambda item: item.key) for found in (objects, ignored)))


def look_up(s3: "S3Hook", bucket: str, key: str) -> S3Object | None:
    """
    Return an object as it is now, None if there is none.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html

    :param s3: the hook of the AWS connection
    :param bucket: the bucket's name
    :param key: the object's key
    :raises SourceError: if it may not be read
    """
    client = s3.get_conn()
    try:
        answer = client.head_object(Bucket=bucket, Key=key)
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else None
        if code == "404":
            return None
        # S3 says 403 of an object that is not there, too, to whom it does not take for one who may list: a
        # policy may allow that below a prefix alone, and this request has none.
        if code == "403" and not _is_listed(client, bucket, key):
            return None
        advice = aws_advice(error, "s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")
        raise SourceError(f"Cannot look up s3://{bucket}/{key}: {advice}") from error
    return _described(bucket, key, answer["ContentLength"], answer)


def _is_listed(client: Any, bucket: str, key: str) -> bool:
    """Tell whether an object is there; that it cannot be said counts as a yes."""
    try:
        first = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", ())
    except ClientError:
        return True
    return any(item["Key"] == key for item in first)


# https://docs.aws.amazon.com/AmazonS3/latest/userguide/archived-objects.html
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")


def _described(bucket: str, key: str, size: int, answer: Mapping[str, Any]) -> S3Object:
    modified = answer["LastModified"].astimezone(UTC).replace(tzinfo=None)
    storage_class = answer.get("StorageClass", "")
    # A listing has RestoreStatus; HEAD has Restore, such as 'ongoing-request="false", expiry-date="…"'.
    restored = answer.get("RestoreStatus", {}).get("RestoreExpiryDate") or "expiry" in answer.get(
        "Restore", ""
    )
    archived = storage_class if storage_class in _ARCHIVES and not restored else ""
    return S3Object(bucket, key, answer["ETag"].strip('"'), size, modified, archived)


def manifest(objects: Iterable[S3Object]) -> str:
    """
    Return a COPY manifest that names exactly these objects, none of which may be missing.

    https://docs.aws.amazon.com/redshift/latest/dg/loading-data-files-using-manifest.html

    :param objects: the objects to load
    """
    return json.dumps({"entries": [{"url": item.url, "mandatory": True} for item in objects]}, indent=1)


def write_text(s3: "S3Hook", url: str, text: str) -> str:
    """
    Write an object, in place of one that is there, and return its address.

    :param s3: the hook of the AWS connection
    :param url: ``s3://…`` of the object
    :param text: its content
    :raises SourceError: if it cannot be written
    """
    bucket, key = split_url(url)
    try:
        s3.load_string(text, key, bucket, replace=True)
    except (BotoCoreError, ClientError) as error:
        advice = aws_advice(error, "s3:PutObject", f"arn:aws:s3:::{bucket}/{key}")
        raise SourceError(
            f"Cannot write {url}: {advice}. The Airflow variable sparkify_work_prefix names the bucket"
        ) from error
    return url


def write_objects(s3: "S3Hook", url: str, objects: Iterable[S3Object]) -> str:
    """
    Write down which objects there are, as JSON lines, and return the address.

    :param s3: the hook of the AWS connection
    :param url: ``s3://…`` of the file
    :param objects: the objects
    """
    lines = (
        json.dumps(vars(item) | {"last_modified": item.last_modified.isoformat()}) + "\n" for item in objects
    )
    return write_text(s3, url, "".join(lines))


def read_objects(s3: "S3Hook", url: str) -> list[S3Object]:
    """
    Return the objects that :func:`write_objects` wrote down.

    :param s3: the hook of the AWS connection
    :param url: ``s3://…`` of the file
    """
    return [
        S3Object(**item | {"last_modified": datetime.fromisoformat(item["last_modified"])})
        for item in map(json.loads, open_object(s3, url).iter_lines())
    ]


def read_head(s3: "S3Hook", item: S3Object, length: int) -> bytes:
    """
    Return the first bytes of an object, none of them if it cannot be read.

    :param s3: the hook of the AWS connection
    :param item: the object
    :param length: how many bytes
    """
    try:
        answer = s3.get_conn().get_object(Bucket=item.bucket, Key=item.key, Range=f"bytes=0-{length - 1}")
        return answer["Body"].read(length)
    except (BotoCoreError, ClientError):
        return b""


def open_object(s3: "S3Hook", url: str) -> "StreamingBody":
    """
    Return the content of a run's own file, to be read.

    :param s3: the hook of the AWS connection
    :param url: ``s3://…`` of the file
    :raises SourceError: if it is gone or may not be read
    """
    bucket, key = split_url(url)
    try:
        return s3.get_conn().get_object(Bucket=bucket, Key=key)["Body"]
    except (BotoCoreError, ClientError) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] == "NoSuchKey":
            raise SourceError(
                f"The work file {url} is gone: work files may expire. Trigger a new run instead of clearing"
                " this one"
            ) from error
        advice = aws_advice(error, "s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")
        raise SourceError(f"Cannot read the work file {url}: {advice}") from error


def run_folder(work_prefix: str, dag_id: str, run_id: str) -> str:
    """
    Return the S3 folder of a run's own files, the same for every try.

    :param work_prefix: ``s3://bucket/prefix/`` where the project may write
    :param dag_id: the DAG's id
    :param run_id: the run's id, whose characters that S3 advises against are replaced
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)
    """
    return f"{work_prefix.rstrip('/')}/{dag_id}/{re.sub(r'[^A-Za-z0-9_.-]', '-', run_id)}"
