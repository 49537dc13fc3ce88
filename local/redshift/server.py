"""
The local Redshift: what listens where a cluster would.

It speaks PostgreSQL's protocol, as Redshift does. Each client gets a session of its own on a PostgreSQL that
it cannot reach by itself.
"""

import asyncio
import logging
import os
import signal
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import psycopg
import trustme
from psycopg.conninfo import conninfo_to_dict

from local import temporary_password
from local.redshift import passwords, wire
from local.redshift.errors import SqlError
from local.redshift.faults import FILE_VARIABLE, Faults
from local.redshift.isolation import Isolation
from local.redshift.journal import Journal
from local.redshift.postgres import Postgres
from local.redshift.session import Session
from local.redshift.wire import Connection, Message
from local.settings import REDSHIFT_DATABASE, Settings

SERVER_VERSION = "8.0.2"  # what Redshift reports; drivers choose their catalog queries by it

_log = logging.getLogger(__name__)

# What it looks like when PostgreSQL has died, or is dying.
_NO_POSTGRES = (ConnectionError, FileNotFoundError, asyncio.IncompleteReadError, psycopg.OperationalError)
_LOGIN_SECONDS = 60  # PostgreSQL's authentication_timeout

# What a client may set when it connects. Drivers send more, which PostgreSQL would refuse to start with.
_STARTUP_SETTINGS = {
    "application_name",
    "client_encoding",
    "datestyle",
    "extra_float_digits",
    "options",
    "timezone",
}


def main(settings: Settings) -> None:
    """
    Run the local Redshift until SIGTERM or SIGINT.

    :param settings: where to listen and to keep data
    :raises SqlError: when PostgreSQL cannot be started
    :raises OSError: when the port is taken
    """
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Server(settings) as server:
        _log.info("local Redshift: %s:%s, PostgreSQL: %s", settings.host, server.port, server.postgres.dsn)
        await stop.wait()


class Server:
    """
    The listener and its PostgreSQL; an asynchronous context manager that starts and stops both.

    :param settings: where to listen and to keep data
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.postgres = Postgres(settings)
        self.port = settings.redshift_port
        faults = os.environ.get(FILE_VARIABLE)
        self._faults = Faults(Path(faults)) if faults else None
        self._sessions: set[asyncio.Task[None]] = set()
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> "Server":
        # The port first: a second server must not touch the data of the one that has it
        self._listener = await asyncio.start_server(
            self._accept, self.settings.host, self.settings.redshift_port, start_serving=False
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        try:
            await asyncio.to_thread(self.postgres.start)
        except BaseException:
            self._listener.close()
            raise
        self.journal = Journal(self.postgres.dsn)
        await self.journal.connect()
        self.isolation = Isolation(await self.journal.isolation_level())
        self._tls = _tls(self.settings)
        await self._listener.start_serving()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._listener.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        try:
            await self.journal.close()
        except psycopg.OperationalError as error:
            _log.warning("the last statements are not in the journal, for PostgreSQL has died: %s", error)
        await asyncio.to_thread(self.postgres.stop)

    async def _start_again(self) -> None:
        """
        Start PostgreSQL if it has died.

        :raises SqlError: when it does not start
        """
        async with self._starting:
            if not await asyncio.to_thread(self.postgres.answers):
                _log.warning("PostgreSQL does not answer: it is started again")
                await asyncio.to_thread(self.postgres.start)
                await self.journal.connect()

    async def _open_upstream(self) -> Connection:
        address = conninfo_to_dict(self.postgres.dsn)
        host, port = str(address["host"]), int(address.get("port") or 5432)
        if host.startswith("/"):
            return Connection(*await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}"))
        return Connection(*await asyncio.open_connection(host, port))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        client = Connection(reader, writer)
        try:
            await self._talk(client)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the client has gone, or does not speak the protocol
        except asyncio.CancelledError:
            pass  # the server stops
        except Exception:
            _log.exception("a session ended by a fault of the local Redshift")
        finally:
            self._sessions.discard(task)
            await client.close()

    async def _talk(self, client: Connection) -> None:
        """Log a client in and serve it until it leaves."""
        async with asyncio.timeout(_LOGIN_SECONDS):
            code, body = await client.read_startup()
            while code in (wire.SSL_REQUEST, wire.GSS_REQUEST):
                client.writer.write(b"S" if code == wire.SSL_REQUEST else b"N")
                if code == wire.SSL_REQUEST:
                    await client.writer.start_tls(self._tls)
                code, body = await client.read_startup()
        if code == wire.CANCEL_REQUEST:
            with suppress(*_NO_POSTGRES):  # then there is nothing to cancel
                upstream = await self._open_upstream()
                upstream.writer.write(wire.cancel(body))
                await upstream.close()
            return
        names = wire.texts(body)
        parameters = dict(zip(names[::2], names[1::2], strict=False))
        async with asyncio.timeout(_LOGIN_SECONDS):
            await client.send(wire.ASK_PASSWORD)
            answer = await client.read()
        try:
            try:
                upstream, greeting = await self._log_in(parameters, answer)
            except _NO_POSTGRES:
                await self._start_again()
                upstream, greeting = await self._log_in(parameters, answer)
            try:
                await self._run_session(client, upstream, greeting, parameters)
            finally:
                await upstream.close()
        except SqlError as problem:
            _log.info("login refused: %s", problem.message)
            await client.send(wire.error(problem, "FATAL"))

    async def _log_in(self, parameters: dict[str, str], answer: Message) -> tuple[Connection, list[Message]]:
        """
        Return a new connection to PostgreSQL for a user who may log in, and what PostgreSQL first says.

        :raises SqlError: if that user may not
        """
        upstream = await self._open_upstream()
        try:
            user = await self._authenticate(parameters, answer)
            kept = {name: value for name, value in parameters.items() if name.lower() in _STARTUP_SETTINGS}
            upstream.writer.write(wire.startup({"user": user, "database": REDSHIFT_DATABASE, **kept}))
            greeting = [await upstream.read()]
            while greeting[-1].kind not in (b"E", wire.READY):
                greeting.append(await upstream.read())
        except BaseException:
            await upstream.close()
            raise
        return upstream, greeting

    async def _authenticate(self, parameters: dict[str, str], answer: Message) -> str:
        """
        Check who wants to log in, and return the user's name.

        :raises SqlError: 28P01 or 3D000, worded as PostgreSQL and Redshift do
        """
        login = parameters.get("user", "")
        password = wire.decoded(wire.split(answer.body, 1)[0]) if answer.kind == b"p" else ""
        user = await self.journal.user(login)
        if not user or not _knows(password, login, user[1]):
            raise SqlError(f'password authentication failed for user "{login}"', "28P01")
        database = parameters.get("database") or login
        if database != REDSHIFT_DATABASE:
            raise SqlError(f'database "{database}" does not exist', "3D000")
        return user[0]

    async def _run_session(
        self, client: Connection, upstream: Connection, greeting: list[Message], parameters: dict[str, str]
    ) -> None:
        for message in greeting:
            match wire.texts(message.body) if message.kind == b"S" else []:
                case ["server_version", *_]:
                    await client.hold(Message(b"S", wire.text("server_version", SERVER_VERSION)))
                case ["standard_conforming_strings", *_]:
                    pass  # clients then escape backslashes, which Redshift's strings need
                case _:
                    await client.hold(message)
        await client.send()
        if greeting[-1].kind == b"E":
            return
        name = parameters.get("application_name", "")
        self.journal.connected(name)
        session = Session(
            *(client, upstream, self.journal, self.isolation, name, self.settings.s3_url, self._faults)
        )
        await session.run()


def _tls(settings: Settings) -> ssl.SSLContext:
    """Return a certificate for this start, and store that of its CA for clients that check it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(settings.redshift_ca))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def _knows(password: str, login: str, digest: str | None) -> bool:
    """Return whether a password is that of a login, or a temporary one where the name asks for that."""
    if login.startswith(("IAM:", "IAMR:")):
        return temporary_password.is_valid(login, password)
    return digest is not None and passwords.fits(password, digest, login)
