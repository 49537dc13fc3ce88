"""
JSON objects to rows in PostgreSQL's COPY text format, many at a time.

What can be done in few steps for a whole column is done here. Whatever asks for more care (a malformed or
rejected object, a number whose digits must be kept) is left to :mod:`local.redshift.json_rows`, which has the
last word.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache
from itertools import repeat
from multiprocessing.connection import Connection
from typing import Annotated, Any

import msgspec

from local.redshift.json_values import (
    DEFAULT,
    INTEGER_RANGES,
    NULL,
    BadValue,
    Column,
    Conversion,
    Converter,
    converter_for,
)

#: Gives a number of rows and their text: None if any of them needs more care.
Converted = Callable[[], tuple[int, bytes] | None]
#: A JSONPath, compiled: member names and array indexes from the root down.
Path = tuple[str | int, ...]

_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
#: With more members than these, a block is left to the careful way: a struct looks each up among all.
_MAX_MEMBERS = 500
#: Processes that convert blocks of large files.
WORKERS = min(os.cpu_count() or 1, 4)


def follow(document: Any, path: Path) -> Any:
    """
    Return what a path leads to: None if a member is missing.

    :param document: a parsed JSON value
    :param path: the path
    :raises BadValue: for a step into another kind of value, and for a missing index, a documented error
    """
    for step in path:
        if document is None:
            return None
        if isinstance(step, int):
            if not isinstance(document, list) or step >= len(document):
                raise BadValue(1216, "Invalid JSONPath format: Not an array or index out of range.")
            document = document[step]
        else:
            if not isinstance(document, dict):
                raise BadValue(1216, "Invalid JSONPath format: Member is not an object.")
            document = document.get(step)
    return document


def without_null(field: str, column: Column) -> str:
    """
    Return a field of a NOT NULL column, with the default in place of NULL.

    https://docs.aws.amazon.com/redshift/latest/dg/r_ALTER_TABLE.html#alter-table-default

    :param field: the field
    :param column: its column
    :raises BadValue: if the column has no default
    """
    if field != NULL:
        return field
    if column.has_default:
        return DEFAULT
    raise BadValue(1213, "Missing data for not-null field")


def joined(columns: Sequence[Sequence[str]]) -> bytes:
    """
    Return rows in the text format of PostgreSQL's COPY.

    https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.55.9.2

    :param columns: for each column its fields; at least one of each
    """
    text, rows = _lines(columns), len(columns[0])
    # One search in all of them together, since hardly any field needs an escape.
    plain = text.count("\n") == rows and text.count("\t") == rows * (len(columns) - 1)
    if not plain or "\\" in text or "\r" in text:
        text = _lines([[field.translate(_ESCAPES) for field in column] for column in columns])
    return text.replace(DEFAULT, r"\D").replace(NULL, r"\N").encode()


def _lines(columns: Sequence[Sequence[str]]) -> str:
    return "\n".join(map("\t".join, zip(*columns, strict=True))) + "\n"


def plan(columns: tuple[Column, ...], conversion: Conversion, paths: tuple[Path, ...] | None) -> bytes:
    """
    Return how to convert a load's objects, as :func:`convert_lines` takes it.

    :param columns: the columns to load, in order
    :param conversion: how values are converted
    :param paths: a JSONPath for each column; None matches member names with column names
    """
    return pickle.dumps((columns, conversion, paths))


@lru_cache(maxsize=8)
def _converter(plan: bytes) -> "_Converter":
    return _Converter(*pickle.loads(plan))


def convert_lines(block: bytes, plan: bytes) -> tuple[int, bytes] | None:
    """
    Convert a block of whole objects.

    :param block: their text
    :param plan: from :func:`plan`, which a process reads once, and not with each block
    :return: the number of rows and their text; None if any of them needs more care
    """
    # U+0000 would pass for NULL.
    if b"\\u0000" in block:
        return None
    try:
        fields = _converter(plan).convert(block)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return (len(fields[0]), joined(fields)) if fields else (0, b"")


# A process for each thread, and not a ProcessPoolExecutor: up to Python 3.11 that may lose a task which is
# handed in while a worker process is killed, and its result never comes.
_thread = threading.local()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WORKERS)


def convert_later(block: bytes, plan: bytes) -> Converted:
    """
    Let a worker process convert a block.

    :param block: the objects' text
    :param plan: from :func:`plan`
    :return: a function that waits for the result of :func:`convert_lines`, and returns it
    """
    return _threads().submit(_convert, block, plan).result


def _convert(block: bytes, plan: bytes) -> tuple[int, bytes] | None:
    """Have the thread's worker process convert a block; do it here if that process is killed."""
    if not hasattr(_thread, "worker"):
        _thread.worker = _start_worker()
    try:
        _thread.worker.send((block, plan))
        converted: tuple[int, bytes] | None = _thread.worker.recv()
        return converted
    except (EOFError, OSError):
        del _thread.worker
        return convert_lines(block, plan)


def _start_worker() -> Connection:
    # A process forked from one with threads could inherit a lock that nobody opens.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_work, args=(theirs,), daemon=True).start()
    theirs.close()  # so that the pipe ends with the process
    return ours


def _work(tasks: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's
    with suppress(EOFError, OSError):  # the server has ended
        while True:
            tasks.send(convert_lines(*tasks.recv()))


class _Converter:
    """
    Converts blocks of objects into rows of one table; the parameters are those of :func:`plan`.

    With 'auto ignorecase' it reads every member that was met, and a new one is an error, so that it can be
    seen whether it is a column's in other letters.
    """

    def __init__(
        self, columns: tuple[Column, ...], conversion: Conversion, paths: tuple[Path, ...] | None
    ) -> None:
        self._conversion = conversion
        self._ignorecase = conversion.ignorecase and paths is None
        self._sources = list(zip(columns, paths or [(column.name,) for column in columns], strict=True))
        # These change together, for other threads too.
        self._met_and_readers = self._readers_of(set())

    def convert(self, block: bytes) -> list[Sequence[str]]:
        """
        Return the fields of each column; nothing for no object.

        :param block: the objects' text
        :raises msgspec.MsgspecError: for anything but objects
        :raises ValueError: for a value that does not fit, or needs more care
        """
        met, exact, other = self._met_and_readers
        with suppress(msgspec.ValidationError):
            return exact.convert(block)
        if self._ignorecase:
            new = {name for each in _MEMBERS.decode_lines(block) for name in each} - met
            if new:
                _, exact, other = self._met_and_readers = self._readers_of(met | new)
                with suppress(msgspec.ValidationError):
                    return exact.convert(block)
        return other.convert(block)

    def _readers_of(self, met: set[str]) -> tuple[set[str], "_Reader", "_Reader"]:
        """
        Return members, what reads objects with values of the columns' own types, and what reads any others.

        :raises ValueError: for names that no struct can have, or one column's written in two ways
        """
        roots = [path[0] for _, path in self._sources]
        if self._ignorecase:
            wanted = {str(name).lower() for name in roots}
            written = [str(name) for name in met if str(name).lower() in wanted]
            by_column = {name.lower(): name for name in written}
            if len(by_column) < len(written):
                raise ValueError
            roots = [by_column.get(str(name).lower(), name) for name in roots]
        names = [name for name in {*met, *roots} if isinstance(name, str)]
        if len(names) < len({*met, *roots}) or len(names) > _MAX_MEMBERS:
            raise ValueError
        sources = [
            (root, path[1:], column) for root, (column, path) in zip(roots, self._sources, strict=True)
        ]
        exact, other = (
            _Reader(names, sources, self._conversion, self._ignorecase, exact) for exact in (True, False)
        )
        return met, exact, other


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Reader:
    """
    Reads objects into structs, which is faster than into dicts, and converts those column by column.

    :param names: the root members to read
    :param sources: for each column its root member, the path from there, and the column
    :param conversion: how values are converted
    :param closed: whether any other member is an error
    :param exact: whether only values of the columns' own types are read, which need the least work
    """

    def __init__(
        self,
        names: list[str],
        sources: list[tuple[Any, Path, Column]],
        conversion: Conversion,
        closed: bool,
        exact: bool,
    ) -> None:
        types: dict[Any, Any] = dict.fromkeys(names, msgspec.Raw)
        columns_of = Counter(name for name, _, _ in sources)
        self._columns = []
        for name, path, column in sources:
            own = _own_type(column, conversion) if exact and not path and columns_of[name] == 1 else None
            types[name], convert = own or (Any, converter_for(column, conversion))
            self._columns.append((names.index(name), path, convert, column))
        struct = msgspec.defstruct(
            "Object",
            [
                (f"m{i}", types[name] | None if types[name] is not Any else Any, None)
                for i, name in enumerate(names)
            ],
            rename={f"m{i}": name for i, name in enumerate(names)},
            forbid_unknown_fields=closed,
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(struct)

    def convert(self, block: bytes) -> list[Sequence[str]]:
        """
        Return the fields of each column; nothing for no object.

        :param block: the objects' text
        :raises msgspec.MsgspecError: for anything but objects, or values of other types
        :raises ValueError: for a value that does not fit, or needs more care
        """
        objects = self._decoder.decode_lines(block)
        if not objects:
            return []
        members = list(zip(*map(msgspec.structs.astuple, objects), strict=True))
        fields: list[Sequence[str]] = []
        for member, path, convert, column in self._columns:
            values = members[member]
            if path:
                values = tuple(map(follow, values, repeat(path)))
            texts = values if convert is None else [NULL if v is None else convert(v) for v in values]
            if convert is None and None in values:
                texts = [NULL if v is None else v for v in values]
            if not column.nullable and NULL in texts:
                texts = [without_null(text, column) for text in texts]
            fields.append(texts)
        return fields


def _own_type(column: Column, conversion: Conversion) -> tuple[Any, Converter | None] | None:
    """
    Return the JSON type whose values all fit into a column, and what makes them text, if anything has to.

    :return: None for a column that has no such type
    """
    keeps_texts = not (conversion.emptyasnull or conversion.blanksasnull) and conversion.null_as is None
    if column.type == "varchar" and keeps_texts:
        # The length is in bytes, of which UTF-8 has at most four a character.
        return Annotated[str, msgspec.Meta(max_length=(column.length or 65535) // 4)], None
    if column.type in INTEGER_RANGES:
        low, high = INTEGER_RANGES[column.type]
        return Annotated[int, msgspec.Meta(ge=low, le=high)], str
    if column.type == "double precision":
        return float, repr
    if column.type == "timestamp" and conversion.timeformat in ("epochsecs", "epochmillisecs"):
        return int, converter_for(column, conversion)
    return None
