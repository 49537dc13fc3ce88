"""
What functions and operators take, turned into the type that they work on, as Redshift does by itself.

https://docs.aws.amazon.com/redshift/latest/dg/c_Supported_data_types.html#r_Type_conversion
"""

from collections.abc import Iterator

from sqlglot import exp
from sqlglot.expressions import DType

from local.redshift.allowlist import words_of
from local.redshift.errors import SqlError, unsupported
from local.redshift.expression_types import NUMBERS, Types

# Which arguments are texts, and which are timestamps, -1 being the last
_TEXTS = {
    **dict.fromkeys(
        words_of(
            "INITCAP IS_VALID_JSON JSON_EXTRACT_PATH_TEXT LEFT LEN LENGTH LISTAGG LOWER MD5 OCTET_LENGTH"
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
_TIMESTAMPS = {
    **dict.fromkeys(("ADD_MONTHS", "LAST_DAY"), (0,)),
    **dict.fromkeys(("DATE_PART", "DATE_TRUNC"), (1,)),
    **dict.fromkeys(("DATEADD", "DATE_ADD"), (2,)),
    **dict.fromkeys(("DATEDIFF", "DATE_DIFF"), (1, 2)),
    "CONVERT_TIMEZONE": (-1,),
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
# Types that need no cast to these; a literal or parameter takes the type of the argument
_FIT = {
    DType.VARCHAR: (DType.VARCHAR, DType.NULL),
    DType.TIMESTAMP: (DType.TIMESTAMP, DType.TIME, DType.TIMETZ, DType.INTERVAL),
}


def cast_arguments(tree: exp.Expr, types: Types) -> None:
    """
    Turn what a statement's functions and operators take into what they work on.

    :param tree: the statement, changed in place
    :param types: of its expressions
    :raises SqlError: 42846 for a BOOLEAN as a text
    """
    for value, kind in reversed([each for node in tree.walk() for each in _arguments(node, types)]):
        found = types.of(value).this
        if kind is DType.VARCHAR and found is DType.BOOLEAN:
            raise SqlError("cannot cast type boolean to character varying", "42846", "use CASE")
        if found not in _FIT.get(kind, ()):
            cast = exp.Cast(this=exp.Null(), to=exp.DataType(this=kind, nested=False))
            value.replace(cast)
            cast.set("this", exp.Paren(this=value) if isinstance(value, exp.Binary) else value)


def _arguments(node: exp.Expr, types: Types) -> Iterator[tuple[exp.Expr, DType]]:
    """Yield parts of an expression, and what they are to be."""
    for key in _TEXT_OPERANDS.get(type(node), ()):
        if node.args.get(key):
            yield node.args[key], DType.VARCHAR
    if isinstance(node, exp.Extract) and types.of(node.expression).this is not DType.TIMESTAMPTZ:
        yield node.expression, DType.TIMESTAMP
    if isinstance(node, exp.Anonymous) and node.expressions:
        arguments = node.expressions
        if isinstance(arguments[0], exp.Distinct):
            arguments = [*arguments[0].expressions, *arguments[1:]]
        yield from _call_arguments(node.name.upper(), arguments, types)


def _call_arguments(name: str, arguments: list[exp.Expr], types: Types) -> Iterator[tuple[exp.Expr, DType]]:
    for position in _TEXTS.get(name, ()):
        if position < len(arguments):
            yield arguments[position], DType.VARCHAR
    for position in _TIMESTAMPS.get(name, ()):
        if position < len(arguments):
            value = arguments[position]
            if not (name == "DATE_PART" and types.of(value).this is DType.TIMESTAMPTZ):
                yield value, DType.TIMESTAMP
    value, kind = arguments[0], types.of(arguments[0]).this
    if name == "TRUNC" and kind is DType.TIMESTAMPTZ:
        yield value, DType.TIMESTAMP
    elif name == "TO_CHAR" and len(arguments) == 2:
        # https://docs.aws.amazon.com/redshift/latest/dg/r_TO_CHAR.html
        pattern = arguments[1].name.upper()
        if kind in NUMBERS and "L" in pattern:
            raise unsupported("TO_CHAR with a currency symbol")
        if kind is DType.TIMESTAMP and ("TZ" in pattern or "OF" in pattern):
            yield value, DType.TIMESTAMPTZ
        elif kind in (DType.VARCHAR, DType.CHAR) or (isinstance(value, exp.Literal) and value.is_string):
            yield value, DType.TIMESTAMP
