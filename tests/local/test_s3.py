import hashlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from local import s3, temporary_password
from local.settings import REPOSITORY, LocalError

EVENTS = "log_data/2018/11/2018-11-01-events.json"


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    for name in (EVENTS, "log_data/.DS_Store", "song_data/A/B/TRABC.json", "log_json_path.json", "notes.txt"):
        path = tmp_path / "seed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Björk sang {name}")
    return tmp_path / "seed"


@contextmanager
def serving(seed: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port: int = probe.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "local", "serve", "s3", "--data", seed],
        cwd=REPOSITORY,
        env=os.environ
        | {"SPARKIFY_S3_PORT": str(port), "SPARKIFY_LOCAL_DIR": str(seed.parent)}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            wait_until_it_listens(port)
            yield process, port
        finally:
            process.kill()


def wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def client(port: int, service: str = "s3") -> Iterator[Any]:
    with closing(
        boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-west-2",
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
    ) as opened:
        yield opened


def objects(port: int) -> dict[str, dict[str, Any]]:
    with client(port) as bucket:
        return {each["Key"]: each for each in bucket.list_objects_v2(Bucket="udacity-dend")["Contents"]}


def test_each_data_file_is_an_object_and_nothing_else_is(seed: Path) -> None:
    with serving(seed) as (_, port):
        assert set(objects(port)) == {EVENTS, "song_data/A/B/TRABC.json", "log_json_path.json"}


def test_an_object_has_its_files_bytes_and_their_md5_as_etag(seed: Path) -> None:
    with serving(seed) as (_, port), client(port) as bucket:
        stored = bucket.get_object(Bucket="udacity-dend", Key=EVENTS)
        assert stored["Body"].read() == (seed / EVENTS).read_bytes()
        assert stored["ETag"] == f'"{hashlib.md5((seed / EVENTS).read_bytes()).hexdigest()}"'


def test_a_restart_shows_the_same_objects_as_before(seed: Path) -> None:
    os.utime(seed / EVENTS, (1541119000, 1541119000))
    with serving(seed) as (_, port):
        before = objects(port)
    with serving(seed) as (_, port):
        assert objects(port) == before
    assert before[EVENTS]["LastModified"].timestamp() == 1541119000


def test_the_work_bucket_keeps_what_is_written_to_it(seed: Path) -> None:
    with serving(seed) as (_, port), client(port) as bucket:
        bucket.put_object(Bucket="sparkify-etl", Key="runs/1/events.manifest", Body=b'{"entries": []}')
        stored = bucket.get_object(Bucket="sparkify-etl", Key="runs/1/events.manifest")
        assert stored["Body"].read() == b'{"entries": []}'


def test_what_clients_change_survives_a_kill(seed: Path) -> None:
    odd = "runs/1/é +#'.json"
    with serving(seed) as (process, port), client(port) as bucket:
        bucket.create_bucket(Bucket="mine", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        bucket.put_object(Bucket="mine", Key=odd, Body=b"\0\xff", ContentType="text/x", Metadata={"n": "v"})
        upload = bucket.create_multipart_upload(Bucket="udacity-dend", Key="log_data/large.json")
        part = {name: upload[name] for name in ("Bucket", "Key", "UploadId")}
        etag = bucket.upload_part(**part, PartNumber=1, Body=b"1")["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        bucket.complete_multipart_upload(**part, MultipartUpload=parts)
        source = {"Bucket": "udacity-dend", "Key": "song_data/A/B/TRABC.json"}
        bucket.copy_object(Bucket="udacity-dend", Key=EVENTS, CopySource=source)
        bucket.delete_object(Bucket="udacity-dend", Key="log_json_path.json")
        bucket.put_object(Bucket="sparkify-etl", Key="gone", Body=b"")
        bucket.delete_objects(Bucket="udacity-dend", Delete={"Objects": [{"Key": source["Key"]}]})
        bucket.delete_object(Bucket="sparkify-etl", Key="gone")
        before = objects(port)
        process.kill()
    assert set(before) == {EVENTS, "log_data/large.json"}
    with serving(seed) as (_, port), client(port) as bucket:
        assert objects(port) == before
        assert bucket.get_object(Bucket="udacity-dend", Key=EVENTS)["Body"].read().endswith(b"TRABC.json")
        stored = bucket.get_object(Bucket="mine", Key=odd)
        assert (stored["Body"].read(), stored["ContentType"], stored["Metadata"]) == (
            b"\0\xff",
            "text/x",
            {"n": "v"},
        )
        assert "Contents" not in bucket.list_objects_v2(Bucket="sparkify-etl")
        bucket.delete_object(Bucket="mine", Key=odd)
        bucket.delete_bucket(Bucket="mine")
    with serving(seed) as (_, port), client(port) as bucket:
        assert {each["Name"] for each in bucket.list_buckets()["Buckets"]} == {"udacity-dend", "sparkify-etl"}


@pytest.mark.parametrize("key", ["a.json", "a b/+é#'.json", "folder/"])
def test_a_plain_read_answers_as_moto_does(seed: Path, key: str) -> None:
    with serving(seed) as (_, port), client(port) as bucket:
        bucket.put_object(
            Bucket="udacity-dend", Key=key, Body=b"12", ContentType="text/x", Metadata={"n": "v"}
        )
        plain = bucket.get_object(Bucket="udacity-dend", Key=key)
        # Anything that asks for more is moto's.
        conditional = bucket.get_object(Bucket="udacity-dend", Key=key, IfMatch=plain["ETag"])
        assert plain.pop("Body").read() == conditional.pop("Body").read() == b"12"
        for answer in (plain, conditional):
            del answer["ResponseMetadata"]
        assert plain == conditional
        assert plain["ChecksumCRC32"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/udacity-dend/{quote(key)}") as unsigned:
            assert unsigned.read() == b"12"
            assert (unsigned.headers["etag"], unsigned.headers["x-amz-meta-n"]) == (plain["ETag"], "v")
        assert bucket.get_object(Bucket="udacity-dend", Key=key, Range="bytes=1-1")["Body"].read() == b"2"
        bucket.delete_object(Bucket="udacity-dend", Key=key)
        with pytest.raises(bucket.exceptions.NoSuchKey):
            bucket.get_object(Bucket="udacity-dend", Key=key)
        with pytest.raises(bucket.exceptions.NoSuchBucket):
            bucket.get_object(Bucket="no-such-bucket", Key=key)


def put_archived(bucket: Any, key: str, storage_class: str) -> None:
    bucket.put_object(Bucket="udacity-dend", Key=key, Body=b"12", StorageClass=storage_class)


def read(bucket: Any, port: int, key: str) -> bytes:
    """Read an object as boto3 does, and as the local Redshift does, without a signature."""
    content: bytes = bucket.get_object(Bucket="udacity-dend", Key=key)["Body"].read()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/udacity-dend/{key}") as unsigned:
        assert unsigned.read() == content
    return content


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archived_object_is_listed_but_not_read_before_it_is_restored(
    seed: Path, storage_class: str
) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/archived-objects.html."""
    with serving(seed) as (_, port), client(port) as bucket:
        put_archived(bucket, "cold", storage_class)
        assert objects(port)["cold"]["StorageClass"] == storage_class
        assert bucket.head_object(Bucket="udacity-dend", Key="cold")["StorageClass"] == storage_class
        with pytest.raises(bucket.exceptions.InvalidObjectState) as refusal:
            bucket.get_object(Bucket="udacity-dend", Key="cold")
        assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/udacity-dend/cold")
        bucket.restore_object(Bucket="udacity-dend", Key="cold", RestoreRequest={"Days": 2})
        assert read(bucket, port, "cold") == b"12"
        assert objects(port)["cold"]["StorageClass"] == storage_class


@pytest.mark.parametrize("storage_class", ["STANDARD", "GLACIER_IR"])
def test_an_object_that_is_not_archived_is_read_at_once(seed: Path, storage_class: str) -> None:
    with serving(seed) as (_, port), client(port) as bucket:
        put_archived(bucket, "warm", storage_class)
        assert objects(port)["warm"]["StorageClass"] == storage_class
        assert read(bucket, port, "warm") == b"12"


def test_a_listing_returns_the_restore_status_if_it_is_asked_for(seed: Path) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreStatus.html."""
    with serving(seed) as (_, port), client(port) as bucket:
        for key in ("frozen", "restored"):
            put_archived(bucket, key, "GLACIER")
        bucket.restore_object(Bucket="udacity-dend", Key="restored", RestoreRequest={"Days": 2})
        asked = bucket.list_objects_v2(Bucket="udacity-dend", OptionalObjectAttributes=["RestoreStatus"])
        found = {each["Key"]: each.get("RestoreStatus") for each in asked["Contents"]}
        status = found.pop("restored")
        assert status["IsRestoreInProgress"] is False
        assert 86400 < (status["RestoreExpiryDate"] - datetime.now(UTC)).total_seconds() < 2 * 86400
        assert set(found.values()) == {None}
        assert "RestoreStatus" not in objects(port)["restored"]


def test_archived_objects_survive_a_kill(seed: Path) -> None:
    with serving(seed) as (process, port), client(port) as bucket:
        for key in ("frozen", "restored"):
            put_archived(bucket, key, "DEEP_ARCHIVE")
        bucket.restore_object(Bucket="udacity-dend", Key="restored", RestoreRequest={"Days": 2})
        process.kill()
    with serving(seed) as (_, port), client(port) as bucket:
        for key in ("frozen", "restored"):
            assert objects(port)[key]["StorageClass"] == "DEEP_ARCHIVE"
        assert read(bucket, port, "restored") == b"12"
        with pytest.raises(bucket.exceptions.InvalidObjectState):
            bucket.get_object(Bucket="udacity-dend", Key="frozen")


def test_changes_kept_by_an_earlier_release_are_restored(seed: Path) -> None:
    folder = seed.parent / "changed_objects"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "objects.sqlite")) as file, file:
        file.execute(
            "CREATE TABLE objects (bucket TEXT, key TEXT, content BLOB, etag TEXT, last_modified TEXT,"
            " metadata TEXT, PRIMARY KEY (bucket, key))"
        )
        file.execute(
            "INSERT INTO objects VALUES ('udacity-dend', 'old', '1', 'e', '2018-11-01T00:00:00', '{}')"
        )
    with serving(seed) as (_, port):
        assert objects(port)["old"]["StorageClass"] == "STANDARD"


def test_a_test_can_set_an_objects_date(seed: Path) -> None:
    old = {"local-last-modified": "2018-11-01T12:00:00"}
    with serving(seed) as (process, port), client(port) as bucket:
        bucket.put_object(Bucket="udacity-dend", Key="old", Body=b"1", Metadata=old)
        source = {"Bucket": "udacity-dend", "Key": EVENTS}
        bucket.copy_object(
            Bucket="udacity-dend", Key=EVENTS, CopySource=source, Metadata=old, MetadataDirective="REPLACE"
        )
        bucket.put_object(Bucket="udacity-dend", Key="new", Body=b"1")
        process.kill()
    with serving(seed) as (_, port):
        found = objects(port)
        for key in ("old", EVENTS):
            assert found[key]["LastModified"] == datetime(2018, 11, 1, 12, tzinfo=UTC)
        assert (datetime.now(UTC) - found["new"]["LastModified"]).total_seconds() < 60


def test_a_test_can_have_requests_throttled(seed: Path, tmp_path: Path) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""
    fault = tmp_path / "fault"
    object_, listing = {"Bucket": "udacity-dend", "Key": EVENTS}, {"Bucket": "udacity-dend"}
    with serving(seed, LOCAL_S3_FAULTS=str(fault)) as (_, port), client(port) as bucket:
        for operation, ask in (
            ("ListObjectsV2", lambda: bucket.list_objects_v2(**listing)),
            ("GetObject", lambda: bucket.get_object(**object_)),
            ("PutObject", lambda: bucket.put_object(**object_, Body=b"1" * 1000)),
        ):
            fault.write_text(f"{operation} 1000")
            bucket.head_object(**object_)
            with pytest.raises(ClientError, match=r"SlowDown.*reduce your request rate") as refusal:
                ask()
            assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
            assert fault.read_text() != f"{operation} 1000"
            fault.write_text(f"{operation} 2")
            ask()  # which boto3 repeats
            assert not fault.exists()


def test_boto3_reads_all_keys_over_pages(seed: Path) -> None:
    keys = ["a b", "a+b", "a/é", "a&b", "a%2Fb", "b"]
    with serving(seed) as (_, port), client(port) as bucket:
        for key in keys:
            bucket.put_object(Bucket="sparkify-etl", Key=key, Body=key.encode())
        paginator = bucket.get_paginator("list_objects_v2")
        pages = list(paginator.paginate(Bucket="sparkify-etl", Prefix="a", PaginationConfig={"PageSize": 2}))
        found = [each for page in pages for each in page["Contents"]]
        assert [each["Key"] for each in found] == sorted(keys)[:-1]
        assert [each["Size"] for each in found] == [len(key.encode()) for key in sorted(keys)[:-1]]
        headers = [page["ResponseMetadata"]["HTTPHeaders"] for page in pages]
        assert not any("x-amzn-requestid" in each for each in headers)  # moto's pages have one


def test_plain_reads_leave_the_connection_open_and_others_close_it(seed: Path) -> None:
    with serving(seed) as (_, port), closing(HTTPConnection("127.0.0.1", port)) as connection:
        expected, sockets = (seed / EVENTS).read_bytes(), []
        for _ in range(3):
            connection.request("GET", f"/udacity-dend/{EVENTS}")
            assert connection.getresponse().read() == expected
            sockets.append(connection.sock)
        assert sockets[0] is not None
        assert set(sockets) == {sockets[0]}
        # What is left of a body would pass for the next request.
        connection.request("GET", f"/udacity-dend/{EVENTS}", body=b"GET / HTTP/1.1")
        connection.getresponse().close()
        assert connection.sock is None


def test_a_question_mark_may_be_part_of_a_key(seed: Path) -> None:
    with serving(seed) as (_, port), client(port) as bucket:
        for key in ("a", "a?acl"):
            bucket.put_object(Bucket="sparkify-etl", Key=key, Body=key.encode())
        assert bucket.get_object(Bucket="sparkify-etl", Key="a?acl")["Body"].read() == b"a?acl"
        assert bucket.get_object_acl(Bucket="sparkify-etl", Key="a")["Grants"]


def test_who_may_not_read_or_list_may_not_where_permissions_are_asked_for(seed: Path) -> None:
    with serving(seed) as (_, port), client(port) as bucket:
        bucket.put_object(Bucket="sparkify-etl", Key="a", Body=b"a")
        url = f"http://127.0.0.1:{port}/moto-api/reset-auth"
        from_now_on = urllib.request.Request(url, b"0", {"Content-Type": "text/plain"})
        urllib.request.urlopen(from_now_on).close()
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            bucket.list_objects_v2(Bucket="sparkify-etl")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/sparkify-etl/a")


def test_an_object_may_be_empty(seed: Path) -> None:
    with serving(seed) as (_, port), client(port) as bucket:
        bucket.put_object(Bucket="udacity-dend", Key="empty", Body=b"")
        assert bucket.get_object(Bucket="udacity-dend", Key="empty")["Body"].read() == b""


def test_iam_and_sts_know_the_account_of_the_copy_role(seed: Path) -> None:
    with serving(seed) as (_, port), client(port, "iam") as iam, client(port, "sts") as sts:
        iam.create_role(RoleName="sparkify-redshift-copy", AssumeRolePolicyDocument="{}")
        role = iam.get_role(RoleName="sparkify-redshift-copy")["Role"]["Arn"]
        assert role == f"arn:aws:iam::{sts.get_caller_identity()['Account']}:role/sparkify-redshift-copy"


def test_serverless_hands_out_passwords_of_its_workgroup_for_as_long_as_aws_would(seed: Path) -> None:
    with serving(seed) as (_, port), client(port, "redshift-serverless") as serverless:
        before = datetime.now(UTC)
        credentials = serverless.get_credentials(
            workgroupName="sparkify", dbName="sparkify", durationSeconds=3600
        )
        assert temporary_password.is_valid(credentials["dbUser"], credentials["dbPassword"])
        assert 3590 < (credentials["expiration"] - before).total_seconds() < 3660
        with pytest.raises(ClientError, match="ValidationException"):
            serverless.get_credentials(workgroupName="sparkify", durationSeconds=899)
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            serverless.get_workgroup(workgroupName="other")


def test_sigterm_stops_it_at_once_with_a_client_connected(seed: Path) -> None:
    with serving(seed) as (process, port), socket.create_connection(("127.0.0.1", port)):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=2) == 0


def test_requests_are_not_logged(seed: Path) -> None:
    with serving(seed) as (process, port):
        objects(port)
        process.terminate()
        assert process.stdout
        assert process.stdout.read() == f"S3 on 127.0.0.1:{port} with 3 objects of {seed}\n"


def test_only_this_machine_can_connect(seed: Path) -> None:
    with serving(seed) as (process, _):
        listening = psutil.Process(process.pid).net_connections()
        assert {each.laddr.ip for each in listening if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_a_folder_without_data_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "log_data").mkdir()
    with pytest.raises(LocalError, match=f"There is no folder {tmp_path}/song_data"):
        s3.seed_files(tmp_path)
