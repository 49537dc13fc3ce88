"""Sessions of the warehouse: they end if it stops answering, and say what a statement waits for."""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

log = logging.getLogger(__name__)

# A Serverless warehouse that is idle answers a login within seconds. Airflow's hook tries five times.
CONNECT_SECONDS = 60
# Firewalls and load balancers drop connections that are idle for minutes, as during a long COPY, and nobody
# notices (https://docs.aws.amazon.com/redshift/latest/mgmt/connecting-firewall-guidance.html).
KEEPALIVE = {"tcp_keepalive_idle": 60, "tcp_keepalive_interval": 15, "tcp_keepalive_count": 8}
# A COPY may take hours, so a running statement has no time-out. Every minute, another connection asks whether
# the warehouse is there.
WATCH_SECONDS = 60
PROBE_SECONDS = 20
MOST_SILENCES = 3
# https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST
_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")


class SilentWarehouse(TimeoutError):
    """The warehouse accepts connections, or has accepted ours, and does not answer."""


def connect(hook: "DbApiHook") -> Any:
    """
    Open a session.

    :param hook: the warehouse's hook
    :return: a connection of the hook's driver
    :raises SilentWarehouse: if the warehouse does not answer the login
    """
    if hook.conn_type != "redshift":
        return hook.get_conn()
    conn: Any = hook.conn
    extra = conn.extra_dejson
    conn.extra = json.dumps({"timeout": CONNECT_SECONDS, **KEEPALIVE, **extra})
    try:
        connection = hook.get_conn()
    except TimeoutError:
        raise SilentWarehouse(
            f"The warehouse accepted the connection and did not answer for {CONNECT_SECONDS} seconds. Is it"
            " available and not paused?"
        ) from None
    if "timeout" not in extra:
        connection._usock.settimeout(None)  # the driver applies it to every answer
    return connection


@contextmanager
def watching(connection: Any, statement: str) -> Iterator[None]:
    """
    Log that a statement takes long, and end it if the warehouse stops answering.

    :param connection: the session that runs the statement in this context
    :param statement: the statement
    :raises SilentWarehouse: if the warehouse stops answering
    """
    if statement.startswith("LOCK "):
        log.info(
            "%s: the task takes its turn. If nothing follows, another session holds the lock: SELECT * FROM"
            " svv_transactions shows which",
            statement,
        )
    ended, silent = Event(), Event()
    Thread(target=_watch, args=(connection, statement, ended, silent), daemon=True).start()
    try:
        yield
    except Exception:
        if not silent.is_set():
            raise
        raise SilentWarehouse(
            f"The warehouse stopped answering: {MOST_SILENCES} new connections in a row got no answer. Is it"
            " available and not paused?"
        ) from None
    finally:
        ended.set()


def _watch(connection: Any, statement: str, ended: Event, silent: Event) -> None:
    rounds = silences = 0
    while not ended.wait(WATCH_SECONDS):
        rounds += 1
        if rounds.bit_count() == 1:  # after 1, 2, 4, 8 … minutes
            log.info(
                "Still running after %d seconds: %s\nUnless it has much to do, it may wait for a lock:"
                " SELECT * FROM svv_transactions shows which session holds one",
                *(rounds * WATCH_SECONDS, statement),
            )
        usock: Any = getattr(connection, "_usock", None)  # other drivers have none
        silences = 0 if not usock or _answers(usock) else silences + 1
        if silences == MOST_SILENCES:
            silent.set()
            with suppress(OSError):
                # Not by the method of an SSLSocket, which the other thread is reading from.
                socket.socket.shutdown(usock, socket.SHUT_RDWR)
            return


def _answers(usock: socket.socket) -> bool:
    try:
        with socket.create_connection(usock.getpeername()[:2], PROBE_SECONDS) as probe:
            probe.sendall(_SSL_REQUEST)
            return bool(probe.recv(1))
    except OSError:
        return False
