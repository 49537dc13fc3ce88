"""Sessions with a warehouse that hangs."""

import gc
import json
import logging
import os
import select
import socket
import threading
import time
from contextlib import closing, suppress

import pytest
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook

from sparkify import sessions
from sparkify.errors import TransientError, explained
from sparkify.sql import run_in_transaction


class Proxy:
    """
    Passes a warehouse's connections through, or, while it ``hangs``, accepts them and is silent.

    :param port: the warehouse's port
    """

    def __init__(self, port):
        self.target, self.hangs = ("127.0.0.1", port), False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self.server.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client):
        with suppress(OSError), closing(client), closing(socket.create_connection(self.target)) as server:
            other = {client: server, server: client}
            while True:
                for ready in select.select(list(other), [], [], 0.05)[0]:
                    while self.hangs:
                        time.sleep(0.05)
                    if not (data := ready.recv(65536)):
                        return
                    other[ready].sendall(data)


# The driver leaves the socket of a failed login open.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def proxy(stack, created, tries_at_once, monkeypatch):
    proxy = Proxy(stack.redshift_port)
    connection = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"])
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(connection | {"port": proxy.port}))
    yield proxy
    proxy.hangs = False
    proxy.server.close()
    gc.collect()


def hook():
    return RedshiftSQLHook(redshift_conn_id="redshift")


def statements(*texts):
    for text in texts:  # noqa: UP028 - no results to a tuple
        yield text


def test_a_warehouse_that_accepts_and_never_answers_ends_the_try_with_a_clear_message(proxy, monkeypatch):
    monkeypatch.setattr(sessions, "CONNECT_SECONDS", 1)
    proxy.hangs = True
    with pytest.raises(TransientError) as failure, explained("Loading", "redshift"):
        run_in_transaction(hook(), statements("SELECT 1"))
    assert str(failure.value).startswith(
        "Loading failed: The warehouse accepted the connection and did not answer for 1 seconds. Is it"
        " available and not paused? This is often transient, so Airflow retries the task."
    )


def test_a_warehouse_that_stops_answering_a_statement_ends_the_try_with_a_clear_message(proxy, monkeypatch):
    monkeypatch.setattr(sessions, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(sessions, "PROBE_SECONDS", 0.2)

    def transaction():
        yield "SELECT 1"
        proxy.hangs = True
        yield "SELECT 2"

    began = time.monotonic()
    said = "Loading failed: The warehouse stopped answering: 3 new connections in a row got no answer"
    with pytest.raises(TransientError, match=said), explained("Loading", "redshift"):
        run_in_transaction(hook(), transaction())
    assert time.monotonic() - began < 10


def test_a_long_statement_is_not_cut_off_and_the_log_says_what_it_may_wait_for(
    proxy, created, monkeypatch, caplog
):
    monkeypatch.setattr(sessions, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(sessions, "WATCH_SECONDS", 0.2)
    caplog.set_level(logging.INFO, "sparkify.sessions")
    with closing(created.get_conn()) as analyst:
        analyst.cursor().execute("LOCK dim_users")
        threading.Timer(3, analyst.rollback).start()
        run_in_transaction(hook(), statements("SELECT COUNT(*) FROM dim_users"))
    said = [message for message in caplog.messages if message.startswith("Still running")]
    assert 3 <= len(said) <= 5
    assert "SELECT COUNT(*) FROM dim_users" in said[0]
    assert "SELECT * FROM svv_transactions shows which session holds one" in said[0]


def test_a_task_says_that_it_waits_for_its_turn_before_it_waits(created, caplog):
    caplog.set_level(logging.INFO, "sparkify.sessions")
    run_in_transaction(hook(), statements("LOCK etl_batches"))
    assert "LOCK etl_batches: the task takes its turn. If nothing follows, another session" in caplog.text
