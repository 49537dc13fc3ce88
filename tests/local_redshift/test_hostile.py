"""Whatever a client sends, the local Redshift answers with an error or hangs up, and serves the next."""

import bz2
import gzip
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from backports import zstd

from local.redshift import wire
from local.settings import REDSHIFT_DATABASE, REDSHIFT_PASSWORD, REDSHIFT_USER

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "300"))
STARTUP = wire.startup({"user": REDSHIFT_USER, "database": REDSHIFT_DATABASE})
TERMINATE = wire.Message(b"X", b"").encode()
READY = wire.Message(wire.READY, b"I").encode()
PASSWORD = wire.Message(b"p", wire.text(REDSHIFT_PASSWORD)).encode()


@pytest.fixture
def alive(address: dict[str, Any], server: Any, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After the test a client is served as ever, no hostile session is left, and none met a fault."""
    yield
    assert [record for record in caplog.get_records("call") if record.exc_info] == []
    with (
        psycopg.connect(**address, dbname=REDSHIFT_DATABASE, connect_timeout=10) as connection,
        psycopg.connect(server.postgres.dsn, autocommit=True) as postgres,
    ):
        assert connection.execute("SELECT 6 * 7").fetchone() == (42,)
        left = "SELECT COUNT(*) FROM pg_stat_activity WHERE usename = %s AND state = 'active'"
        assert postgres.execute(left, [REDSHIFT_USER]).fetchone() == (0,)


def send(address: dict[str, Any], *parts: bytes, logged_in: bool = False) -> bytes:
    """Return what the server answers until it hangs up, for it has to; nothing more is sent to it."""
    with socket.create_connection((address["host"], address["port"]), timeout=5) as client:
        received = bytearray()
        if logged_in:
            client.sendall(STARTUP + PASSWORD)
            while not received.endswith(READY):
                received += client.recv(1 << 16)
            received.clear()
        with suppress(ConnectionError):  # a server that hangs up at once may take its answer with it
            for part in parts:
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)
            while chunk := client.recv(1 << 16):
                received += chunk
        return bytes(received)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\0",
        STARTUP[:20],
        struct.pack("!II", 0, wire.PROTOCOL_3),
        struct.pack("!II", 7, wire.PROTOCOL_3),
        struct.pack("!II", 0xFFFFFFFF, wire.PROTOCOL_3),
        struct.pack("!II", 1 << 31, wire.PROTOCOL_3) + b"user\0",
        struct.pack("!II", 8, 12345),
        struct.pack("!II", 8, wire.PROTOCOL_3),
        struct.pack("!II", 12, wire.PROTOCOL_3) + b"\xff\xfe\xfd\xfc",
        struct.pack("!IIII", 16, wire.CANCEL_REQUEST, 1, 2),
        struct.pack("!II", 8, wire.CANCEL_REQUEST),
        struct.pack("!II", 8, wire.SSL_REQUEST) * 1000,
        b"GET / HTTP/1.1\r\nHost: redshift\r\n\r\n",
        STARTUP + b"p" + struct.pack("!I", 0),
        STARTUP + b"p" + struct.pack("!I", 0x7FFFFFFF),
        STARTUP + wire.Message(b"Q", wire.text("SELECT 1")).encode(),
        STARTUP + wire.Message(b"p", b"\0" * 100).encode(),
    ],
)
def test_what_is_no_login_ends_the_connection(alive: None, address: dict[str, Any], first: bytes) -> None:
    assert b"SELECT 1" not in send(address, first)


@pytest.mark.parametrize(
    "message",
    [
        b"Q" + struct.pack("!I", 0),
        b"Q" + struct.pack("!I", 3),
        b"Q" + struct.pack("!I", 0x7FFFFFFF) + b"SELECT",
        b"Q" + struct.pack("!I", 0xFFFFFFFF),
        wire.Message(b"Q", b"SELECT 'no end").encode(),
        wire.Message(b"Q", b"SELECT '\xff\xfe'\0").encode(),
        wire.Message(b"Q", b"").encode(),
        wire.Message(b"Q", b"\0\0\0").encode(),
        wire.Message(b"P", b"").encode(),
        wire.Message(b"P", b"\0\xff\xff\0\0\0").encode(),
        wire.Message(b"P", b"a\0SELECT 1\0\xff\xff").encode(),
        wire.Message(b"B", b"").encode(),
        wire.Message(b"B", b"\0nothing\0" + b"\xff" * 20).encode(),
        wire.Message(b"E", b"").encode(),
        wire.Message(b"D", b"").encode(),
        wire.Message(b"C", b"").encode(),
        wire.Message(b"d", b"copy data").encode(),
        wire.Message(b"f", b"copy fail\0").encode(),
        wire.Message(b"F", b"\0\0\0\x01").encode(),
        wire.Message(b"?", b"").encode(),
        wire.Message(b"p", b"again\0").encode(),
        b"\0" * 1000,
    ],
)
def test_a_broken_message_is_an_error_or_the_end(
    alive: None, address: dict[str, Any], message: bytes
) -> None:
    answer = send(address, message, wire.SYNC.encode(), TERMINATE, logged_in=True)
    assert b"C\0\0\0" not in answer  # no statement was completed


def test_random_bytes_do_no_harm(alive: None, address: dict[str, Any]) -> None:
    chance = random.Random(SEED)
    for _ in range(ROUNDS):
        noise = chance.randbytes(chance.randrange(1, 200))
        if chance.random() < 0.7:  # framed, so that more than the first message is read
            noise = b"".join(
                wire.Message(bytes([chance.choice(b"QPBDECSHdcfF")]), noise[start : start + 40]).encode()
                for start in range(0, len(noise), 40)
            )
        send(address, noise, logged_in=chance.random() < 0.8)


def test_who_does_not_log_in_is_hung_up_on(
    alive: None, address: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.redshift.server._LOGIN_SECONDS", 0.2)
    for sent in (b"", STARTUP):
        with socket.create_connection((address["host"], address["port"]), timeout=5) as client:
            client.sendall(sent)
            while client.recv(100):
                pass


def test_a_statement_that_is_not_utf8_is_refused(alive: None, address: dict[str, Any]) -> None:
    query = wire.Message(b"Q", b"SELECT '\xff'\0").encode()
    assert b"invalid byte sequence" in send(address, query, TERMINATE, logged_in=True)


def test_a_hundred_are_connected_at_once(alive: None, address: dict[str, Any]) -> None:
    all_in = threading.Barrier(100)

    def ask(number: int) -> int:
        with psycopg.connect(**address, dbname=REDSHIFT_DATABASE, connect_timeout=30) as connection:
            all_in.wait(60)
            ((answer,),) = connection.execute(f"SELECT {number}".encode()).fetchall()
        return int(answer)

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(ask, range(300))) == list(range(300))


#: What files hold that stopped loads, or that a JSON parser may stumble over.
PIECES = [
    *(
        b'{"a": 1, "s": "x"}',
        b"\n",
        b"\r",
        b"\r\n",
        b" ",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x1f\x8b\x08",
        b"\0",
    ),
    *(b"[", b"]", b"{", b"}", b",", b'"', b"\\", b'{"a": ', b'"s": "', b"null", b"NaN", b"1e999", b"-"),
    *(b'{"s": "\\ud83d"}', b'{"s": "\xed\xa0\xbd"}', b'{"s": "\\u0000"}', b'{"a": "\xa4"}', b'{"a": 1.5}'),
    *(b'{"s": ' + b"[" * depth + b"]" * depth + b"}" for depth in (900, 985, 60_000)),
    *(b'{"s": "' + b"x" * length + b'"}' for length in (70_000, 300_000, 5_000_000)),
]


@pytest.mark.usefixtures("alive")
def test_no_file_ends_a_session(warehouse: psycopg.Connection, bucket: Any) -> None:
    """COPY loads what it can, or fails with an error that Redshift has, and the history tells which."""
    rng = random.Random(SEED)
    warehouse.execute("CREATE TABLE t (a INT, s VARCHAR(256))")
    compressions: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        "GZIP": gzip.compress,
        "BZIP2": bz2.compress,
        "ZSTD": zstd.compress,
    }
    for round_ in range(ROUNDS // 3):
        option, compress = rng.choice(list(compressions.items()))
        content = b"".join(rng.choices(PIECES, k=rng.randrange(12)))
        content = compress(content)
        if rng.random() < 0.3:
            content = content[: rng.randrange(len(content) + 1)]
        bucket.put_object(Key="in", Body=content)
        warehouse.execute("TRUNCATE t")
        failure = None
        try:
            warehouse.execute(
                "COPY t FROM 's3://udacity-dend/in' IAM_ROLE default FORMAT JSON 'auto'"
                f" MAXERROR {rng.choice([0, 3, 100])} {option}".encode()
            )
        except psycopg.InternalError as error:
            failure = error.diag.message_primary
        history = warehouse.execute(
            "SELECT status, loaded_rows, error_count, error_message, query_id FROM sys_load_history"
            " ORDER BY query_id DESC LIMIT 1"
        ).fetchone()
        assert history, round_
        status, loaded, errors, message, query_id = history
        assert (status, message) == ("aborted" if failure else "completed", failure), round_
        assert warehouse.execute("SELECT COUNT(*) FROM t").fetchone() == (loaded,), round_
        details = "SELECT COUNT(*) FROM sys_load_error_detail WHERE query_id = %s"
        assert warehouse.execute(details, [query_id]).fetchone() == (errors,), round_
