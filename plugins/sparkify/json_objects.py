"""
The top-level JSON values of a file, well-formed or not, each with its lines and its whole text.

COPY reads objects, not lines: several may be on one line, and one may be on several. Where it rejects one, it
reports a line. For an object that does not fit, that is the object's last line
(https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_ERROR_DETAIL.html). Where Redshift reads on after an
object that is malformed is not documented.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

_Decode = Callable[[str, int], tuple[Any, int]]
# Numbers stay as they are written: 77.0 is not 77, and int() refuses numbers of more than 4,300 digits.
_decode: _Decode = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str).raw_decode
# For arrays and for counting, of which no field is read: an array of 100 MB would take 1 GB of memory.
_skip: _Decode = json.JSONDecoder(object_pairs_hook=lambda fields: (), parse_int=str).raw_decode

_NOT_BLANK = re.compile(r"[^ \t\r\n]")
_OPENING = re.compile(r"[\r\n{\[]")
# The strings and brackets of an object, and the ends of lines before one that begins with an opening bracket.
_TOKEN = re.compile(r'"[^"\\\r\n]*+(?:\\.[^"\\\r\n]*+)*+"|[{}\[\]]|[\r\n][ \t]*+(?=[{\[])')
# The decoder gives up at a depth between 900 and 10,000, by the release of Python.
_DEEP = 500
# How many characters are decoded at a time: an error of the decoder counts all lines of its text.
_FIRST_WINDOW, _GROWTH = 4096, 16


class JsonValue(NamedTuple):
    """
    A top-level value of a file.

    :param text: the whole text of it; of a malformed one, up to where the next one begins
    :param first_line: the line on which it begins, from 1
    :param last_line: the line on which it ends
    :param fields: of a well-formed object, its fields by their names as written, numbers as text; else None
    """

    text: str
    first_line: int
    last_line: int
    fields: dict[str, Any] | None


def split_values(text: str) -> Iterator[JsonValue]:
    """
    Return a file's top-level values in order.

    What is between them but blank is a malformed value. Lines end with a line feed, as COPY counts them.

    :param text: the file's text; it may begin with a byte order mark
    """
    line, counted = 1, 0
    for start, end, value in _spans(text, _decode):
        first_line = line + text.count("\n", counted, start)
        line, counted = first_line + text.count("\n", start, end), end
        yield JsonValue(text[start:end], first_line, line, value if isinstance(value, dict) else None)


def count_values(text: str) -> int:
    """
    Count a file's top-level values, malformed ones included: 0 for a file of blanks and line feeds.

    :param text: the file's text; it may begin with a byte order mark
    """
    return sum(1 for _ in _spans(text, _skip))


def values_on_lines(values: Iterable[JsonValue], lines: Iterable[int]) -> Iterator[tuple[int, JsonValue]]:
    """
    Find the values that are on lines.

    :param values: a file's values, in order
    :param lines: the lines to find
    :return: each line with each value that it has a part of; if there is none, with the value before it
    """
    wanted = sorted(set(lines))
    before: JsonValue | None = None
    passed = 0
    for value in values:
        begin, end = bisect_left(wanted, value.first_line), bisect_right(wanted, value.last_line)
        if before:
            yield from ((line, before) for line in wanted[passed:begin])
        yield from ((line, value) for line in wanted[begin:end])
        before, passed = value, end
    if before:
        yield from ((line, before) for line in wanted[passed:])


def _spans(text: str, decode: _Decode) -> Iterator[tuple[int, int, Any]]:
    """Return where each value begins and ends, and what it is: None if it is malformed."""
    position = 1 if text.startswith("\ufeff") else 0
    while blank := _NOT_BLANK.search(text, position):
        start = blank.start()
        if text[start] not in "{[":
            opening = _OPENING.search(text, start)
            value, position = None, opening.start() if opening else len(text)
        else:
            value, position = _parse(text, start, decode if text[start] == "{" else _skip)
        yield start, position if value is not None else _without_blanks(text, start, position), value


def _parse(text: str, start: int, decode: _Decode) -> tuple[Any, int]:
    """Return the object or array at a position, None if it is malformed; and where to read on."""
    line_feed = text.find("\n", start, start + _FIRST_WINDOW)
    size = line_feed - start if line_feed >= 0 else _FIRST_WINDOW
    while True:
        window = text[start : start + size]
        try:
            value, length = decode(window, 0)
            return value, start + length
        except RecursionError:
            return None, _end_of_deep(text, start)
        except json.JSONDecodeError as error:
            # A string is reported where it begins; a cut word or escape has at most ten characters.
            may_go_on = error.msg.startswith("Unterminated") or error.pos + 10 >= len(window.rstrip())
            if start + size >= len(text) or not may_go_on:
                return None, _end_of_malformed(text, start, start + error.pos)
        size = max(_FIRST_WINDOW, size * _GROWTH)


def _end_of_malformed(text: str, start: int, fault: int) -> int:
    """
    Return where to read on after a malformed object: at the next line that begins with an opening bracket.

    A line that is indented more than the object may be inside of it. The line of the fault may be the next
    object's already, if this one has no end. As each search begins at a fault, all of them take linear time.
    """
    line_feed = max(text.rfind("\n", start, fault + 1), text.rfind("\r", start, fault + 1))
    opening = re.compile(rf"[\r\n][ \t]{{0,{_indent(text, start)}}}(?=[{{\[])").search(
        text, fault if line_feed < 0 else line_feed
    )
    return opening.start() if opening else len(text)


def _end_of_deep(text: str, start: int) -> int:
    """
    Return where a value ends that is nested too deeply for the decoder.

    If it has no end, that is at the next line that begins with an opening bracket, as above.
    """
    depth = deepest = 0
    for token in _TOKEN.finditer(text, start):
        first = token[0][0]
        if first in "{[":
            depth += 1
            deepest = max(depth, deepest)
        elif first in "}]":
            depth -= 1
            if not depth:
                return token.end()
        elif first in "\r\n" and deepest > _DEEP and len(token[0]) - 1 <= _indent(text, start):
            return token.start()
    return len(text)


def _indent(text: str, start: int) -> int:
    """Return by how much a value's first line is indented: 0 if it is not the first value of the line."""
    line = start
    while line and text[line - 1] in " \t":
        line -= 1
    return start - line if not line or text[line - 1] in "\r\n" else 0


def _without_blanks(text: str, start: int, end: int) -> int:
    """Return the end of a piece of text without the blanks that it ends with."""
    return start + len(text[start:end].rstrip(" \t\r\n"))
