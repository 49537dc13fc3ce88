"""What the local Redshift remembers: statements, clients, loads and the rows that loads rejected."""

import re
from datetime import datetime

import msgspec
import psycopg

from local.redshift.clock import now
from local.redshift.copy import CopyStatement, Load

_BATCH = 1000
# The quotes need not end: a statement that cannot be read is logged, too.
_SECRETS = re.compile(
    r"(?is)\b(CREDENTIALS|ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|PASSWORD)"
    r"((?:\s|/\*.*?\*/|--[^\n]*\n|\bAS\b)*+)"
    r"(?:[a-z]?&?'(?:[^'\\]|''|\\.)*+(?:'|$)|\$(\w*)\$.*?(?:\$\3\$|$))"
)


def without_secrets(statement: str) -> str:
    """
    Return a statement as it may be stored or logged: without access keys and passwords.

    :param statement: as the client sent it
    """
    return _SECRETS.sub(r"\1\2'***'", statement)


class Journal:
    """
    What the server keeps about statements and loads, on a connection of its own.

    Statements wait in memory until somebody reads them, or until there are many.

    :param dsn: how PostgreSQL's superuser connects
    """

    _connection: psycopg.AsyncConnection

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._statements: list[tuple[object, ...]] = []
        self._connections: list[tuple[datetime, str]] = []

    async def connect(self) -> None:
        """Connect to PostgreSQL, once more after it was started again."""
        self._connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, application_name="local redshift"
        )

    async def isolation_level(self) -> str:
        """Return the level that the database had when this connected."""
        cursor = await self._connection.execute("SHOW redshift.isolation_level")
        ((level,),) = await cursor.fetchall()
        return str(level)

    def connected(self, client: str) -> None:
        """
        Note a client that has logged in.

        :param client: its application_name
        """
        self._connections.append((now(), client))

    async def ran(
        self, client: str, statement: str, started: datetime, seconds: float, rows: int | None
    ) -> None:
        """
        Note a statement.

        :param client: the application_name of who sent it
        :param statement: its text, as sent
        :param started: when it began, UTC
        :param seconds: how long it took
        :param rows: how many rows it returned or changed, if it says so
        """
        self._statements.append((started, client, without_secrets(statement), seconds * 1000, rows))
        if len(self._statements) >= _BATCH:
            await self.flush()

    async def user(self, login: str) -> tuple[str, str | None] | None:
        """
        Return the user that a name logs in, and the digest of the password if it has one that is still valid.

        :param login: the user's name, before which there may be ``IAM:``
        :return: None if there is no such user
        """
        query = (
            "SELECT rolname, digest FROM rs_catalog.users AS u LEFT JOIN rs_catalog.passwords AS p"
            " ON p.user_id = u.oid AND COALESCE(u.rolvaliduntil > now(), true)"
            " WHERE rolname IN (%s, %s) ORDER BY rolname = %s DESC"
        )
        names = [login, login.removeprefix("IAM:"), login]
        try:
            cursor = await self._connection.execute(query, names)
        except psycopg.OperationalError:  # PostgreSQL has ended it, as after one of its processes died
            await self.connect()
            cursor = await self._connection.execute(query, names)
        return await cursor.fetchone()

    async def flush(self) -> None:
        """Write what waits, so that a query sees it."""
        statements, self._statements = self._statements, []
        connections, self._connections = self._connections, []
        async with self._connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO rs_catalog.statements VALUES (%s, %s, %s, %s, %s)", statements
            )
            await cursor.executemany("INSERT INTO rs_catalog.connections VALUES (%s, %s)", connections)

    async def loaded(
        self,
        statement: CopyStatement,
        load: Load,
        *,
        table_id: int,
        session_id: int,
        user: str,
        started: datetime,
        failure: str,
    ) -> int:
        """
        Store a load, its files and the rows that it rejected, and return its id.

        :param statement: the COPY
        :param load: what it did, ended
        :param table_id: PostgreSQL's number of the table
        :param session_id: the process id of the client's session
        :param user: who ran it
        :param started: when it began, UTC
        :param failure: why it failed; empty if it did not
        """
        # As one JSON text, which for thousands of files is faster than a parameter for each value.
        files = [
            {
                **{"file_name": file.url, "bytes_scanned": file.bytes, "lines_scanned": load.lines[file.url]},
                **{"start_time": file.started, "end_time": file.ended or now()},
                **{"etag": file.etag, "last_modified": file.last_modified},
            }
            for file in load.files
        ]
        cursor = await self._connection.execute(
            "WITH load AS (INSERT INTO rs_catalog.loads (user_id, session_id, table_id, table_name,"
            " data_source, status, start_time, end_time, loaded_rows, source_file_count, source_file_bytes,"
            " error_count, error_message)"
            " VALUES ((SELECT oid FROM pg_roles WHERE rolname = %s),"
            " %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING query_id),"
            " files AS (INSERT INTO rs_catalog.load_files SELECT load.query_id, f.file_name, f.bytes_scanned,"
            " f.lines_scanned, f.start_time, f.end_time, f.etag, f.last_modified"
            " FROM load CROSS JOIN json_populate_recordset(NULL::rs_catalog.load_files, %s) AS f)"
            " SELECT query_id FROM load",
            (
                *(user, session_id, table_id, statement.table, statement.source),
                *("aborted" if failure else "completed", started, now(), 0 if failure else load.loaded),
                *(len(files), sum(file.bytes for file in load.files), len(load.rejected), failure or None),
                msgspec.json.encode(files).decode(),
            ),
        )
        ((query_id,),) = await cursor.fetchall()
        async with self._connection.cursor() as rejected:
            await rejected.executemany(
                "INSERT INTO rs_catalog.load_errors VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (
                        *(query_id, row.file_name, row.line_number, row.column_name, row.column_type),
                        *(row.column_length, row.position, row.raw_line, row.raw_field_value),
                        *(row.error_code, row.error_message),
                    )
                    for row in load.rejected
                ],
            )
        return int(query_id)

    async def close(self) -> None:
        """Write what waits and disconnect."""
        await self.flush()
        await self._connection.close()
