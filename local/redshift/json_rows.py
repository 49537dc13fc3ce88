"""
JSON text to rows in PostgreSQL's COPY text format, by the rules of Redshift's COPY.

The rules come from "Data format parameters"
(https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-format.html#copy-json-data-file).

Blocks are first tried by :mod:`local.redshift.json_lines`. What that cannot do exactly is done here, object
by object, with the standard library's decoder.
"""

import json
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from local.redshift.errors import SqlError
from local.redshift.json_lines import (
    WORKERS,
    Converted,
    Path,
    convert_later,
    convert_lines,
    follow,
    joined,
    plan,
    without_null,
)
from local.redshift.json_values import NULL, BadValue, Column, Conversion, Literal, as_text, converter_for

#: Largest object that COPY takes, braces included.
MAX_OBJECT = 4 * 1024 * 1024
#: How much text is converted at a time: its values should fit into a processor's cache.
BLOCK = 256 * 1024
#: Blocks that are read ahead: the worker processes' work, while the rows of another are sent.
_AHEAD = 8 * WORKERS

_CATALOG_NAMES = {
    "smallint": "int2",
    "integer": "int4",
    "bigint": "int8",
    "real": "float4",
    "double precision": "float8",
    "boolean": "bool",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_INVALID = re.compile("[\0\ud800-\udfff]")
_NOT_SPACE = re.compile(r"[^ \t\r\n]")


@dataclass(frozen=True)
class Rejected:
    """
    An object that could not be loaded, with the columns of STL_LOAD_ERRORS and SYS_LOAD_ERROR_DETAIL.

    https://docs.aws.amazon.com/redshift/latest/dg/r_STL_LOAD_ERRORS.html

    :param line_number: the last line of the object
    :param position: where in the field, or for malformed JSON where in the object, the fault is
    """

    file_name: str
    line_number: int
    column_name: str
    column_type: str
    column_length: str
    position: int
    raw_line: str
    raw_field_value: str
    error_code: int
    error_message: str


class _Malformed(BadValue):
    """Text that is not JSON; ``end`` is where reading goes on."""

    def __init__(self, message: str, position: int, end: int) -> None:
        super().__init__(1216, f"Invalid value. {message}", position)
        self.end = end


class _Incomplete(Exception):
    """An object that may go on behind the end of the text."""


_BRACKETS = re.compile(r"\['([^']+)'\]|\[(\d+)\]", re.ASCII)
_DOTS = re.compile(r"\.([^'.\[\]*]+)|\[(\d+)\]", re.ASCII)


def parse_paths(text: bytes, url: str, columns: int) -> tuple[Path, ...] | None:
    """
    Read a JSONPaths file.

    https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-format.html#copy-json-jsonpaths

    :param text: the file's content
    :param url: where it was read, for messages
    :param columns: how many columns the load has
    :return: a path for each column; None if the file's name is not "jsonpaths", and 'auto' is to be used
    :raises SqlError: for a malformed file, or another number of paths than of columns
    """
    try:
        content = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SqlError(f"The JSONPaths file {url} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise SqlError(
            f"The JSONPaths file {url} holds no JSON object", hint='it reads {"jsonpaths": ["$.a", …]}'
        )
    expressions = content.get("jsonpaths")
    if expressions is None:
        return None
    if not isinstance(expressions, list) or not all(isinstance(e, str) and e for e in expressions):
        raise SqlError(f"The JSONPaths file {url}: 'jsonpaths' must be an array of non-empty strings")
    if len(expressions) != columns:
        raise SqlError(
            "Number of jsonpaths and the number of columns should match. "
            f"JSONPath size: {len(expressions)}, Number of columns in table or column list: {columns}",
            hint=f"give {url} one expression for each column, in the order of the columns",
        )
    for syntax in (_BRACKETS, _DOTS):
        if all(re.fullmatch(rf"\$(?:{syntax.pattern})+", e) for e in expressions):
            return tuple(
                tuple(name if name else int(index) for name, index in syntax.findall(e)) for e in expressions
            )
    raise SqlError(
        f"Invalid JSONPath format in {url}: {', '.join(expressions)[:200]}",
        hint="write every path as $['a']['b'][0], or every path as $.a.b[0]",
    )


def _integer_literal(text: str) -> int | float:
    # Beyond any column's range; int() would take quadratic time, and refuses above 4,300 digits.
    return int(text) if len(text) <= 40 else Literal(text)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(
    parse_float=Literal, parse_int=_integer_literal, parse_constant=_no_constant
).raw_decode


def _blocks(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Cut a stream behind a line feed, or where there is none behind a brace; True marks the last piece."""
    block = b""
    for chunk in chunks:
        block += chunk
        if len(block) >= BLOCK:
            end = block.rfind(b"\n") + 1
            if not end and len(block) > MAX_OBJECT:
                end = block.rfind(b"}") + 1 or len(block)
            if end:
                yield block[:end], False
                block = block[end:]
    yield block, True


def _skip_space(text: str, position: int) -> int:
    match = _NOT_SPACE.search(text, position)
    return match.start() if match else len(text)


def _as_text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _other_encoding() -> BadValue:
    """
    Return the fault of a file in UTF-16, which COPY skips.

    https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-conversion.html#copy-encoding
    """
    return BadValue(1221, "Encoding of the file is not the same as that specified in the COPY command.")


def _single_byte(text: str) -> str:
    """Return text as the error tables keep it: 1,024 characters, each multibyte one replaced by a period."""
    return re.sub(r"[^\x01-\x7f]", ".", text[:1024])


def _parse(text: str, start: int, last: bool) -> tuple[Any, int]:
    """Return the object or array at a position, and its end."""
    try:
        if text[start] not in "{[":
            raise json.JSONDecodeError("Expecting an object", text, start)
        return _decode(text, start)
    except RecursionError:
        fault, message = start, "The object is nested too deeply"
    except json.JSONDecodeError as error:
        fault, message = error.pos, error.msg
    except ValueError as error:  # from _no_constant
        fault, message = start, str(error)
    # A string is reported where it begins; a word or an escape that is cut is at most ten characters long.
    if not last and (message.startswith("Unterminated string") or fault + 10 >= len(text.rstrip())):
        raise _Incomplete
    if text[start] not in "{[":
        opening = re.compile(r"[\n{\[]").search(text, start)
    else:
        # Go on with the next line that begins an object; one that is indented more may be inside this one.
        before = text[text.rfind("\n", 0, start) + 1 : start]
        indent = len(before) if not before.strip() else 0
        line_feed = text.rfind("\n", start, fault + 1)
        opening = re.compile(rf"\n[ \t]{{0,{indent}}}(?=[{{\[])").search(
            text, fault if line_feed < 0 else line_feed
        )
    raise _Malformed(message, fault - start, opening.start() if opening else len(text))


@dataclass(frozen=True)
class _Block:
    """A piece of a file, and what gives its rows: see :func:`convert_lines`."""

    file_name: str
    content: bytes
    last: bool
    converted: Converted


class JsonRows:
    """
    Turns files of JSON objects into rows of one table.

    :param columns: the columns to load, in order
    :param conversion: how values are converted
    :param paths: a JSONPath for each column; None matches member names with column names
    :raises SqlError: for a column type or a pattern that COPY does not take
    """

    def __init__(
        self, columns: Sequence[Column], conversion: Conversion, paths: Sequence[Path] | None = None
    ) -> None:
        self._plan = plan(tuple(columns), conversion, tuple(paths) if paths else None)
        self._ignorecase = conversion.ignorecase and paths is None
        self._accept_invalid = conversion.accept_invalid
        self._converters = [
            (column, path, converter_for(column, conversion))
            for column, path in zip(columns, paths or [(column.name,) for column in columns], strict=True)
        ]

    def convert(
        self, files: Iterable[tuple[str, Iterable[bytes]]], reject: Callable[[Rejected], None]
    ) -> Iterator[tuple[str, int, bytes]]:
        """
        Convert files, in order.

        :param files: the URL of each, for messages, and its content, cut anywhere
        :param reject: called with each object that does not fit, with each piece of malformed JSON, and with
            each file that is skipped
        :return: names of files, numbers of rows, and their text
        :raises SqlError: for an object above 4 MB, whatever MAXERROR says
        """
        line, carry = 1, ""
        is_first, skips = True, False
        for block in self._ahead(files):
            if is_first and block.content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
                reject(_rejected(_other_encoding(), block.file_name, 1, _as_text(block.content)))
                skips = True
            is_first = block.last
            if skips:
                skips = not block.last
                continue
            # Only here is an object measured.
            converted = None if carry or len(block.content) > MAX_OBJECT else block.converted()
            if converted is None:
                text = carry + _as_text(block.content)
                rows: list[list[str]] = []
                carry = self._convert_text(text, line, block.last, block.file_name, rows, reject)
                line += text.count("\n") - carry.count("\n")
                converted = len(rows), joined(list(zip(*rows, strict=True))) if rows else b""
            else:
                line += block.content.count(b"\n")
            if block.last:
                line = 1
            yield block.file_name, *converted

    def _ahead(self, files: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator["_Block"]:
        """Yield the blocks of files; the worker processes begin with those that follow."""
        waiting: deque[_Block] = deque()
        failure = None
        try:
            for file_name, chunks in files:
                for content, last in _blocks(chunks):
                    converted: Converted = partial(convert_lines, content, self._plan)
                    if not last:  # which a small file is as a whole
                        converted = convert_later(content, self._plan)
                    waiting.append(_Block(file_name, content, last, converted))
                    if len(waiting) > _AHEAD:
                        yield waiting.popleft()
        except SqlError as error:
            # What was read before is converted first, so that its rejected rows are known.
            failure = error
        yield from waiting
        if failure:
            raise failure

    def _convert_text(
        self,
        text: str,
        line: int,
        last: bool,
        file_name: str,
        rows: list[list[str]],
        reject: Callable[[Rejected], None],
    ) -> str:
        """Append a row for each object in the text; return what may be the beginning of one."""
        position = 0
        while (start := _skip_space(text, position)) < len(text):
            line += text.count("\n", position, start)
            try:
                document, position = _parse(text, start, last)
                if position - start > MAX_OBJECT:
                    raise _too_large(file_name, line)
                rows.append(self._careful_row(document))
            except _Incomplete:
                if len(text) - start > MAX_OBJECT:
                    raise _too_large(file_name, line) from None
                return text[position:]
            except _Malformed as bad:
                if bad.end - start > MAX_OBJECT:
                    raise _too_large(file_name, line) from None
                position = bad.end
                fault = min(start + bad.position, position)
                reject(_rejected(bad, file_name, line + text.count("\n", start, fault), text[start:position]))
            except BadValue as bad:
                # The documented line of a JSON object is its last one.
                end_line = line + text.count("\n", start, position)
                reject(_rejected(bad, file_name, end_line, text[start:position]))
            line += text.count("\n", start, position)
        return ""

    def _careful_row(self, document: Any) -> list[str]:
        """Convert an object; the exception for one that does not fit names its column."""
        if self._ignorecase and isinstance(document, dict):
            document = {name.lower(): value for name, value in document.items()}
        fields = []
        for column, path, convert in self._converters:
            value = None
            try:
                value = follow(document, path)
                fields.append(NULL if value is None else convert(self._valid(value, column)))
            except BadValue as bad:
                bad.column, bad.value = column, value
                raise
        for number, (column, _, _) in enumerate(self._converters):
            if not column.nullable:
                try:
                    fields[number] = without_null(fields[number], column)
                except BadValue as missing:
                    missing.column = column
                    raise
        return fields

    def _valid(self, value: Any, column: Column) -> Any:
        """
        Return a value without invalid characters.

        https://docs.aws.amazon.com/redshift/latest/dg/multi-byte-character-load-errors.html. U+0000 is
        rejected too, since PostgreSQL cannot hold it.
        """
        if not isinstance(value, str | dict | list):
            return value
        text = as_text(value)
        if self._accept_invalid and column.type == "varchar":
            text = _SURROGATE.sub(self._accept_invalid, text)
        wrong = _INVALID.search(text)
        if wrong:
            is_byte = "\udc80" <= wrong[0] <= "\udcff"
            code_unit = wrong[0].encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
            number = 3 if is_byte or wrong[0] == "\0" else 5
            raise BadValue(
                1220,
                "String contains invalid or unsupported UTF-8 codepoints. "
                f"Bad UTF-8 hex sequence: {code_unit.hex(' ')} (error {number})",
                wrong.start(),
            )
        return text


def _too_large(file_name: str, line: int) -> SqlError:
    return SqlError(
        f"The JSON object at {file_name}, line {line}, is larger than 4 MB",
        hint="COPY takes no larger one; write each record as an object of its own, not as part of an array",
    )


def _field_text(value: Any) -> str:
    try:
        return _single_byte(as_text(value))
    except BadValue:  # nested so deeply that it can be read, but not written
        return ""


def _rejected(bad: BadValue, file_name: str, line: int, raw: str) -> Rejected:
    column = bad.column or Column("", "")
    return Rejected(
        file_name=file_name,
        line_number=line,
        column_name=column.name,
        column_type=_CATALOG_NAMES.get(column.type, column.type),
        column_length=", ".join(str(n) for n in (column.length, column.scale) if n is not None),
        position=bad.position,
        raw_line=_single_byte(raw),
        raw_field_value="" if bad.value is None else _field_text(bad.value),
        error_code=bad.code,
        error_message=str(bad),
    )
