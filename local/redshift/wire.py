"""
PostgreSQL's wire protocol 3.0: reading and building messages.

https://www.postgresql.org/docs/18/protocol-message-formats.html
"""

import asyncio
import struct
from collections.abc import Iterable
from typing import NamedTuple

from local.redshift.errors import SqlError

PROTOCOL_3 = 196608
SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102

_CHUNK = 1 << 16
_LONGEST_STARTUP = 10_000  # PostgreSQL's limit
_CLOSING_SECONDS = 2
# Has room for a statement of Redshift's 16 MB, and for its values:
# https://docs.aws.amazon.com/redshift/latest/dg/c_redshift-sql.html
_LONGEST = 1 << 26
_HEADER = struct.Struct("!cI")
# The fields of an error that make sense to a client that did not see PostgreSQL's version of its statement
_CLIENT_FIELDS = frozenset("SVCMDHstcdn")


class Message(NamedTuple):
    """
    One message of either side.

    :param kind: its type, one byte
    :param body: what follows the length
    """

    kind: bytes
    body: bytes

    def encode(self) -> bytes:
        """Return the message as it is sent."""
        return _HEADER.pack(self.kind, len(self.body) + 4) + self.body


class Connection:
    """
    One side's stream of messages.

    :param reader: what it sends
    :param writer: what it is sent
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._held = bytearray()
        self._buffer = bytearray()
        self._position = 0

    async def read_startup(self) -> tuple[int, bytes]:
        """
        Return the code and the rest of a connection's first message, which has no type.

        :raises asyncio.IncompleteReadError: when the other side is gone
        :raises ConnectionResetError: when it does not speak the protocol
        """
        length, code = struct.unpack("!II", await self._reader.readexactly(8))
        if not 8 <= length <= _LONGEST_STARTUP:
            raise ConnectionResetError(f"a startup message of {length} bytes")
        return code, await self._reader.readexactly(length - 8)

    async def read(self) -> Message:
        """
        Return the next message.

        :raises ConnectionResetError: when the other side is gone, or does not speak the protocol
        """
        while True:
            available = len(self._buffer) - self._position
            if available >= 5:
                kind, length = _HEADER.unpack_from(self._buffer, self._position)
                if not 4 <= length <= _LONGEST:
                    raise ConnectionResetError(f"a message of {length} bytes")
                if available > length:
                    start, self._position = self._position + 5, self._position + 1 + length
                    return Message(kind, bytes(self._buffer[start : self._position]))
            del self._buffer[: self._position]
            self._position = 0
            chunk = await self._reader.read(_CHUNK)
            if not chunk:
                raise ConnectionResetError("the connection was closed")
            self._buffer += chunk

    async def hold(self, message: Message) -> None:
        """
        Send a message with those that come after it, so that many small ones become few packets.

        :param message: what to send
        """
        self._held += message.encode()
        if len(self._held) > _CHUNK:
            await self.send()

    async def send(self, *messages: Message) -> None:
        """
        Send what was held back and some messages, waiting while the other side does not read.

        :param messages: what to send
        """
        self.writer.write(bytes(self._held) + b"".join(message.encode() for message in messages))
        self._held.clear()
        await self.writer.drain()

    async def close(self) -> None:
        """Close the connection, whatever state it is in."""
        self.writer.close()
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                await self.writer.wait_closed()
        except TimeoutError:  # the other side does not end TLS, or does not read
            self.writer.transport.abort()
        except OSError:
            pass  # the other side closed it first


def text(*values: str) -> bytes:
    """
    Return strings as the protocol writes them, each ended by a zero byte.

    :param values: the strings
    """
    return b"".join(value.encode() + b"\0" for value in values)


def split(body: bytes, count: int) -> list[bytes]:
    """
    Return the strings that a message's body begins with, undecoded, and the rest.

    :param body: the message's body
    :param count: how many strings there have to be
    :raises SqlError: 08P01 when there are fewer
    """
    parts = body.split(b"\0", count)
    if len(parts) <= count:
        raise SqlError("invalid message format", "08P01")
    return parts


def type_numbers(body: bytes) -> tuple[int, ...]:
    """
    Return the oids at the end of a Parse message.

    :param body: what follows the statement
    :raises SqlError: 08P01 when there are fewer than it says
    """
    count = int.from_bytes(body[:2])
    if len(body) != 2 + 4 * count:
        raise SqlError("invalid message format", "08P01")
    return struct.unpack(f"!{count}I", body[2:])


def decoded(text: bytes) -> str:
    """
    Return a statement's text.

    :param text: as the client sent it
    :raises SqlError: 22021 when it is not UTF-8
    """
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise SqlError('invalid byte sequence for encoding "UTF8"', "22021") from error


def texts(body: bytes) -> list[str]:
    """
    Return the strings that a message's body consists of or begins with.

    :param body: strings, each ended by a zero byte
    """
    return [value.decode(errors="replace") for value in body.split(b"\0")]


def startup(parameters: dict[str, str]) -> bytes:
    """
    Return a startup message.

    :param parameters: names and values: user, database, settings
    """
    body = (
        struct.pack("!I", PROTOCOL_3) + text(*(word for item in parameters.items() for word in item)) + b"\0"
    )
    return struct.pack("!I", len(body) + 4) + body


def parse(statement: str, sql: str) -> Message:
    """
    Return the message that prepares a statement whose parameters' types the server infers.

    :param statement: the name to give it
    :param sql: the statement
    """
    return Message(b"P", text(statement, sql) + b"\0\0")


def bind(portal: str, statement: str) -> Message:
    """
    Return the message that makes a statement without parameters ready to run, its result as text.

    :param portal: the name to give it
    :param statement: the prepared statement
    """
    return Message(b"B", text(portal, statement) + struct.pack("!HHH", 0, 0, 0))


def execute(portal: str) -> Message:
    """
    Return the message that runs a statement to its end.

    :param portal: what to run
    """
    return Message(b"E", text(portal) + struct.pack("!I", 0))


def cancel(key: bytes) -> bytes:
    """
    Return a request to cancel what a session runs.

    :param key: the session's process id and secret, as it was given them
    """
    return struct.pack("!II", len(key) + 8, CANCEL_REQUEST) + key


ASK_PASSWORD = Message(b"R", struct.pack("!I", 3))  # in clear text
FLUSH = Message(b"H", b"")
SYNC = Message(b"S", b"")
COPY_DONE = Message(b"c", b"")
COPY_FAIL = Message(b"f", text("the load failed"))
EMPTY_QUERY = Message(b"I", b"")
READY = b"Z"


def error(problem: SqlError, severity: str = "ERROR") -> Message:
    """
    Return an ErrorResponse.

    :param problem: what to report
    :param severity: ERROR, or FATAL if the connection ends with it
    """
    fields = {"S": severity, "V": severity, "C": problem.sqlstate}
    fields |= {"M": problem.message, "D": problem.detail, "H": problem.hint}
    return Message(b"E", _fields(fields.items()))


def info(message: str) -> Message:
    """
    Return a NoticeResponse of the level INFO.

    :param message: what to tell
    """
    return Message(b"N", _fields({"S": "INFO", "V": "INFO", "C": "00000", "M": message}.items()))


def fields(body: bytes) -> dict[str, str]:
    """
    Return the fields of an ErrorResponse or NoticeResponse that are for the client.

    :param body: the message's body
    """
    return {field[0]: field[1:] for field in texts(body) if field and field[0] in _CLIENT_FIELDS}


def with_fields(kind: bytes, values: dict[str, str]) -> Message:
    """
    Return an ErrorResponse or NoticeResponse.

    :param kind: ``b"E"`` or ``b"N"``
    :param values: fields by their one-letter names
    """
    return Message(kind, _fields(values.items()))


def _fields(items: Iterable[tuple[str, str]]) -> bytes:
    return text(*(code + value for code, value in items if value)) + b"\0"


def row(body: bytes) -> list[str | None]:
    """
    Return the values of a DataRow in text format.

    :param body: the message's body
    """
    values: list[str | None] = []
    (count,) = struct.unpack_from("!H", body)
    position = 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, position)
        position += 4
        values.append(None if length < 0 else body[position : position + length].decode())
        position += max(length, 0)
    return values
