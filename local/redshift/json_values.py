"""
How COPY converts a JSON value to a column's type.

The rules come from "Data conversion parameters" and "COPY from JSON format"
(https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-conversion.html,
…/copy-usage_notes-copy-from-json.html); where they are silent, a value that does not fit is rejected.
"""

import calendar
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal
from functools import cache, lru_cache
from typing import Any

from local.redshift.errors import SqlError, unsupported

#: Stands for NULL until a row is complete: no value can hold it, since U+0000 is rejected.
NULL = "\0"
#: Stands for the default of a column that is NOT NULL.
DEFAULT = "\0D"

_EPOCH = datetime(1970, 1, 1)
_DAY = 24 * 60 * 60 * 1000  # milliseconds
_INTEGERS = {"smallint": ("Short", 15), "integer": ("Integer", 31), "bigint": ("Long", 63)}
#: The lowest and the highest value of each integer type.
INTEGER_RANGES = {name: (-(2**bits), 2**bits - 1) for name, (_, bits) in _INTEGERS.items()}
_TRUE, _FALSE = frozenset(("t", "true", "y", "yes", "1")), frozenset(("f", "false", "n", "no", "0"))
_MONTHS = tuple(name.lower() for name in calendar.month_name[1:])
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,5})?", re.ASCII)

#: Turns a value, which is not None, into a field without COPY's escapes.
Converter = Callable[[Any], str]


@dataclass(frozen=True)
class Column:
    """
    A column of the target table.

    :param name: as the catalog writes it
    :param type: smallint, integer, bigint, "double precision", real, numeric, varchar, char, boolean, date,
        timestamp or timestamptz
    :param length: bytes of a char or varchar, precision of a numeric
    :param scale: digits after the point of a numeric
    :param nullable: whether it takes NULL
    :param has_default: whether a load that leaves it out, or has NULL for it where it is NOT NULL, fills it
    """

    name: str
    type: str
    length: int | None = None
    scale: int | None = None
    nullable: bool = True
    has_default: bool = False


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """
    How COPY is asked to convert values.

    https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-conversion.html

    :param ignorecase: member names match column names in any case
    :param accept_invalid: the character that replaces each invalid one in a varchar; None rejects the row
    :param timeformat: 'auto', 'epochsecs', 'epochmillisecs', a pattern, or None for Redshift's default
    :param dateformat: 'auto', a pattern, or None for Redshift's default
    :param roundec: round a numeric to its scale, which COPY otherwise cuts off
    :param null_as: the text that stands for NULL
    """

    ignorecase: bool = False
    truncatecolumns: bool = False
    blanksasnull: bool = False
    emptyasnull: bool = False
    accept_invalid: str | None = None
    roundec: bool = False
    null_as: str | None = None
    timeformat: str | None = None
    dateformat: str | None = None


class BadValue(ValueError):
    """
    Something that COPY rejects.

    :param code: number in https://docs.aws.amazon.com/redshift/latest/dg/r_Load_Error_Reference.html
    :param position: where in the value
    """

    #: The column, and the value that it was given; None for what concerns the whole object.
    column: Column | None = None
    value: Any = None

    def __init__(self, code: int, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.code, self.position = code, position


class Inexact(ValueError):
    """A float without the text that it was read from, where that text is needed."""


class Literal(float):
    """A number that keeps the text that it was read from."""

    text: str

    def __new__(cls, text: str) -> "Literal":
        """
        Read a number.

        :param text: as JSON writes it
        """
        literal = super().__new__(cls, text)
        literal.text = text
        return literal

    def __repr__(self) -> str:
        return self.text


def as_text(value: Any) -> str:
    """Return a value as a varchar holds it: strings without quotes, objects and arrays as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if type(value) is float:
            raise Inexact
        return repr(value)
    if isinstance(value, int):
        return str(value)
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise BadValue(1216, "The value is nested too deeply") from None


def _character(column: Column, conversion: Conversion) -> Converter:
    """VARCHAR(n) and CHAR(n): n counts bytes of UTF-8 (…/dg/r_Character_types.html)."""
    limit = column.length or 65535
    always_fits = limit // 4
    ascii_only = column.type == "char"

    def convert(value: Any) -> str:
        if type(value) is not str:
            value = as_text(value)
        if ascii_only and not value.isascii():
            position, wrong = next((i, c) for i, c in enumerate(value) if c > "\x7f")
            raise BadValue(
                1220,
                "Multibyte character not supported for CHAR (Hint: try using VARCHAR). "
                f"Invalid char: {wrong.encode().hex(' ')}",
                position,
            )
        if len(value) > always_fits and len(data := value.encode()) > limit:
            if not conversion.truncatecolumns:
                raise BadValue(1204, "String length exceeds DDL length", limit)
            value = data[:limit].decode("utf-8", "ignore")
        if not value:
            return NULL if conversion.emptyasnull else value
        if conversion.blanksasnull and value.isspace():
            return NULL
        return value

    return convert


def _integer(column: Column) -> Converter:
    """
    SMALLINT, INTEGER and BIGINT.

    AWS does not say what a JSON number such as 1.0 becomes. Public loads of the Sparkify data into BIGINT
    rely on 1540919166796.0 being taken; so a number without a fraction is.
    """
    name, _ = _INTEGERS[column.type]
    low, high = INTEGER_RANGES[column.type]

    def overflow() -> BadValue:
        return BadValue(1222, f"Overflow, Value is out of range, Type: {name}")

    def parse(value: Any) -> int | None:
        if isinstance(value, float) and value.is_integer():
            if abs(value) < 2**53:
                return int(value)
            if type(value) is float:
                raise Inexact
            exact = Decimal(repr(value))
            if exact == exact.to_integral_value():
                return int(exact)
        text = as_text(value).strip()
        wrong = next((i for i, c in enumerate(text) if not ("0" <= c <= "9" or (c in "+-" and i == 0))), None)
        if wrong is not None:
            raise BadValue(1207, f"Invalid digit, Value '{text[wrong]}', Pos {wrong}, Type: {name}", wrong)
        if text in ("+", "-"):
            raise BadValue(1207, f"Invalid digit, Value '{text}', Pos 0, Type: {name}")
        if len(text) > 40:
            raise overflow()
        return int(text) if text else None

    def convert(value: Any) -> str:
        if type(value) is not int:
            value = parse(value)
            if value is None:
                return NULL
        if low <= value <= high:
            return str(value)
        raise overflow()

    return convert


def _floating(column: Column) -> Converter:
    """REAL and DOUBLE PRECISION."""
    single = column.type == "real"

    def convert(value: Any) -> str:
        if type(value) is float and not single:
            return repr(value)
        try:
            if isinstance(value, int | float) and not isinstance(value, bool):
                number = float(value)
            else:
                text = as_text(value).strip()
                if not text:
                    return NULL
                if not _NUMBER.fullmatch(text):
                    raise BadValue(1208, f"Invalid digit, Value '{text[:20]}', Pos 0, Type: Float")
                number = float(text)
            if single:
                number = struct.unpack("f", struct.pack("f", number))[0]
        except OverflowError:
            number = float("inf")
        if number in (float("inf"), float("-inf")):
            raise BadValue(1204, f"Overflow, Value is out of range, Type: {column.type}")
        return float.__repr__(number)

    return convert


def _numeric(column: Column, conversion: Conversion) -> Converter:
    """NUMERIC(p, s): digits beyond the scale are cut off, or rounded with ROUNDEC."""
    precision, scale = column.length or 18, column.scale or 0
    room = precision - scale
    unit = Decimal((0, (1,), -scale))
    # One digit more than fits: what quantize is given has passed the test of adjusted() below.
    context = Context(precision + 1, ROUND_HALF_UP if conversion.roundec else ROUND_DOWN)

    def convert(value: Any) -> str:
        if type(value) is float:
            text = repr(value)
            # Up to 15 digits a double gives back the very decimal that was written.
            if len(text) > 16:
                raise Inexact
            whole, _, fraction = text.partition(".")
            if len(whole) <= room and len(fraction) <= scale and "e" not in text:
                return text
        elif isinstance(value, int | float) and not isinstance(value, bool):
            text = repr(value)
        else:
            text = as_text(value).strip()
            if not text:
                return NULL
        if not _NUMBER.fullmatch(text):
            wrong = next((i for i, c in enumerate(text) if c not in "+-.0123456789"), 0)
            raise BadValue(1207, f"Invalid digit, Value '{text[wrong]}', Pos {wrong}, Type: Decimal", wrong)
        number = Decimal(text)
        if not number or number.adjusted() < -scale - 1:
            number = Decimal(0)
        if (
            number.adjusted() > room
            or (number := number.quantize(unit, context=context)).copy_abs() >= 10**room
        ):
            raise BadValue(1204, f"Numeric data overflow (result precision): NUMERIC({precision},{scale})")
        return format(number, "f")

    return convert


def _boolean(value: Any) -> str:
    text = as_text(value).strip().lower()
    if text in _TRUE:
        return "t"
    if text in _FALSE:
        return "f"
    if not text:
        return NULL
    raise BadValue(1210, "Unknown boolean format")


_PARTS = {
    "YYYY": r"(?P<year>\d{4})",
    "YY": r"(?P<short_year>\d{2})",
    "MM": r"(?P<month>\d{1,2})",
    "MON": r"(?P<name>[A-Za-z]{3,9})",
    "DD": r"(?P<day>\d{1,2})",
    "HH24": r"(?P<hour>\d{1,2})",
    "HH12": r"(?P<hour>\d{1,2})",
    "HH": r"(?P<hour>\d{1,2})",
    "MI": r"(?P<minute>\d{1,2})",
    "SS": r"(?P<second>\d{1,2})(?:\.(?P<fraction>\d{1,6})\d*)?",
    "AM": r"(?P<half>[AaPp][Mm])",
    "PM": r"(?P<half>[AaPp][Mm])",
}
_PART = re.compile("|".join(sorted(_PARTS, key=len, reverse=True)))


def _pattern(pattern: str, option: str) -> Callable[[str], datetime]:
    """
    Compile a DATEFORMAT or TIMEFORMAT pattern.

    https://docs.aws.amazon.com/redshift/latest/dg/r_DATEFORMAT_and_TIMEFORMAT_strings.html

    :return: a function from text to a datetime, which raises ValueError for text of another form
    :raises SqlError: for a pattern that Redshift refuses
    """
    if re.search("TZ|tz|OF", pattern):
        raise SqlError(
            f"{option} '{pattern}' holds a time zone specifier, which COPY does not take",
            "22007",
            f"write {option} 'auto' to load values with a time zone",
        )
    expression, end = "", 0
    for part in _PART.finditer(pattern):
        expression += re.escape(pattern[end : part.start()]) + _PARTS[part[0]]
        end = part.end()
    try:
        compiled = re.compile(expression + re.escape(pattern[end:]), re.ASCII)
    except re.error:
        raise SqlError(f"{option} '{pattern}' names a part twice", "22007") from None
    if not compiled.groups:
        raise SqlError(f"{option} '{pattern}' names no part of a date", "22007", "for example 'YYYY-MM-DD'")

    def parse(text: str) -> datetime:
        match = compiled.fullmatch(text)
        if not match:
            raise ValueError
        part = {name: value for name, value in match.groupdict().items() if value is not None}
        month = int(part.get("month", 1))
        if "name" in part:
            name = part["name"].lower()
            (month,) = (i for i, full in enumerate(_MONTHS, 1) if name in (full, full[:3]))
        hour = int(part.get("hour", 0))
        if "half" in part:
            if not 1 <= hour <= 12:
                raise ValueError
            hour = hour % 12 + (12 if part["half"].lower() == "pm" else 0)
        short = int(part.get("short_year", 70))
        return datetime(
            int(part.get("year", short + (2000 if short < 70 else 1900))),
            month,
            int(part.get("day", 1)),
            hour,
            int(part.get("minute", 0)),
            int(part.get("second", 0)),
            int(part.get("fraction", "0").ljust(6, "0")),
        )

    return parse


@cache
def _times() -> tuple[list[str], list[str]]:
    """Return how the minutes of a day and the milliseconds of a minute are written; formatting is slow."""
    minutes = [f" {hour:02}:{minute:02}" for hour in range(24) for minute in range(60)]
    return minutes, [f":{second:02}.{rest:03}" for second in range(60) for rest in range(1000)]


def _epoch(unit: int) -> Converter:
    """TIMEFORMAT 'epochsecs' (unit 1) and 'epochmillisecs' (unit 1000), in integers alone."""
    name = "epochsecs" if unit == 1 else "epochmillisecs"
    whole = _integer(Column(name, "bigint"))
    milliseconds = 1000 // unit
    minutes, seconds = _times()

    @lru_cache(maxsize=1024)
    def day_text(day: int) -> str:
        return str(_EPOCH + timedelta(days=day))[:10]

    def convert(value: Any) -> str:
        if type(value) is not int:
            try:
                text = whole(value)
            except BadValue as bad:
                raise BadValue(1206, f"Invalid timestamp format or value [{name}]", bad.position) from None
            if text == NULL:
                return text
            value = int(text)
        try:
            instant = value * milliseconds
            return day_text(instant // _DAY) + minutes[instant % _DAY // 60_000] + seconds[instant % 60_000]
        except OverflowError:
            raise BadValue(1206, f"Invalid timestamp format or value [{name}]") from None

    return convert


def _moment(column: Column, conversion: Conversion) -> Converter:
    """
    DATE, TIMESTAMP and TIMESTAMPTZ.

    Of what 'auto' recognises (…/dg/automatic-recognition.html) this takes ISO 8601 in all its forms, and
    rejects any other. A TIMESTAMP leaves a zone out, a TIMESTAMPTZ without one is UTC.
    """
    is_date, zoned = column.type == "date", column.type == "timestamptz"
    wanted = conversion.dateformat if is_date else conversion.timeformat
    if not is_date and wanted in ("epochsecs", "epochmillisecs"):
        to_text = _epoch(1 if wanted == "epochsecs" else 1000)
        return (
            (lambda value: text if (text := to_text(value)) == NULL else text + "+00") if zoned else to_text
        )

    shown = wanted or (
        "YYYY-MM-DD" if is_date else "YYYY-MM-DD HH:MI:SSOF" if zoned else "YYYY-MM-DD HH:MI:SS"
    )
    parse: Callable[[str], datetime]
    if wanted == "auto" or (zoned and wanted is None):
        parse = datetime.fromisoformat
    else:
        parse = _pattern(shown, "DATEFORMAT" if is_date else "TIMEFORMAT")
    code, kind = (1205, "Date") if is_date else (1206, "timestamp")

    def convert(value: Any) -> str:
        text = as_text(value).strip()
        if not text:
            return NULL
        try:
            moment = parse(text)
            if is_date:
                return str(moment.date())
            if not zoned:
                return str(moment.replace(tzinfo=None))
            return str(moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC))
        except (ValueError, OverflowError):
            raise BadValue(code, f"Invalid {kind} format or value [{shown}]") from None

    return convert


def converter_for(column: Column, conversion: Conversion) -> Converter:
    """
    Return the function that converts a value to a column's type.

    It raises BadValue for a value that does not fit, Inexact for a float that must be a :class:`Literal`.

    :param column: the column
    :param conversion: the statement's options
    :raises SqlError: for a type or a date pattern that COPY does not take
    """
    convert = _converter_of_type(column, conversion)
    if conversion.null_as is None:
        return convert
    return lambda value: NULL if value == conversion.null_as else convert(value)


def _converter_of_type(column: Column, conversion: Conversion) -> Converter:
    if column.type in _INTEGERS:
        return _integer(column)
    if column.type in ("real", "double precision"):
        return _floating(column)
    if column.type == "numeric":
        return _numeric(column, conversion)
    if column.type in ("varchar", "char"):
        return _character(column, conversion)
    if column.type == "boolean":
        return _boolean
    if column.type in ("date", "timestamp", "timestamptz"):
        return _moment(column, conversion)
    raise unsupported(f"COPY into column {column.name} of type {column.type}")
