"""Starts, watches and stops the local S3 and the local Redshift as background processes."""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import psycopg
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local import s3
from local.redshift import postgres
from local.sample import write_sample
from local.settings import INPUT_BUCKET, REGION, REPOSITORY, LocalError, Settings

START_SECONDS = 120
STOP_SECONDS = 10
ANSWER_SECONDS = 5
LOG_LINES = 15


@dataclass(frozen=True)
class Server:
    """
    One server of the local stack.

    :param name: what ``python -m local serve`` calls it; its pid file and its log have this name
    :param port: the TCP port it listens on
    :param port_variable: the environment variable that sets the port
    :param address: what a client connects to
    :param ask: sends a request that only a working server answers, and raises when there is no answer
    """

    name: str
    port: int
    port_variable: str
    address: str
    ask: Callable[[str], None]

    def answers(self) -> bool:
        """Return whether the server answers a real request."""
        try:
            self.ask(self.address)
        except (BotoCoreError, ClientError, psycopg.Error):
            return False
        return True


@dataclass(frozen=True)
class Status:
    """
    How one process of the stack is.

    :param name: its pid file's name
    :param pid: its process id, none when it doesn't run
    :param address: what a client connects to, empty for a process that isn't a server of the stack
    :param state: ``up``, ``not answering`` or ``stopped``
    """

    name: str
    pid: int | None
    address: str
    state: str


def servers(settings: Settings) -> list[Server]:
    """Return the servers of the stack."""
    s3_address = f"http://127.0.0.1:{settings.s3_port}"
    return [
        Server("s3", settings.s3_port, "SPARKIFY_S3_PORT", s3_address, _ask_s3),
        Server(
            "redshift", settings.redshift_port, "SPARKIFY_REDSHIFT_PORT", settings.redshift_dsn, _ask_redshift
        ),
    ]


def up(settings: Settings, data: Path | None = None, *, fresh: bool = False) -> list[str]:
    """
    Start the servers that don't run yet, and return once every one answers.

    Where one can't be started, those that this call has started are stopped again.

    :param settings: addresses and folder of the stack
    :param data: the folder to serve as it is now, for which a running S3 is restarted and forgets what
        clients changed; by default a running S3 is left alone, and a new one serves what was served last, at
        first a generated sample
    :param fresh: whether first to stop everything and to remove the warehouse's data, and with it what
        Airflow remembers
    :return: the names of the servers started
    :raises LocalError: if a port is taken, or a server doesn't come up
    """
    with _exclusive(settings):
        if data:
            s3.seed_files(data)  # refuses a folder without data before anything is stopped
            _data_note(settings).write_text(str(data))
        if fresh:
            _stop(_pid_files(settings))
            postgres.remove_data(settings)
            shutil.rmtree(settings.airflow_home, ignore_errors=True)
        elif data:
            _stop([_pid_file(settings, "s3")])
        if data:
            shutil.rmtree(settings.changed_objects, ignore_errors=True)
        missing = [server for server in servers(settings) if not _runs(settings, server)]
        for server in missing:
            refuse_a_taken_port(server.name, server.port, server.port_variable)
        started = {}
        try:
            for server in missing:
                folder = ["--data", str(served_data(settings))] if server.name == "s3" else []
                started[server] = _start(settings, server, folder)
            for server, process in started.items():
                _wait(server, process, _log_file(settings, server.name))
        except BaseException:
            _stop([_pid_file(settings, server.name) for server in started])
            raise
    return [server.name for server in missing]


def down(settings: Settings) -> list[str]:
    """
    Stop every process that has a pid file in the stack's ``run`` folder, and remove the pid files.

    They are stopped one after the other, Airflow first, which then still writes to its database.

    :param settings: folder of the stack
    :return: the names of the processes that were running
    """
    with _exclusive(settings):
        return _stop(_pid_files(settings))


def status(settings: Settings) -> list[Status]:
    """Return how each server is, and then every other process that :func:`down` would stop."""
    result = []
    for server in servers(settings):
        process = _process(_pid_file(settings, server.name))
        state = "stopped" if not process else "up" if server.answers() else "not answering"
        result.append(Status(server.name, process.pid if process else None, server.address, state))
    known = {each.name for each in result}
    for pid_file in _pid_files(settings):
        if pid_file.stem not in known and (process := _process(pid_file)):
            result.append(Status(pid_file.stem, process.pid, "", "up"))
    return result


def refuse_a_taken_port(name: str, port: int, port_variable: str) -> None:
    """
    Check that nothing listens yet where a server is about to.

    :param name: the server's name
    :param port: the port that it wants
    :param port_variable: the environment variable that gives it another one
    :raises LocalError: if another program listens there
    """
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        raise LocalError(
            f"Port {port}, meant for {name}, is taken by another program. "
            f"Stop that program, or set {port_variable} to a free port."
        )


def register(settings: Settings, name: str) -> None:
    """
    Write this process's pid file, so that :func:`down` stops it and :func:`status` shows it.

    :param settings: folder of the stack
    :param name: what to call this process
    :raises LocalError: if another process of this name runs
    """
    with _exclusive(settings):
        if process := _process(_pid_file(settings, name)):
            raise LocalError(f"{name} already runs (pid {process.pid}); `python -m local down` stops it.")
        _pid_file(settings, name).write_text(f"{os.getpid()}\n")


def stop_processes(processes: Sequence[psutil.Process]) -> None:
    """
    Tell processes to end, then the children that outlive them, and kill what still runs.

    :param processes: those to stop; ended ones may be among them
    """
    children = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            children += process.children(recursive=True)
    for receivers, send in (
        (processes, psutil.Process.terminate),  # a process may stop its own children
        (children, psutil.Process.terminate),
        ([*processes, *children], psutil.Process.kill),
    ):
        for process in receivers:
            with suppress(psutil.NoSuchProcess):
                send(process)
        deadline = time.monotonic() + STOP_SECONDS
        while any(map(_is_alive, receivers)) and time.monotonic() < deadline:
            time.sleep(0.02)


def served_data(settings: Settings) -> Path:
    """Return the folder that S3 serves: the one last given to :func:`up`, else the generated sample."""
    note = _data_note(settings)
    return Path(note.read_text()) if note.exists() else sample_data(settings)


def sample_data(settings: Settings) -> Path:
    """Return the folder of the generated sample data, which is written the first time."""
    folder = settings.home / "sample"
    if not folder.exists():
        write_sample(folder)
    return folder


def _ask_s3(address: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(
            connect_timeout=ANSWER_SECONDS, read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 1}
        ),
    )
    try:
        client.head_bucket(Bucket=INPUT_BUCKET)
    finally:
        client.close()


def _ask_redshift(address: str) -> None:
    with psycopg.connect(address, connect_timeout=ANSWER_SECONDS) as connection:
        connection.execute("SELECT 1")


def _run_folder(settings: Settings) -> Path:
    return settings.home / "run"


def _pid_file(settings: Settings, name: str) -> Path:
    return _run_folder(settings) / f"{name}.pid"


def _pid_files(settings: Settings) -> list[Path]:
    """Return them by name, which puts Airflow before the servers that it needs."""
    return sorted(_run_folder(settings).glob("*.pid"))


def _data_note(settings: Settings) -> Path:
    return settings.home / "data_folder"


def _log_file(settings: Settings, name: str) -> Path:
    return settings.home / "log" / f"{name}.log"


@contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    """Let one command at a time start or stop processes, else two would start the same server."""
    _run_folder(settings).mkdir(parents=True, exist_ok=True)
    with open(_run_folder(settings) / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _process(pid_file: Path) -> psutil.Process | None:
    """Return the process that a pid file was written for, none if it has ended."""
    try:
        process = psutil.Process(int(pid_file.read_text()))
        # A process younger than the file has a dead one's number; start times are right to about a second.
        same = process.create_time() < pid_file.stat().st_mtime + 2
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    return process if same and _is_alive(process) else None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _runs(settings: Settings, server: Server) -> bool:
    process = _process(_pid_file(settings, server.name))
    if process and not server.answers():
        raise LocalError(
            f"The local {server.name} server (pid {process.pid}) doesn't answer at {server.address}. "
            f"Its log is {_log_file(settings, server.name)}; `python -m local down` stops it."
        )
    return process is not None


def _start(settings: Settings, server: Server, arguments: list[str]) -> subprocess.Popen[bytes]:
    log_file = _log_file(settings, server.name)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with open(log_file, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "local", "serve", server.name, *arguments],
            cwd=REPOSITORY,
            env=os.environ | settings.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # closing the terminal doesn't stop it
        )
    _pid_file(settings, server.name).write_text(f"{process.pid}\n")
    return process


def _wait(server: Server, process: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.answers():
        if process.poll() is not None:
            problem = f"stopped with exit code {process.returncode} while starting"
        elif time.monotonic() > deadline:
            problem = f"doesn't answer at {server.address} after {START_SECONDS} s"
        else:
            time.sleep(0.1)
            continue
        end = "\n".join(log_file.read_text(errors="replace").splitlines()[-LOG_LINES:])
        raise LocalError(f"The local {server.name} server {problem}. The end of {log_file}:\n{end}")


def _stop(pid_files: Iterable[Path]) -> list[str]:
    stopped = []
    for pid_file in pid_files:
        if process := _process(pid_file):
            stop_processes([process])
            stopped.append(pid_file.stem)
        pid_file.unlink(missing_ok=True)
    return stopped
