import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

from local import stack
from local.airflow import DATABASE
from local.redshift import postgres
from local.settings import REPOSITORY, LocalError, Settings
from tests.local.test_s3 import client


@dataclass
class Local:
    """`python -m local` with a folder and ports of its own, and two small files of data."""

    settings: Settings
    data: Path

    def __call__(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "local", *arguments],
            cwd=REPOSITORY,
            env=os.environ | self.settings.environment() | variables,
            capture_output=True,
            text=True,
        )

    def up(self) -> None:
        done = self("up", "--data", self.data)
        assert done.returncode == 0, done.stderr

    def query(self, statement: bytes) -> list[tuple[object, ...]]:
        with psycopg.connect(self.settings.redshift_dsn) as connection:
            return connection.execute(statement).fetchall()

    def pid_file(self, name: str, pid: int) -> Path:
        path = self.settings.home / "run" / f"{name}.pid"
        path.parent.mkdir(parents=True)
        path.write_text(f"{pid}\n")
        return path

    def pids(self) -> dict[str, int]:
        return {path.stem: int(path.read_text()) for path in (self.settings.home / "run").glob("*.pid")}

    def listening(self) -> list[str]:
        names = []
        for name, port in (("s3", self.settings.s3_port), ("redshift", self.settings.redshift_port)):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    names.append(name)
        return names


@contextmanager
def local_stack() -> Iterator[Local]:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as one,
        closing(socket.create_server(("127.0.0.1", 0))) as other,
    ):
        s3, redshift = one.getsockname()[1], other.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        home, data = Path(name), Path(name) / "data"
        home.chmod(
            0o755
        )  # else root's PostgreSQL, which runs as somebody else, would keep its data elsewhere
        for key in ("log_data/events.json", "song_data/song.json"):
            (data / key).parent.mkdir(parents=True)
            (data / key).write_text("{}")
        settings = Settings(home, s3_port=s3, redshift_port=redshift, s3_url=f"http://127.0.0.1:{s3}")
        local = Local(settings, data)
        yield local
        local("down")


@contextmanager
def child(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def local() -> Iterator[Local]:
    with local_stack() as made:
        yield made


@pytest.fixture(scope="module")
def running() -> Iterator[Local]:
    with local_stack() as made:
        made.up()
        yield made


def test_both_servers_answer_when_up_returns(running: Local) -> None:
    assert running.query(b"SELECT 1") == [(1,)]
    assert running.listening() == ["s3", "redshift"]


def test_a_second_up_leaves_alone_what_runs(running: Local) -> None:
    before = running.pids()
    assert running("up").stdout.count("already running") == 2
    assert running.pids() == before


def test_status_succeeds_if_all_is_up(running: Local) -> None:
    status = running("status")
    assert status.returncode == 0
    port, pid = running.settings.s3_port, running.pids()["s3"]
    assert re.search(rf"^s3 +up +{pid} +http://127.0.0.1:{port}$", status.stdout, re.MULTILINE)


def test_status_fails_unless_all_is_up(local: Local) -> None:
    status = local("status")
    assert status.returncode == 3
    assert status.stdout.count("stopped") == 2


def test_a_server_that_stopped_answering_is_named_with_its_log(
    running: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "ANSWER_SECONDS", 1)
    os.kill(running.pids()["s3"], signal.SIGSTOP)
    try:
        assert stack.status(running.settings)[0].state == "not answering"
        with pytest.raises(LocalError, match=f"{running.settings.home}/log/s3.log"):
            stack.up(running.settings)
    finally:
        os.kill(running.pids()["s3"], signal.SIGCONT)


@pytest.mark.skipif(not shutil.which("psql"), reason="psql is not installed")
def test_psql_runs_a_query_on_the_warehouse(running: Local) -> None:
    assert running("psql", "-At", "-c", "SELECT 6 * 7").stdout == "42\n"


def test_up_with_data_serves_the_folder_as_it_is_now(local: Local) -> None:
    local.up()
    before = local.pids()
    (local.data / "song_data" / "late.json").write_text("{}")
    assert "3 objects, 6 bytes" in local("up", "--data", local.data).stdout
    assert local.pids()["s3"] != before["s3"]
    assert local.pids()["redshift"] == before["redshift"]


def test_what_was_written_to_s3_is_kept_until_other_data_is_asked_for(local: Local) -> None:
    def listed() -> set[str]:
        with client(local.settings.s3_port) as s3:
            return {each["Key"] for each in s3.list_objects_v2(Bucket="udacity-dend")["Contents"]}

    local.up()
    before = listed()
    with client(local.settings.s3_port) as s3:
        s3.put_object(Bucket="udacity-dend", Key="log_data/late.json", Body=b"{}")
    local("down")
    assert local("up").returncode == 0
    assert listed() == before | {"log_data/late.json"}
    local.up()
    assert listed() == before


def test_up_without_data_serves_a_generated_sample(local: Local) -> None:
    up = local("up")
    assert up.returncode == 0, up.stderr
    assert str(local.settings.home / "sample") in up.stdout


def test_the_warehouse_survives_a_restart_but_not_a_fresh_one(local: Local) -> None:
    local.up()
    # Airflow's database remembers what the warehouse has: were it kept, the next run would load nothing
    dsn = postgres.dsn(local.settings, "postgres")
    with psycopg.connect(dsn, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {DATABASE}".encode())
    with psycopg.connect(local.settings.redshift_dsn) as connection:
        connection.execute("CREATE TABLE pets (id INTEGER)")
    local("down")
    local.up()
    assert local.query(b"SELECT * FROM pets") == []
    psycopg.connect(dsn, dbname=DATABASE).close()
    assert local("up", "--fresh", "--data", local.data).returncode == 0
    with pytest.raises(psycopg.errors.UndefinedTable):
        local.query(b"SELECT * FROM pets")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(dsn, dbname=DATABASE)


def test_a_taken_port_is_named_with_its_variable_and_nothing_is_left_running(local: Local) -> None:
    with socket.create_server(("127.0.0.1", local.settings.redshift_port)):
        up = local("up", "--data", local.data)
    assert up.returncode == 1
    assert f"Port {local.settings.redshift_port}" in up.stderr
    assert "SPARKIFY_REDSHIFT_PORT" in up.stderr
    assert local.listening() == []


def test_a_server_that_dies_while_starting_shows_the_end_of_its_log(local: Local) -> None:
    up = local("up", "--data", local.data, SPARKIFY_HOST="192.0.2.1")  # an address that no machine has
    assert up.returncode == 1
    assert f"The end of {local.settings.home}/log/" in up.stderr
    assert "assign requested address" in up.stderr
    assert local.pids() == {}


def test_down_stops_both_servers_and_may_be_repeated(local: Local) -> None:
    local.up()
    assert local("down").stdout == "Stopped redshift, s3.\n"
    assert local.listening() == []
    assert local("down").stdout == "Nothing was running.\n"


def test_down_stops_whatever_left_a_pid_file_and_its_children(local: Local) -> None:
    with child("sh", "-c", "sleep 600 & echo ready; wait") as shell:
        assert shell.stdout
        shell.stdout.readline()
        [grandchild] = psutil.Process(shell.pid).children()
        local.pid_file("airflow", shell.pid)
        assert local("down").stdout == "Stopped airflow.\n"
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE
    assert local.pids() == {}


def test_status_shows_a_registered_process_while_it_runs(local: Local) -> None:
    with child("sleep", "600") as process:
        local.pid_file("airflow", process.pid)
        assert stack.status(local.settings)[2:] == [stack.Status("airflow", process.pid, "", "up")]
    assert stack.status(local.settings)[2:] == []


def test_a_process_is_registered_once(local: Local) -> None:
    with child("sleep", "600") as process:
        local.pid_file("airflow", process.pid)
        with pytest.raises(LocalError, match=f"airflow already runs .pid {process.pid}."):
            stack.register(local.settings, "airflow")
    stack.register(local.settings, "airflow")
    assert local.pids() == {"airflow": os.getpid()}
    (local.settings.home / "run" / "airflow.pid").unlink()  # else `down` would stop the tests


def test_down_kills_a_process_that_ignores_sigterm(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "STOP_SECONDS", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with child(sys.executable, "-c", deaf) as process:
        assert process.stdout
        process.stdout.readline()
        local.pid_file("airflow", process.pid)
        assert stack.down(local.settings) == ["airflow"]
    assert process.returncode == -signal.SIGKILL


def test_down_spares_a_process_that_has_a_dead_ones_number(local: Local) -> None:
    with child("sleep", "600") as process:
        pid_file = local.pid_file("s3", process.pid)
        os.utime(pid_file, (time.time() - 3600, time.time() - 3600))
        assert local("down").stdout == "Nothing was running.\n"
        assert process.poll() is None
    assert not pid_file.exists()


def test_a_missing_data_folder_is_an_error_of_one_line(local: Local, tmp_path: Path) -> None:
    up = local("up", "--data", tmp_path / "nowhere")
    assert up.returncode == 1
    assert re.fullmatch(f"error: There is no folder {tmp_path}/nowhere/log_data.*\n", up.stderr)


def test_a_port_that_is_no_number_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKIFY_S3_PORT", "s3")
    with pytest.raises(LocalError, match="SPARKIFY_S3_PORT is 's3'"):
        Settings()


def test_a_shell_reads_env_as_it_was_written(local: Local, tmp_path: Path) -> None:
    env = local("env", SPARKIFY_LOCAL_DIR=f"{tmp_path}/it's a home").stdout
    script = f'{env}\nprintf "%s\n" "$AIRFLOW_HOME" "$AIRFLOW_CONN_REDSHIFT"'
    home, connection = subprocess.check_output(["sh", "-c", script], text=True).splitlines()
    assert home == f"{tmp_path}/it's a home/airflow"
    assert json.loads(connection)["conn_type"] == "redshift"


def test_psql_gets_its_own_arguments_and_the_warehouses_address(local: Local, tmp_path: Path) -> None:
    psql = tmp_path / "psql"
    psql.write_text('#!/bin/sh\necho "$PGUSER@$PGHOST:$PGPORT/$PGDATABASE $@"\n')
    psql.chmod(0o755)
    called = local("psql", "-At", "-c", "SELECT 1", "--help", PATH=str(tmp_path))
    address = f"sparkify@127.0.0.1:{local.settings.redshift_port}/sparkify"
    assert called.stdout == f"{address} -At -c SELECT 1 --help\n"


def test_without_psql_the_message_has_the_address(local: Local) -> None:
    called = local("psql", PATH="")
    assert called.returncode == 1
    assert local.settings.redshift_dsn in called.stderr


def test_web_refuses_a_taken_port(local: Local) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        web = local("web", SPARKIFY_WEB_PORT=port)
    assert web.returncode == 1
    assert re.match(f"error: Port {port}.*SPARKIFY_WEB_PORT", web.stderr)


def test_a_report_without_a_warehouse_says_what_to_run(local: Local) -> None:
    report = local("report")
    assert report.returncode == 1
    assert "make demo" in report.stderr
    assert "Traceback" not in report.stderr


def test_the_report_counts_rows_and_ranks_songs(running: Local) -> None:
    with psycopg.connect(running.settings.redshift_dsn) as connection:
        for table in (REPOSITORY / "include" / "sql" / "ddl").glob("*.sql"):
            connection.execute(table.read_bytes())
        connection.execute(
            b"INSERT INTO fact_songplays"
            b" (songplay_id, start_time, user_id, session_id, item_in_session, song_title)"
            b" VALUES ('1', '2018-11-01', '8', 1, 0, 'Undo'), ('2', '2018-11-02', '9', 2, 0, 'Undo')"
        )
    report = running("report").stdout
    assert re.search(r"^fact_songplays +2$", report, re.MULTILINE)
    assert re.search(r"^Undo +2 +2$", report, re.MULTILINE)
