"""
What functions and operators take, turned into the type that they work on, as Redshift does by itself.

https://docs.aws.amazon.com/redshift/latest/dg/c_Supported_data_types.html#r_Type_conversion
"""

from collections.abc import Iterator

from sqlglot import exp
from sqlglot.expressions import DType

from local.redshift.allowlist import words_of
from local.redshift.columns import decimal, selects
from local.redshift.errors import SqlError, unsupported
from local.redshift.expression_types import DATES_AND_TIMES, NUMBERS, TEXTS, Types

# Which arguments are texts, timestamps and floating-point numbers, -1 being the last
_TEXT_ARGUMENTS = {
    **dict.fromkeys(
        words_of(
            "INITCAP IS_VALID_JSON JSON_EXTRACT_PATH_TEXT LEFT LEN LENGTH LOWER MD5 OCTET_LENGTH"
            " QUOTE_IDENT QUOTE_LITERAL REPEAT REVERSE RIGHT SHA2 SUBSTR TO_DATE TO_NUMBER TO_TIMESTAMP UPPER"
        ),
        (0,),
    ),
    **dict.fromkeys(
        words_of("BTRIM CHARINDEX CONCAT LTRIM REGEXP_COUNT REGEXP_SUBSTR RTRIM SPLIT_PART STRPOS"), (0, 1)
    ),
    **dict.fromkeys(("LPAD", "RPAD"), (0, 2)),
    **dict.fromkeys(("REGEXP_REPLACE", "REPLACE", "TRANSLATE"), (0, 1, 2)),
}
_TIMESTAMP_ARGUMENTS = {
    **dict.fromkeys(("ADD_MONTHS", "LAST_DAY"), (0,)),
    **dict.fromkeys(("DATE_PART", "DATE_TRUNC"), (1,)),
    **dict.fromkeys(("DATEADD", "DATE_ADD"), (2,)),
    **dict.fromkeys(("DATEDIFF", "DATE_DIFF"), (1, 2)),
    "CONVERT_TIMEZONE": (-1,),
}
_DOUBLE_ARGUMENTS = {
    **dict.fromkeys(
        words_of("EXP LN LOG SQRT STDDEV STDDEV_POP STDDEV_SAMP VARIANCE VAR_POP VAR_SAMP"), (0,)
    ),
    "POWER": (0, 1),
}
_TEXT_OPERANDS: dict[type[exp.Expr], tuple[str, ...]] = {
    exp.DPipe: ("this", "expression"),
    exp.ILike: ("this",),
    exp.Like: ("this",),
    exp.RegexpLike: ("this",),
    exp.SimilarTo: ("this",),
    exp.StrPosition: ("this", "substr"),
    exp.Substring: ("this",),
    exp.Trim: ("this", "expression"),
}
_COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
# Types that need no cast to these; a literal or parameter takes the type of the argument
_FIT = {
    DType.VARCHAR: (DType.VARCHAR, DType.NULL),
    DType.DOUBLE: (DType.DOUBLE, DType.NULL),
    DType.TIMESTAMP: (DType.TIMESTAMP, DType.TIME, DType.TIMETZ, DType.INTERVAL),
}


def cast_arguments(tree: exp.Expr, types: Types) -> None:
    """
    Turn what a statement's functions and operators take into what they work on.

    :param tree: the statement, changed in place
    :param types: of its expressions
    :raises SqlError: 42846 for a BOOLEAN as a text
    """
    for node in tree.find_all(exp.Cast):
        _check_text(types.of(node).this, types.of(node.this).this)
    for value, kind in reversed([each for node in tree.walk() for each in _arguments(node, types)]):
        found = types.of(value).this
        _check_text(kind, found)
        if found not in _FIT.get(kind, ()):
            _cast(value, kind)
    if isinstance(tree, exp.Create) and isinstance(tree.expression, exp.Query):
        _cast_items(tree.expression, types)


def _cast_items(query: exp.Query, types: Types) -> None:
    """Make the texts of a new table VARCHARs, where PostgreSQL would make them of a type of its own."""
    rows = [[item.unalias() for item in select.expressions] for select in selects(query)]
    for column in zip(*rows, strict=False):
        if types.combined(column).this in (DType.VARCHAR, DType.NULL):
            for value in column:
                if not isinstance(value, exp.Column | exp.Null):
                    _cast(value, DType.VARCHAR)


def _cast(value: exp.Expr, kind: DType) -> None:
    to = decimal(38, 18) if kind is DType.DECIMAL else exp.DataType(this=kind, nested=False)
    cast = exp.Cast(this=exp.Null(), to=to)
    value.replace(cast)
    cast.set("this", exp.Paren(this=value) if isinstance(value, exp.Binary) else value)


def _check_text(kind: DType, found: DType) -> None:
    if kind in TEXTS and found is DType.BOOLEAN:
        raise SqlError("cannot cast type boolean to character varying", "42846", "use CASE")


def _arguments(node: exp.Expr, types: Types) -> Iterator[tuple[exp.Expr, DType]]:
    """Yield parts of an expression, and what they are to be."""
    for key in _TEXT_OPERANDS.get(type(node), ()):
        if node.args.get(key):
            yield node.args[key], DType.VARCHAR
    if isinstance(node, exp.Extract) and types.of(node.expression).this is not DType.TIMESTAMPTZ:
        yield node.expression, DType.TIMESTAMP
    if isinstance(node, _COMPARISONS):
        yield from _compared(node.this, node.expression, types)
        yield from _compared(node.expression, node.this, types)
    if isinstance(node, exp.Anonymous) and node.expressions:
        first = node.expressions[0]
        arguments = first.expressions if isinstance(first, exp.Distinct) else node.expressions
        yield from _call_arguments(node.name.upper(), arguments, types)


def _compared(value: exp.Expr, other: exp.Expr, types: Types) -> Iterator[tuple[exp.Expr, DType]]:
    kind, text = types.of(value).this, types.of(other).this in TEXTS
    if text and kind in NUMBERS and kind is not DType.DECIMAL:
        yield value, DType.VARCHAR
    elif text and kind in (DType.DECIMAL, *DATES_AND_TIMES):
        yield other, kind


def _call_arguments(name: str, arguments: list[exp.Expr], types: Types) -> Iterator[tuple[exp.Expr, DType]]:
    for positions, kind in ((_TEXT_ARGUMENTS, DType.VARCHAR), (_DOUBLE_ARGUMENTS, DType.DOUBLE)):
        for position in positions.get(name, ()):
            if position < len(arguments):
                yield arguments[position], kind
    for position in _TIMESTAMP_ARGUMENTS.get(name, ()):
        if position < len(arguments):
            value = arguments[position]
            if not (name == "DATE_PART" and types.of(value).this is DType.TIMESTAMPTZ):
                yield value, DType.TIMESTAMP
    value, kind = arguments[0], types.of(arguments[0]).this
    if name == "NVL2" and len(arguments) == 3:  # of the type of the second
        _, present, absent = arguments
        text = types.of(present).this in TEXTS or present.is_string
        if text and types.of(absent).this in NUMBERS:
            yield absent, DType.VARCHAR
    elif name == "TRUNC" and kind is DType.TIMESTAMPTZ:
        yield value, DType.TIMESTAMP
    elif name == "TO_CHAR" and len(arguments) == 2:
        # https://docs.aws.amazon.com/redshift/latest/dg/r_TO_CHAR.html
        pattern = arguments[1].name.upper()
        if kind in NUMBERS and "L" in pattern:
            raise unsupported("TO_CHAR with a currency symbol")
        if kind is DType.TIMESTAMP and ("TZ" in pattern or "OF" in pattern):
            yield value, DType.TIMESTAMPTZ
        elif kind in TEXTS or (isinstance(value, exp.Literal) and value.is_string):
            yield value, DType.TIMESTAMP
