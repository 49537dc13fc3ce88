import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from moto.server import ThreadedMotoServer

from local.redshift.server import Server
from local.settings import INPUT_BUCKET, REDSHIFT_DATABASE, REDSHIFT_PASSWORD, REDSHIFT_USER, Settings

Connect = Callable[..., psycopg.Connection]


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_url: str) -> Iterator[Any]:
    """The input bucket, empty again after each test."""
    bucket = boto3.resource(
        "s3",
        endpoint_url=s3_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    ).Bucket(INPUT_BUCKET)
    bucket.create()
    yield bucket
    bucket.objects.delete()
    bucket.delete()


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can reach even if the tests run as root, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="sparkify-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server(folder: Path, s3_url: str) -> Iterator[Server]:
    """A running local Redshift on a free port, in a thread."""
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    server = Server(Settings(home=folder, redshift_port=0, s3_url=s3_url))

    async def serve() -> None:
        async with server:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(30)
    yield server
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture
def address(server: Server) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": server.port, "user": REDSHIFT_USER, "password": REDSHIFT_PASSWORD}


@pytest.fixture
def warehouse(address: dict[str, Any]) -> Iterator[psycopg.Connection]:
    """A connection in autocommit whose search path begins with a schema of this test's own."""
    with psycopg.connect(**address, dbname=REDSHIFT_DATABASE, autocommit=True) as connection:
        connection.execute("SET statement_timeout TO 20000")
        connection.execute("CREATE SCHEMA test")
        connection.execute("SET search_path TO test, public")
        yield connection
        connection.execute("DROP SCHEMA test CASCADE")


@pytest.fixture
def connect(address: dict[str, Any]) -> Iterator[Connect]:
    """Connects with psycopg, in autocommit unless told otherwise; closes at the end of the test."""
    connections: list[psycopg.Connection] = []

    def connect(**options: Any) -> psycopg.Connection:
        options = {"dbname": REDSHIFT_DATABASE, "autocommit": True, **address, **options}
        connections.append(psycopg.connect(**options))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()
