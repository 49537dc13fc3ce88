"""
What type an expression has on Redshift, which for DECIMALs is how many digits it keeps.

https://docs.aws.amazon.com/redshift/latest/dg/r_numeric_computations201.html
"""

import re
from collections.abc import Sequence
from decimal import Decimal

from sqlglot import exp
from sqlglot.expressions import DataType, DType

from local.redshift import tables
from local.redshift.allowlist import words_of
from local.redshift.columns import Columns, decimal

MOST_DIGITS = 38
TEXTS = (DType.CHAR, DType.VARCHAR)
DATES_AND_TIMES = (DType.DATE, DType.TIMESTAMP, DType.TIMESTAMPTZ)

_INTEGER_DIGITS = {DType.SMALLINT: 5, DType.INT: 10, DType.BIGINT: 19}
_FLOATS = (DType.FLOAT, DType.DOUBLE)
NUMBERS = (*_INTEGER_DIGITS, DType.DECIMAL, *_FLOATS)
_UNTYPED = DType.NULL  # a string, NULL or parameter, which takes the type of what it meets

_RESULTS = {
    name: kind
    for kind, names in {
        DType.INT: "CHARINDEX DENSE_RANK LEN LENGTH OCTET_LENGTH PG_BACKEND_PID PG_LAST_COPY_ID RANK"
        " REGEXP_COUNT STRPOS",
        DType.BIGINT: "COUNT DATEDIFF DATE_DIFF NTILE PG_LAST_COPY_COUNT ROW_NUMBER",
        DType.DOUBLE: "CUME_DIST DATE_PART EXP LN LOG PERCENT_RANK POWER RANDOM RATIO_TO_REPORT SQRT STDDEV"
        " STDDEV_POP STDDEV_SAMP VARIANCE VAR_POP VAR_SAMP",
        DType.BOOLEAN: "IS_VALID_JSON HAS_SCHEMA_PRIVILEGE HAS_TABLE_PRIVILEGE",
        DType.DATE: "LAST_DAY TO_DATE",
        DType.TIMESTAMP: "ADD_MONTHS CONVERT_TIMEZONE DATEADD DATE_ADD DATE_TRUNC GETDATE",
        DType.TIMESTAMPTZ: "TO_TIMESTAMP",
        DType.VARCHAR: "BTRIM CHR CONCAT INITCAP JSON_EXTRACT_PATH_TEXT LEFT LISTAGG LOWER LPAD LTRIM MD5"
        " QUOTE_IDENT QUOTE_LITERAL REGEXP_REPLACE REGEXP_SUBSTR REPEAT REPLACE REVERSE RIGHT RPAD RTRIM"
        " SHA2 SPLIT_PART SUBSTR TO_CHAR TRANSLATE UPPER VERSION",
    }.items()
    for name in words_of(names)
}
_SAME_AS_ARGUMENT = words_of("ABS FIRST_VALUE LAG LAST_VALUE LEAD MAX MIN NTH_VALUE NULLIF")
_SAME_AS_ALL = words_of("COALESCE GREATEST LEAST NVL")
_NODES: dict[type[exp.Expr], DType] = {
    **dict.fromkeys((exp.Predicate, exp.Connector, exp.Not, exp.Boolean), DType.BOOLEAN),
    **dict.fromkeys((exp.DPipe, exp.Substring, exp.Trim, exp.CurrentUser), DType.VARCHAR),
    exp.StrPosition: DType.INT,
    exp.CurrentDate: DType.DATE,
    exp.CurrentTimestamp: DType.TIMESTAMP,
    exp.Interval: DType.INTERVAL,
}


def digits(kind: DataType) -> tuple[int, int] | None:
    """
    Return precision and scale of a DECIMAL, or of the one that an integer becomes among DECIMALs.

    :param kind: a type
    """
    if kind.this is DType.DECIMAL:
        precision, scale = (int(parameter.name) for parameter in kind.expressions)
        return precision, scale
    return (_INTEGER_DIGITS[kind.this], 0) if kind.this in _INTEGER_DIGITS else None


class Types:
    """
    The types of a statement's expressions.

    :param columns: what its names mean
    :param parameters: the types of ``$1`` and so on, None where the client leaves them open
    """

    def __init__(self, columns: Columns, parameters: Sequence[DataType | None] = ()) -> None:
        self._columns, self._parameters = columns, parameters
        self._known: dict[int, tuple[exp.Expr, DataType]] = {}

    def of(self, node: exp.Expr | None) -> DataType:
        """
        Return an expression's type: UNKNOWN if it is not known, NULL if it takes that of what it meets.

        :param node: the expression
        """
        if node is None:
            return _plain(_UNTYPED)
        if id(node) not in self._known:
            self._known[id(node)] = node, _plain(DType.UNKNOWN)  # of what is defined by itself
            kind = self._of(node)
            self._known[id(node)] = node, kind if isinstance(kind, DataType) else _plain(kind)
        return self._known[id(node)][1]

    def combined(self, nodes: Sequence[exp.Expr | None]) -> DataType:
        """
        Return the type that values of several expressions have in one column.

        :param nodes: the expressions
        """
        return _combined([self.of(node) for node in nodes])

    def _of(self, node: exp.Expr) -> DataType | DType:
        match node:
            case exp.DataType():
                return node
            case exp.Literal() | exp.Null():
                return _literal(node)
            case exp.Parameter():
                number = int(node.name)
                known = self._parameters[number - 1] if number <= len(self._parameters) else None
                return known or _UNTYPED
            case exp.Column():
                return self.combined(self._columns.sources(node) or (exp.DataType(this=DType.UNKNOWN),))
            case exp.Paren() | exp.Neg() | exp.Alias() | exp.Window():
                return self.of(node.this)
            case exp.Cast():
                return tables.sized_type(node.to, in_column=False)
            case exp.Add() | exp.Sub() | exp.Mul() | exp.Div() | exp.Mod():
                left, right = (
                    self.of(other if isinstance(each.unnest(), exp.Null) else each)
                    for each, other in ((node.this, node.expression), (node.expression, node.this))
                )
                return _computed(node, left, right)
            case exp.Case():
                return self.combined(
                    [*(each.args["true"] for each in node.args["ifs"]), node.args.get("default")]
                )
            case exp.DecodeCase():
                values = node.expressions
                return self.combined([*values[2::2], *(values[-1:] if len(values) % 2 == 0 else ())])
            case exp.Subquery() | exp.Select() | exp.SetOperation():
                columns = self._columns.selected(node) or []
                return self.combined(columns[0][1]) if len(columns) == 1 else DType.UNKNOWN
            case exp.WithinGroup():
                return self._of_ordered(node)
            case exp.Extract():
                zoned = self.of(node.expression).this is DType.TIMESTAMPTZ
                return DType.DOUBLE if zoned else DType.BIGINT if node.name.lower() == "epoch" else DType.INT
            case exp.Anonymous():
                return self._of_call(node.name.upper(), node.expressions)
        return next((kind for each, kind in _NODES.items() if isinstance(node, each)), DType.UNKNOWN)

    def _of_call(self, name: str, arguments: list[exp.Expr]) -> DataType | DType:
        if name in _RESULTS:
            return _RESULTS[name]
        if arguments and isinstance(arguments[0], exp.Distinct):
            arguments = arguments[0].expressions
        if not arguments:
            return DType.UNKNOWN
        first = self.of(arguments[0])
        if name in _SAME_AS_ARGUMENT:
            return first
        if name in _SAME_AS_ALL:
            return self.combined(arguments)
        match name:
            case "NVL2":
                return self.combined(arguments[1:])
            case "SUM" | "AVG":
                if first.this is DType.DECIMAL:
                    return decimal(MOST_DIGITS, _scale(first))
                return DType.BIGINT if first.this in _INTEGER_DIGITS else _if_float(first)
            case "ROUND" | "TRUNC" | "CEIL" | "CEILING" | "FLOOR":
                if first.this in (DType.TIMESTAMP, DType.TIMESTAMPTZ):
                    return DType.DATE
                return self._rounded(first, arguments[1:])
            case "SIGN":
                return decimal(1, 0) if first.this is DType.DECIMAL else DType.DOUBLE
            case "MOD":
                return _computed(exp.Mod(), first, self.of(arguments[1]))
            case "MEDIAN":
                return _interpolated(first, 1)
            case "TO_NUMBER":
                pattern = (
                    arguments[1].name.upper().partition("D" if "D" in arguments[1].name.upper() else ".")
                )
                whole, fraction = (len(re.findall("[09]", part)) for part in pattern[::2])
                return decimal(whole + fraction or 1, fraction)
        return DType.UNKNOWN

    def _rounded(self, kind: DataType, places: list[exp.Expr]) -> DataType:
        """Return the type of a number without its last digits, which keeps one more of the others."""
        if kind.this is not DType.DECIMAL:
            return kind
        precision, scale = digits(kind) or (0, 0)
        kept = "0" if not places or isinstance(places[0], exp.Neg) else places[0].name
        if not kept.isdecimal():
            return kind
        scale_kept = min(scale, int(kept))
        return decimal(min(precision - scale + 1 + scale_kept, MOST_DIGITS), scale_kept)

    def _of_ordered(self, node: exp.WithinGroup) -> DataType | DType:
        name, (ordered, *_) = node.this.name.upper(), node.expression.expressions
        if name == "PERCENTILE_CONT":
            (fraction,) = node.this.expressions
            return _interpolated(self.of(ordered.this), _scale(self.of(fraction)))
        return self.of(ordered.this) if name == "PERCENTILE_DISC" else self.of(node.this)


def _plain(kind: DType) -> DataType:
    return exp.DataType(this=kind, nested=False)


def _scale(kind: DataType) -> int:
    return (digits(kind) or (0, 0))[1]


def _if_float(kind: DataType) -> DType:
    return DType.DOUBLE if kind.this in _FLOATS else DType.UNKNOWN


def _literal(node: exp.Expr) -> DataType | DType:
    if not isinstance(node, exp.Literal) or node.is_string:
        return _UNTYPED
    if not node.name.isdecimal():
        _, written, exponent = Decimal(node.name).as_tuple()
        scale = max(-int(exponent), 0)
        return decimal(max(len(written) + int(exponent), 0) + scale or 1, scale)
    for kind, bits in ((DType.INT, 31), (DType.BIGINT, 63)):
        if int(node.name) < 1 << bits:
            return kind
    return decimal(len(node.name), 0)


def _combined(kinds: list[DataType]) -> DataType:
    typed = [kind for kind in kinds if kind.this is not _UNTYPED]
    if not typed:
        return _plain(_UNTYPED)
    names = {kind.this for kind in typed}
    if len(names) == 1 and DType.DECIMAL not in names:
        return typed[0]
    if DType.UNKNOWN in names:
        return _plain(DType.UNKNOWN)
    if names & set(_FLOATS) and all(kind.this in _FLOATS or digits(kind) for kind in typed):
        return _plain(DType.DOUBLE)
    numbers = [numbers for kind in typed if (numbers := digits(kind))]
    if len(numbers) == len(typed):
        if DType.DECIMAL not in names:
            return max(typed, key=lambda kind: _INTEGER_DIGITS[kind.this])
        scale = max(scale for _, scale in numbers)
        whole = max(precision - scale for precision, scale in numbers)
        # 19 digits at most, says the page; a column of one of the queries that has more would not fit
        return decimal(min(whole + scale, max(19, *(precision for precision, _ in numbers))), scale)
    if names <= set(TEXTS):
        return _plain(DType.VARCHAR)
    if names <= set(DATES_AND_TIMES):
        return _plain(max(names, key=DATES_AND_TIMES.index))
    return _plain(DType.UNKNOWN)


def _computed(operation: exp.Expr, left: DataType, right: DataType) -> DataType | DType:
    """Return the type of the result of + - * / or %."""
    kinds = (left.this, right.this)
    if _UNTYPED in kinds:
        other = right if left.this is _UNTYPED else left
        return DType.UNKNOWN if other.this is DType.DECIMAL else other
    if DType.INTERVAL in kinds:
        other = right if left.this is DType.INTERVAL else left
        return (
            DType.TIMESTAMP
            if other.this is DType.DATE
            else other
            if other.this in DATES_AND_TIMES
            else DType.INTERVAL
        )
    if left.this in DATES_AND_TIMES:
        if right.this in DATES_AND_TIMES:
            return DType.INT if kinds == (DType.DATE, DType.DATE) else DType.INTERVAL
        return left
    if right.this in DATES_AND_TIMES:
        return right
    if DType.UNKNOWN in kinds:
        return DType.DOUBLE if set(kinds) & set(_FLOATS) else DType.UNKNOWN
    if DType.DECIMAL not in kinds or set(kinds) & set(_FLOATS):
        return _combined([left, right])
    (p1, s1), (p2, s2) = digits(left) or (0, 0), digits(right) or (0, 0)
    match operation:
        case exp.Add() | exp.Sub():
            scale = max(s1, s2)
            precision = max(p1 - s1, p2 - s2) + 1 + scale
        case exp.Mul():
            scale = s1 + s2
            precision = p1 + p2 + 1
        case exp.Div():
            scale = max(4, s1 + p2 - s2 + 1)
            precision = p1 - s1 + s2 + scale
            if precision > MOST_DIGITS:
                scale = max(MOST_DIGITS + scale - precision, 4)
        case _:
            return _combined([left, right])
    return decimal(min(precision, MOST_DIGITS), min(scale, MOST_DIGITS - 1))


def _interpolated(kind: DataType, scale: int) -> DataType | DType:
    """Return the type of MEDIAN and PERCENTILE_CONT."""
    return decimal(MOST_DIGITS, _scale(kind) + scale) if digits(kind) else kind
