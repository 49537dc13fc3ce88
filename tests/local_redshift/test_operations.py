"""Starting, stopping and dying, each with a server of its own in a process of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local.settings import REDSHIFT_DATABASE, REDSHIFT_PASSWORD, REDSHIFT_USER, REPOSITORY


class Process:
    """
    A local Redshift in a process of its own.

    :param home: its folder
    """

    def __init__(self, home: Path) -> None:
        self.data = home / "postgres" / "data"
        code = (
            "import pathlib; from local.redshift import server; from local.settings import Settings;"
            f"server.main(Settings(home=pathlib.Path({str(home)!r}), redshift_port=0))"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-uc", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.port = self.process.stdout.readline().split("127.0.0.1:")[1].split(",")[0]

    def connect(self) -> psycopg.Connection:
        """Connect, in autocommit."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=REDSHIFT_USER,
            password=REDSHIFT_PASSWORD,
            dbname=REDSHIFT_DATABASE,
            autocommit=True,
        )

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """Return a query's rows, over a connection of its own."""
        with self.connect() as connection:
            return connection.execute(sql.encode()).fetchall()

    def postmaster(self) -> int:
        """Return the process id of its PostgreSQL."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def end(self, how: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(how)
        code = self.process.wait(15)
        assert self.process.stdout
        self.process.stdout.close()
        return code


@pytest.fixture
def home(folder: Path) -> Iterator[Path]:
    yield folder / "own"
    shutil.rmtree(folder / "own")


def test_sigterm_stops_the_server_and_postgres(home: Path) -> None:
    server = Process(home)
    client = server.connect()
    assert server.end() == 0
    assert not (server.data / "postmaster.pid").exists()
    client.close()


def test_a_killed_server_finds_its_data_again(home: Path) -> None:
    server = Process(home)
    with server.connect() as connection:
        connection.execute("CREATE TABLE pets (id INT)")
        connection.execute("INSERT INTO pets VALUES (7)")
    server.end(signal.SIGKILL)
    postmaster = server.postmaster()
    server = Process(home)
    assert server.ask("SELECT id FROM pets") == [(7,)]
    assert server.postmaster() == postmaster
    assert server.end() == 0


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_postgres_is_started_again_for_the_next_client(home: Path, busy: bool) -> None:
    server = Process(home)
    client = server.connect()
    client.execute("CREATE TABLE pets (id INT)")
    client.execute("INSERT INTO pets VALUES (7)")
    slow = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    if busy:
        client.pgconn.send_query(slow.encode())
        time.sleep(0.5)
    os.kill(server.postmaster(), signal.SIGKILL)
    assert server.ask("SELECT id FROM pets") == [(7,)]
    assert server.ask("SELECT COUNT(*) FROM local_statements WHERE statement LIKE 'SELECT id%'") == [(1,)]
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 1")
    client.close()
    assert server.end() == 0
