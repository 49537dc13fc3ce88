"""Starting, stopping and dying, each with a server of its own in a process of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from local.settings import REPOSITORY, Settings


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
        port = int(self.process.stdout.readline().split("127.0.0.1:")[1].split(",")[0])
        self.settings = Settings(home=home, redshift_port=port)

    def connect(self, **options: Any) -> psycopg.Connection:
        """Connect, in autocommit."""
        return psycopg.connect(self.settings.redshift_dsn, autocommit=True, **options)

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
def start(folder: Path) -> Iterator[Callable[[], Process]]:
    """Starts a server on the test's own data; at the end none is left running."""
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(folder / "own"))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.end()
    shutil.rmtree(folder / "own")


def test_sigterm_stops_the_server_and_postgres(start: Callable[[], Process]) -> None:
    server = start()
    client = server.connect()
    assert server.end() == 0
    assert not (server.data / "postmaster.pid").exists()
    client.close()


def test_a_killed_server_finds_its_data_again(start: Callable[[], Process]) -> None:
    server = start()
    with server.connect() as connection:
        connection.execute("CREATE TABLE pets (id INT)")
        connection.execute("INSERT INTO pets VALUES (7)")
    server.end(signal.SIGKILL)
    postmaster = server.postmaster()
    server = start()
    assert server.ask("SELECT id FROM pets") == [(7,)]
    assert server.postmaster() == postmaster
    assert server.end() == 0


def test_users_and_what_they_may_do_outlast_a_restart(start: Callable[[], Process]) -> None:
    server = start()
    with server.connect() as connection:
        connection.execute("CREATE USER ann PASSWORD 'Mypassword1'")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute("REVOKE ASSUMEROLE ON ALL FROM PUBLIC FOR ALL")
        connection.execute("ALTER USER sparkify PASSWORD 'Another2'")
    assert server.end() == 0
    server = start()
    with server.connect(user="ann", password="Mypassword1") as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE public.pets (id INT)")
        assert connection.execute("SELECT HAS_ASSUMEROLE_PRIVILEGE('x', 'COPY')").fetchall() == [(False,)]
    server.connect(password="Another2").close()
    assert server.end() == 0


def test_a_client_that_comes_while_postgres_dies_is_served_by_the_next(
    start: Callable[[], Process],
) -> None:
    server = start()
    client = server.connect()  # stays, so that the number of connections only grows
    client.execute("CREATE TABLE pets (id INT)")
    postmaster, process = psutil.Process(server.postmaster()), psutil.Process(server.process.pid)
    postmaster.suspend()  # it is still connected to, but says nothing
    before = len(process.net_connections("unix"))
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(server.ask, "SELECT COUNT(*) FROM pets")
        while len(process.net_connections("unix")) <= before:
            time.sleep(0.01)
        postmaster.kill()
        assert asked.result() == [(0,)]
    client.close()
    assert server.end() == 0


def test_a_server_whose_postgres_was_killed_stops_all_the_same(start: Callable[[], Process]) -> None:
    server = start()
    server.ask("SELECT 1")
    os.kill(server.postmaster(), signal.SIGKILL)
    assert server.end() == 0
    assert not (server.data / "postmaster.pid").exists()


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_postgres_is_started_again_for_the_next_client(
    start: Callable[[], Process], busy: bool
) -> None:
    server = start()
    client = server.connect()
    client.execute("CREATE TABLE pets (id INT)")
    client.execute("INSERT INTO pets VALUES (7)")
    slow = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    if busy:
        client.pgconn.send_query(slow.encode())
        postmaster = psutil.Process(server.postmaster())
        while not any(backend.cpu_times().user > 0.2 for backend in postmaster.children()):
            time.sleep(0.05)
    os.kill(server.postmaster(), signal.SIGKILL)
    assert server.ask("SELECT id FROM pets") == [(7,)]
    assert server.ask("SELECT COUNT(*) FROM local_statements WHERE statement LIKE 'SELECT id%'") == [(1,)]
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 1")
    client.close()
    assert server.end() == 0
