"""What lies on S3: listings of a prefix, and the manifests that name what a COPY shall load."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from sparkify.advice import aws_advice

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook


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
    """

    bucket: str
    key: str
    etag: str
    size: int
    last_modified: datetime

    @property
    def url(self) -> str:
        """The object's address, as COPY takes it."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Listing:
    """
    What lies below a prefix.

    :param objects: objects that hold data, in key order
    :param passed_over: number of other objects: empty, "folders", or with another suffix
    """

    objects: list[S3Object]
    passed_over: int


def split_url(url: str) -> tuple[str, str]:
    """
    Split an S3 address into bucket and key.

    :param url: ``s3://bucket/key``; as it may stand in SQL, without quotes, backslashes, control characters
    :raises ValueError: if it is anything else
    """
    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^'\\\x00-\x1f]*)", url)
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


def list_prefix(s3: "S3Hook", prefix: str, suffix: str = ".json") -> Listing:
    """
    List the objects below a prefix that hold data.

    :param s3: the hook of the AWS connection
    :param prefix: ``s3://bucket/prefix``
    :param suffix: how the keys of data files end
    :raises SourceError: if the bucket or the prefix does not exist or may not be listed
    """
    bucket, key_prefix = split_url(prefix)
    objects: list[S3Object] = []
    passed_over = 0
    try:
        # S3Hook lists with dates and sizes, too, but by another method from provider 9.13 on.
        for page in s3.get_conn().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key_prefix):
            # What else a page says of each object, which is most of it, goes with the page.
            for item in page.get("Contents", ()):
                if not item["Key"].endswith(suffix) or not item["Size"]:
                    passed_over += 1
                    continue
                objects.append(
                    S3Object(
                        bucket=bucket,
                        key=item["Key"],
                        etag=item["ETag"].strip('"'),
                        size=item["Size"],
                        last_modified=item["LastModified"].astimezone(UTC).replace(tzinfo=None),
                    )
                )
    except (BotoCoreError, ClientError) as error:
        resource = f"arn:aws:s3:::{bucket} with the prefix {key_prefix}"
        raise SourceError(f"Cannot list {prefix}: {aws_advice(error, 's3:ListBucket', resource)}") from error
    if not objects and not passed_over:
        raise SourceError(f"Nothing lies below {prefix}: is the prefix right, and has the source delivered?")
    return Listing(sorted(objects, key=lambda item: item.key), passed_over)


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
    """
    bucket, key = split_url(url)
    s3.load_string(text, key, bucket, replace=True)
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
    bucket, key = split_url(url)
    lines = s3.get_conn().get_object(Bucket=bucket, Key=key)["Body"].iter_lines()
    return [
        S3Object(**item | {"last_modified": datetime.fromisoformat(item["last_modified"])})
        for item in map(json.loads, lines)
    ]


def run_folder(work_prefix: str, dag_id: str, run_id: str) -> str:
    """
    Return the S3 folder of a run's own files, the same for every try.

    :param work_prefix: ``s3://bucket/prefix/`` where the project may write
    :param dag_id: the DAG's id
    :param run_id: the run's id, whose characters that S3 advises against are replaced
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)
    """
    return f"{work_prefix.rstrip('/')}/{dag_id}/{re.sub(r'[^A-Za-z0-9_.-]', '-', run_id)}"
