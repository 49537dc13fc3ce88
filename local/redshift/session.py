"""
One client's session: what it sends goes to PostgreSQL, translated; what PostgreSQL answers goes back.

Towards PostgreSQL everything uses the extended protocol, a client's Query messages too. The statements of one
Query then share a transaction, as they must, and refusing, adding and copying take one form each.
"""

import asyncio
import logging
import re
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from local.redshift import copy, dialect, wire
from local.redshift.clock import now
from local.redshift.errors import SqlError, service_error, unsupported
from local.redshift.faults import Faults, Moment
from local.redshift.isolation import NOTHING, Footprint, Isolation, Transaction
from local.redshift.journal import Journal, without_secrets
from local.redshift.wire import Connection, Message
from local.settings import ACCOUNT, REDSHIFT_CLUSTER, REGION

_log = logging.getLogger(__name__)

_OWN = "local redshift"  # the session's own statements and portals: no client would choose this name
_READ_AHEAD = 100

# What ends PostgreSQL's answer to each message: https://www.postgresql.org/docs/18/protocol-flow.html
_ENDS = {b"P": b"1", b"B": b"2", b"D": b"Tn", b"E": b"CsI", b"C": b"3", b"S": b"Z"}
_SHOW_ALL = b"12t3TnDCsINZ"
_SHOW_RESULT = b"TDCINZ"  # what answers a Query message
_SHOW_NOTHING = b""

_NOT_ALLOWED = "42501"
_BYTE_LIMIT = re.compile(r"(character(?: varying)?\(\d+\)) [0-9a-f]{8}")

_TABLE_COLUMNS = """
SELECT
    a.attname,
    CASE t.typname
        WHEN 'int2' THEN 'smallint' WHEN 'int4' THEN 'integer' WHEN 'int8' THEN 'bigint'
        WHEN 'float4' THEN 'real' WHEN 'float8' THEN 'double precision' WHEN 'bool' THEN 'boolean'
        WHEN 'bpchar' THEN 'char' ELSE t.typname
    END,
    CASE
        WHEN t.typname IN ('varchar', 'bpchar') THEN a.atttypmod - 4
        WHEN t.typname = 'numeric' AND a.atttypmod > 0 THEN (a.atttypmod - 4) >> 16
    END,
    CASE WHEN t.typname = 'numeric' AND a.atttypmod > 0 THEN (a.atttypmod - 4) & 65535 END,
    NOT a.attnotnull,
    a.atthasdef OR a.attidentity <> '',
    a.attrelid::oid,
    pg_catalog.pg_backend_pid(),
    current_user
FROM pg_catalog.pg_attribute AS a
INNER JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE a.attrelid = pg_catalog.to_regclass('{table}') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""


_COLUMNS = """
SELECT t.name, a.attname, y.typname, a.atttypmod
FROM pg_catalog.unnest(ARRAY['{tables}']) AS t (name)
INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = pg_catalog.to_regclass(t.name)
INNER JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid
WHERE a.attnum > 0 AND NOT a.attisdropped
ORDER BY t.name, a.attnum
"""


class _Failed(Exception):
    """PostgreSQL reported an error and the client knows; both now skip what comes before Sync."""


@dataclass(frozen=True, eq=False)
class _Statement:
    """A statement as the client wrote it, and what it is: a COPY or something for PostgreSQL."""

    text: str
    translation: dialect.Translation
    footprint: Footprint = NOTHING
    load: copy.CopyStatement | None = None


_NO_STATEMENT = _Statement("", dialect.Translation(""))  # PostgreSQL will say that there is none by that name


class Session:
    """
    One client's session.

    :param client: the client, logged in
    :param upstream: its own connection to PostgreSQL, ready
    :param journal: where statements and loads are noted
    :param isolation: what keeps its transactions apart from those of others
    :param name: the client's application_name
    :param s3_url: where COPY reads from
    :param faults: where clients are cut off, None outside of tests
    """

    def __init__(
        self,
        client: Connection,
        upstream: Connection,
        journal: Journal,
        isolation: Isolation,
        name: str,
        s3_url: str,
        faults: Faults | None = None,
    ) -> None:
        self._client, self._upstream = client, upstream
        self._journal, self._isolation, self._name, self._s3_url = journal, isolation, name, s3_url
        self._faults = faults
        self._transaction: Transaction | None = None
        # What the transaction has locked the tables of, and what it has bound
        self._locked: set[_Statement] = set()
        self._entered: set[_Statement] = set()
        self._statements: dict[bytes, _Statement] = {}
        self._portals: dict[bytes, _Statement] = {}
        self._skips = False
        self._in_block = False
        self._running = ""

    async def run(self) -> None:
        """Serve the client until it leaves, or PostgreSQL does."""
        self._isolation.sessions += 1
        messages: asyncio.Queue[Message] = asyncio.Queue(_READ_AHEAD)
        try:
            # Reading ahead shows at once that a client has gone, which ends the statement that it waited for
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(messages))
                tasks.create_task(self._answer(messages))
        except* ConnectionError:
            pass
        finally:
            self._end(committed=False)
            self._isolation.sessions -= 1

    async def _read(self, messages: asyncio.Queue[Message]) -> None:
        kind = b""
        while kind != b"X":
            message = await self._client.read()
            kind = message.kind
            await messages.put(message)

    async def _answer(self, messages: asyncio.Queue[Message]) -> None:
        while (message := await messages.get()).kind != b"X":
            if message.kind == b"S":
                await self._sync()
            elif self._skips:
                continue
            elif message.kind == b"Q":
                await self._reporting(self._query(message.body))
                await self._sync()
            else:
                await self._reporting(self._extended(message))
            if messages.empty():
                await self._client.send()

    async def _reporting(self, work: Coroutine[None, None, None]) -> None:
        """Do what a message asks for; if that fails, tell the client why, and skip what follows."""
        try:
            await work
        except SqlError as problem:
            # Whatever PostgreSQL cannot read makes it abort the transaction and skip up to Sync
            await self._upstream.send(wire.parse(_OWN, "refused"), wire.FLUSH)
            while (await self._upstream.read()).kind != b"E":
                pass
            await self._report(problem)
            self._skip()
        except _Failed:
            self._skip()

    def _skip(self) -> None:
        self._skips = True
        self._end(committed=False)

    async def _report(self, problem: SqlError) -> None:
        self._log_failure(problem.sqlstate, problem.message)
        await self._client.send(wire.error(problem))

    def _log_failure(self, sqlstate: str, why: str) -> None:
        _log.info(
            "%s: %s %s: %.200s", self._name, sqlstate, why, " ".join(without_secrets(self._running).split())
        )

    async def _sync(self, show: bytes = _SHOW_ALL) -> None:
        self._skips = False
        ready = await self._ask(wire.SYNC, show)
        self._in_block = ready.body != b"I"
        if not self._in_block:
            self._end(committed=True)

    def _end(self, *, committed: bool) -> None:
        """Note that a transaction is over, if there is one."""
        if self._transaction:
            self._isolation.end(self._transaction, committed=committed)
        self._transaction = None
        self._locked.clear()
        self._entered.clear()

    async def _lock(self, footprint: Footprint) -> None:
        """Wait for a statement's tables, before PostgreSQL takes the transaction's snapshot."""
        if not self._transaction:
            self._transaction = self._isolation.begin()
        await self._run_hidden(*footprint.locks(self._isolation.level))

    async def _enter(self, statement: _Statement) -> None:
        """Check that a statement that is about to run keeps its transaction serializable."""
        if statement not in self._locked:
            self._running = statement.text
            await self._lock(statement.footprint)
            self._locked.add(statement)
        if self._transaction and statement.footprint != NOTHING and statement not in self._entered:
            tables = await self._run_hidden(statement.footprint.tables())
            self._isolation.enter(self._transaction, tables)
            self._entered.add(statement)

    async def _query(self, body: bytes) -> None:
        self._running = wire.decoded(wire.split(body, 1)[0])
        statements = dialect.split(self._running)
        if not statements:
            await self._client.hold(wire.EMPTY_QUERY)
        self._in_block = self._in_block or len(statements) > 1
        for text in statements:
            self._running = text
            statement = await self._read_statement(text)
            await self._ask(wire.parse("", statement.translation.sql), _SHOW_NOTHING)
            await self._bind(statement, wire.bind("", ""), _SHOW_NOTHING)
            if not statement.load:
                await self._ask(Message(b"D", b"P\0"), _SHOW_RESULT)
            await self._execute(statement, wire.execute(""), _SHOW_RESULT)

    async def _extended(self, message: Message) -> None:
        match message.kind:
            case b"P":
                name, text, types = wire.split(message.body, 2)
                self._running = wire.decoded(text)
                texts = dialect.split(self._running)
                if len(texts) > 1:
                    raise SqlError("cannot insert multiple commands into a prepared statement", "42601")
                statement = await self._read_statement(texts[0] if texts else "", wire.type_numbers(types))
                message = Message(b"P", name + b"\0" + wire.text(statement.translation.sql) + types)
                await self._ask(message, _SHOW_ALL)
                self._statements[name] = statement
            case b"B":
                portal, name, _ = wire.split(message.body, 2)
                self._portals[portal] = self._statements.get(name, _NO_STATEMENT)
                await self._bind(self._portals[portal], message, _SHOW_ALL)
            case b"E":
                statement = self._portals.get(message.body.partition(b"\0")[0], _NO_STATEMENT)
                await self._execute(statement, message, _SHOW_ALL)
            case b"D":
                await self._ask(message, _SHOW_ALL)
            case b"C":
                named = self._statements if message.body[:1] == b"S" else self._portals
                named.pop(message.body[1:-1], None)
                await self._ask(message, _SHOW_ALL)
            case b"H":
                pass  # nothing is held back when no message waits
            case _:
                raise unsupported(f"protocol message {message.kind!r}")

    async def _read_statement(self, sql: str, parameters: tuple[int, ...] = ()) -> _Statement:
        load = copy.parse_copy(sql)
        if load:
            # PostgreSQL keeps an empty statement in place of a COPY, for the client to bind and describe
            footprint = Footprint(writes=(dialect.relation(load.table),), adds=True)
            statement = _Statement(sql, dialect.Translation(""), footprint, load)
            await self._lock(footprint)
        else:
            footprint = dialect.footprint(sql)
            await self._lock(footprint)
            catalog = await self._columns(footprint.reads)
            statement = _Statement(sql, dialect.translate(sql, catalog, parameters), footprint)
        self._locked.add(statement)
        return statement

    async def _columns(self, tables: Sequence[str]) -> tuple[dialect.CatalogColumn, ...]:
        """Return the columns of some tables."""
        rows: list[list[str | None]] = []
        if tables:
            names = "', '".join(table.replace("'", "''") for table in tables)
            rows = await self._run_hidden(_COLUMNS.format(tables=names))
        return tuple(
            dialect.CatalogColumn(table or "", name or "", kind or "", int(modifier or 0))
            for table, name, kind, modifier in rows
        )

    async def _bind(self, statement: _Statement, bind: Message, show: bytes) -> None:
        if statement.translation.reads_journal:
            await self._journal.flush()  # before Bind, which fixes what the statement will see
        await self._enter(statement)
        await self._ask(bind, show)

    async def _execute(self, statement: _Statement, execute: Message, show: bytes) -> None:
        """Run a statement that PostgreSQL has bound, and note it in the journal."""
        self._running = statement.text
        if statement.translation.alone and self._in_block:
            raise SqlError(f"{statement.translation.alone} cannot run inside a transaction block", "25001")
        fault = self._faults.next_statement() if self._faults and statement.text else None
        if fault == "before":
            self._cut_off(fault)
        started, clock = now(), time.perf_counter()
        rows: int | None = None
        try:
            if statement.translation.isolation_level:
                self._isolation.check_change()
            if statement.load:
                rows = await self._copy(statement.load)
                end = Message(b"C", wire.text("COPY"))
            else:
                end = await self._ask(execute, show, show_end=False)
                await self._run_hidden(*statement.translation.then)
                if statement.translation.tag:
                    end = Message(b"C", wire.text(statement.translation.tag))
                words = wire.texts(end.body)[0].split() if end.kind == b"C" else [""]
                rows = int(words[-1]) if words[-1].isdigit() else None
                self._follow(words[0], statement.translation)
            if fault == "after":
                await self._sync(_SHOW_NOTHING)  # commits a statement outside of a transaction
                self._cut_off(fault)
            await self._client.hold(end)
        finally:
            if statement.text:
                await self._journal.ran(
                    self._name, statement.text, started, time.perf_counter() - clock, rows
                )

    def _follow(self, tag: str, translation: dialect.Translation) -> None:
        """Note what a statement that has run makes of the transaction."""
        if tag in ("COMMIT", "ROLLBACK") or "COMMIT" in translation.then:
            self._end(committed=tag != "ROLLBACK")
        if translation.isolation_level:
            self._isolation.level = translation.isolation_level

    def _cut_off(self, moment: Moment) -> NoReturn:
        """Drop the client where it stands; PostgreSQL then rolls back what is not committed."""
        _log.info("%s: cut off %s: %.200s", self._name, moment, without_secrets(self._running))
        self._client.writer.transport.abort()
        raise ConnectionAbortedError

    async def _ask(self, message: Message, show: bytes, *, show_end: bool = True) -> Message:
        """
        Send a message to PostgreSQL, pass its answers on, and return the last.

        :param message: what to send
        :param show: the kinds of answers that the client is to see, apart from errors
        :param show_end: whether it is to see the last one
        :raises _Failed: when the answer is an error
        """
        await self._upstream.send(message, wire.FLUSH)
        ended = False
        while not ended:
            answer = await self._upstream.read()
            ended = answer.kind in _ENDS[message.kind] or answer.kind == b"E"
            if answer.kind == b"N":
                answer = wire.with_fields(b"N", wire.fields(answer.body))
            if answer.kind == b"S" or (answer.kind in show and (show_end or not ended)):
                await self._client.hold(answer)
        if answer.kind == b"E":
            await self._fail(answer)
        return answer

    async def _fail(self, answer: Message) -> NoReturn:
        """Tell the client of an error that PostgreSQL reported."""
        fields = wire.fields(answer.body)
        limit = _BYTE_LIMIT.fullmatch(fields.get("n", ""))
        if fields["C"] == "40001" and self._transaction:
            problem = self._isolation.update_conflict(self._transaction)
            await self._report(problem)
            raise _Failed(problem.message)
        if limit:
            fields = {"S": "ERROR", "V": "ERROR", "C": "22001", "M": f"value too long for type {limit[1]}"}
        if fields["C"] == _NOT_ALLOWED:  # in Redshift's words
            fields["M"] = re.sub("(for|of) (table|view) ", r"\1 relation ", fields["M"])
        if fields["C"] == "42P01" and (load := copy.parse_copy(self._running)):
            fields["M"] = f"Cannot COPY into nonexistent table {load.table}"
        # Not PostgreSQL's message, which may quote a value
        self._log_failure(fields["C"], "")
        await self._client.send(wire.with_fields(b"E", fields))
        raise _Failed(fields["M"])

    async def _run_hidden(self, *statements: str) -> list[list[str | None]]:
        """
        Run statements that the client does not see, in its transaction, and return the last one's rows.

        A ``COPY … FROM STDIN`` is started.
        """
        for sql in statements:
            for message in (
                *(Message(b"C", kind + wire.text(_OWN)) for kind in (b"P", b"S")),
                *(wire.parse(_OWN, sql), wire.bind(_OWN, _OWN), wire.execute(_OWN)),
            ):
                await self._upstream.hold(message)
        if statements:
            await self._upstream.send(wire.FLUSH)
        rows: list[list[str | None]] = []
        for _ in statements:
            rows = []
            while (answer := await self._upstream.read()).kind not in b"CIG":
                if answer.kind == b"E":
                    await self._fail(answer)
                if answer.kind == b"D":
                    rows.append(wire.row(answer.body))
        return rows

    async def _copy(self, statement: copy.CopyStatement) -> int:
        """Run a COPY from S3 as one from the client, and return how many rows it loaded."""
        started, table = now(), dialect.relation(statement.table)
        rows = await self._run_hidden(_TABLE_COLUMNS.format(table=table.replace("'", "''")))
        columns = [_column(*row[:6]) for row in rows]
        table_id, session_id = (int(value or 0) for value in rows[0][6:8])
        user = rows[0][8] or ""
        if statement.iam_role:
            await self._run_hidden(f"SELECT rs_catalog.require_assumerole('{statement.iam_role}')")
        _check_role(statement.iam_role, user)
        load = copy.start_load(statement, columns, self._s3_url)
        names = ", ".join(dialect.quoted(name) for name in load.target_columns)
        await self._run_hidden(f"COPY {table} ({names}) FROM STDIN (DEFAULT '\\D')")
        problem = await self._send_rows(load)
        failure = problem.message if problem else ""
        try:
            if problem:
                await self._upstream.send(wire.COPY_FAIL, wire.FLUSH)
            else:
                await self._upstream.send(wire.COPY_DONE, wire.FLUSH)
            while (answer := await self._upstream.read()).kind != b"C":
                if answer.kind == b"E":
                    if problem:
                        await self._report(problem)
                        raise _Failed(problem.message)
                    await self._fail(answer)
        except _Failed as failed:
            failure = str(failed)
            raise
        finally:
            load_id = await self._journal.loaded(
                statement,
                load,
                table_id=table_id,
                session_id=session_id,
                user=user,
                started=started,
                failure=failure,
            )
        await self._run_hidden(
            f"SELECT set_config('redshift.last_copy_count', '{load.loaded}', false),"
            f" set_config('redshift.last_copy_id', '{load_id}', false)"
        )
        name = statement.table.rpartition(".")[2].strip('"')
        done = f"Load into table '{name}' completed, {load.loaded} record(s) loaded successfully."
        await self._client.hold(wire.info(done))
        return load.loaded

    async def _send_rows(self, load: copy.Load) -> SqlError | None:
        """Send PostgreSQL the rows of a load; return why they ended early, if they did."""
        rows = load.rows()
        try:
            while (chunk := await asyncio.to_thread(next, rows, None)) is not None:
                await self._upstream.send(Message(b"d", chunk))
        except SqlError as problem:
            return problem
        finally:
            with suppress(ValueError):  # it still runs, in the thread of a session that is cancelled
                await asyncio.to_thread(rows.close)
        return None


def _check_role(roles: str | None, user: str) -> None:
    """
    Refuse a role that is not attached to the cluster, which those of its account are; of a chain, the first.

    https://docs.aws.amazon.com/redshift/latest/mgmt/authorizing-redshift-service.html

    :param roles: what COPY was given: ARNs, separated by commas, ``default``, or none
    :param user: who runs it
    """
    role = (roles or "default").partition(",")[0]
    if role == "default" or role.startswith(f"arn:aws:iam::{ACCOUNT}:role/"):
        return
    arn = f"arn:aws:redshift:{REGION}:{ACCOUNT}:dbuser:{REDSHIFT_CLUSTER}/{user}"
    raise service_error(
        f"User {arn} is not authorized to assume IAM Role {role}",
        f"IAM Role={role}",
        f"only roles of the account {ACCOUNT} are attached to the local Redshift",
    )


def _column(
    name: str | None,
    kind: str | None,
    length: str | None,
    scale: str | None,
    nullable: str | None,
    default: str | None,
) -> copy.Column:
    return copy.Column(
        name=name or "",
        type=kind or "",
        length=int(length) if length else None,
        scale=int(scale) if scale else None,
        nullable=nullable == "t",
        has_default=default == "t",
    )
