"""
Runs every case of ``isolation.yaml``: several sessions, their statements in the order of its ``steps``.

A step is a session's number with its statement, and what is to come of it: ``expect``, the rows; ``error``,
how the message begins, with the beginning of its ``detail``; ``waits``, that it is not done before another
session has gone on, so that the rest is known only at the session's next step; or ``ends_one``, the error
that either this statement or the one that waits must end with. ``then`` is asked at the end. A case runs at
both ``levels`` unless it says at which.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest
import redshift_connector
import yaml

from local.redshift.server import Server
from local.settings import REDSHIFT_DATABASE, REDSHIFT_PASSWORD, REDSHIFT_USER, Settings
from tests.local_redshift.conftest import Connect

LEVELS = ("SERIALIZABLE", "SNAPSHOT")
CASES = [
    pytest.param(case, level, id=f"{level}: {case['it']}")
    for case in yaml.safe_load(Path(__file__).with_name("isolation.yaml").read_text())
    for level in case.get("levels", LEVELS)
]
PATIENCE = 30

Answer = list[list[Any]] | psycopg.Error | redshift_connector.Error


def ask(cursor: Any, statement: str) -> Answer:
    try:
        cursor.execute(statement)
        return [list(row) for row in cursor.fetchall()] if cursor.description else []
    except (psycopg.Error, redshift_connector.Error) as error:
        return error


def connect_psycopg(address: dict[str, Any]) -> Any:
    return psycopg.connect(**address, dbname=REDSHIFT_DATABASE, autocommit=True)


def connect_redshift(address: dict[str, Any]) -> Any:
    connection = redshift_connector.connect(**address, database=REDSHIFT_DATABASE, ssl=False)
    connection.autocommit = True
    return connection


class Session:
    """A client, and the statement that it waits for, if it does."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.cursor = connection, connection.cursor()
        self.thread = ThreadPoolExecutor(1)
        self.ask("SET search_path TO test, public").result(PATIENCE)
        ((self.pid,),) = self.cursor.execute("SELECT PG_BACKEND_PID()") and self.cursor.fetchall()
        self.waiting: list[tuple[dict[Any, Any], Future[Answer]]] = []

    def ask(self, statement: str) -> Future[Answer]:
        return self.thread.submit(ask, self.cursor, statement)

    def finish(self) -> None:
        """Check what has come of a statement that had to wait."""
        while self.waiting:
            step, future = self.waiting.pop()
            check(step, future.result(PATIENCE))

    def close(self) -> None:
        self.connection.close()
        self.thread.shutdown()


def check(step: dict[Any, Any], answer: Answer) -> None:
    if "error" in step:
        assert isinstance(answer, Exception), step
        message, detail = error_fields(answer)
        assert message.startswith(step["error"]), (step, message)
        assert detail.startswith(step.get("detail", "")), (step, detail)
        return
    assert not isinstance(answer, Exception), (step, answer)
    assert answer == step.get("expect", answer), step


def error_fields(error: Any) -> tuple[str, str]:
    """Return the message and the detail of an error of either driver."""
    if isinstance(error, psycopg.Error):
        return error.diag.message_primary or "", error.diag.message_detail or ""
    (fields,) = error.args
    return fields["M"], fields.get("D", "")


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, connect: Connect) -> Iterator[str]:
    """The database's isolation level."""
    set_level(connect, request.param)
    yield request.param
    set_level(connect, "SNAPSHOT")


def set_level(connect: Connect, level: str) -> None:
    with connect() as connection:
        connection.execute(f"ALTER DATABASE sparkify ISOLATION LEVEL {level}".encode())


@pytest.fixture(params=[connect_psycopg, connect_redshift], ids=["simple protocol", "extended protocol"])
def sessions(
    request: pytest.FixtureRequest, level: str, warehouse: psycopg.Connection, address: dict[str, Any]
) -> Iterator[Callable[[int], Session]]:
    """Sessions by their numbers, each logged in when it is first asked for."""
    opened: dict[int, Session] = {}

    def session(number: int) -> Session:
        if number not in opened:
            opened[number] = Session(request.param(address))
        return opened[number]

    yield session
    for each in opened.values():
        each.close()


@pytest.mark.parametrize(("case", "level"), CASES, indirect=["level"])
def test_sessions_see_each_other_as_amazon_documents(
    case: dict[str, Any],
    sessions: Callable[[int], Session],
    server: Server,
    bucket: Any,
    warehouse: psycopg.Connection,
) -> None:
    for key, text in case.get("objects", {}).items():
        bucket.put_object(Key=key, Body=text.encode())
    for statement in case["given"]:
        warehouse.execute(statement.encode())
    for step in case["steps"]:
        number = next(key for key in step if isinstance(key, int))
        session = sessions(number)
        session.finish()
        future = session.ask(step[number])
        if step.get("waits"):
            assert waits_for_a_lock(server, session, future), step
            session.waiting.append((step, future))
        elif "ends_one" in step:
            (waiting,) = (one.waiting.pop() for one in map(sessions, (1, 2)) if one.waiting)
            answers = [each.result(PATIENCE) for each in (future, waiting[1])]
            (error,) = (answer for answer in answers if isinstance(answer, Exception))
            assert error_fields(error)[0] == step["ends_one"]
        else:
            check(step, future.result(PATIENCE))
    for number in (1, 2):
        sessions(number).finish()
    if "then" in case:
        assert [list(row) for row in warehouse.execute(case["then"].encode())] == case["expect"]


def waits_for_a_lock(server: Server, session: Session, future: Future[Answer]) -> bool:
    """Tell whether a statement waits for a lock, before it is done."""
    deadline = monotonic() + PATIENCE
    with psycopg.connect(server.postgres.dsn) as connection:
        waiting = "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted"
        while not (found := connection.execute(waiting, [session.pid]).fetchone()):
            if future.done() or monotonic() > deadline:
                return False
            sleep(0.01)
    return bool(found)


LEVEL = "SELECT TRIM(db_name), TRIM(isolation_level) FROM stv_db_isolation_level"


def test_the_level_is_snapshot_until_it_is_altered(connect: Connect) -> None:
    connection = connect()
    assert connection.execute(LEVEL).fetchall() == [("sparkify", "Snapshot Isolation")]
    connection.execute("ALTER DATABASE Sparkify ISOLATION LEVEL serializable")
    assert connection.execute(LEVEL).fetchall() == [("sparkify", "Serializable")]
    connection.execute("alter database sparkify isolation level snapshot")


def test_the_level_cannot_be_altered_in_a_transaction(connect: Connect) -> None:
    connection = connect()
    connection.execute("BEGIN")
    with pytest.raises(psycopg.errors.ActiveSqlTransaction, match="inside a transaction block"):
        connection.execute("ALTER DATABASE sparkify ISOLATION LEVEL SERIALIZABLE")


def test_the_level_cannot_be_altered_while_others_are_connected(connect: Connect) -> None:
    connection, other = connect(), connect()
    with pytest.raises(psycopg.errors.ObjectInUse, match="is being accessed by other users"):
        connection.execute("ALTER DATABASE sparkify ISOLATION LEVEL SERIALIZABLE")
    assert other.execute(LEVEL).fetchall() == [("sparkify", "Snapshot Isolation")]


def test_the_level_outlives_a_restart() -> None:
    folder = Path(mkdtemp(prefix="sparkify-"))
    folder.chmod(0o755)

    async def ask(*statements: str) -> list[tuple[Any, ...]]:
        async with Server(Settings(home=folder, redshift_port=0)) as server:
            address = f"postgresql://{REDSHIFT_USER}:{REDSHIFT_PASSWORD}@127.0.0.1:{server.port}"
            async with await psycopg.AsyncConnection.connect(
                f"{address}/{REDSHIFT_DATABASE}", autocommit=True
            ) as connection:
                for statement in statements:
                    answer = await connection.execute(statement.encode())
                return await answer.fetchall()

    asyncio.run(ask("ALTER DATABASE sparkify ISOLATION LEVEL SERIALIZABLE", LEVEL))
    try:
        assert asyncio.run(ask(LEVEL)) == [("sparkify", "Serializable")]
    finally:
        rmtree(folder)
