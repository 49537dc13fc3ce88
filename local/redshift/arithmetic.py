"""
Numbers as Redshift computes them: PostgreSQL gives each value the digits that it needs.

https://docs.aws.amazon.com/redshift/latest/dg/r_numeric_computations201.html
"""

from sqlglot import exp
from sqlglot.expressions import DataType, DType

from local.redshift.allowlist import words_of
from local.redshift.columns import Columns, expand_stars, selects
from local.redshift.errors import unsupported
from local.redshift.expression_types import DATES_AND_TIMES, TEXTS, Types, digits

# Functions whose results, apart from DECIMALs, PostgreSQL returns in another type
_CAST = words_of("CEIL CEILING DENSE_RANK FLOOR NTILE RANK ROUND SUM TRUNC")
_CALLS = (exp.Anonymous, exp.Window, exp.WithinGroup)
_VALUES = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg, exp.Case, exp.DecodeCase, *_CALLS)
_SPARE_DIGITS = 15  # more than the number of rows has


def type_numbers(tree: exp.Expr, types: Types, columns: Columns) -> None:
    """
    Give a statement's numbers the types that they have on Redshift.

    :param tree: the statement, changed in place
    :param types: of its expressions
    :param columns: what its names mean
    :raises SqlError: 0A000 for a quotient or a mean whose digits depend on a type that is not known
    """
    items = [item.unalias() for select in tree.find_all(exp.Select) for item in select.expressions]
    nodes: list[exp.Expr] = [node for node in items if isinstance(node, exp.Literal)]
    nodes += [node for node in tree.walk() if isinstance(node, _VALUES)]
    numbers = [(node, types.of(node)) for node in nodes]
    for query in list(tree.find_all(exp.SetOperation)):
        if not isinstance(query.parent, exp.SetOperation):
            _align(query, columns, types)
    for node, kind in reversed(numbers):  # the parts of an expression before itself
        if not (isinstance(node.parent, exp.Window | exp.WithinGroup) and node.arg_key == "this"):
            _type(node, kind, types, columns)


def _type(node: exp.Expr, kind: DataType, types: Types, columns: Columns) -> None:
    name, arguments = _call(node)
    decimal = kind.this is DType.DECIMAL
    if kind.this is DType.UNKNOWN and (isinstance(node, exp.Div) or name == "AVG"):
        if any(columns.sources(column) is None for column in node.find_all(exp.Column)):
            return  # there is no such column, as PostgreSQL will say
        what = "a quotient" if isinstance(node, exp.Div) else "AVG"
        raise unsupported(f"{what} of a type that is not known", "CAST what it is made of")
    if name in ("MEDIAN", "PERCENTILE_CONT") and kind.this in DATES_AND_TIMES:
        raise unsupported(f"{name} of dates and times")
    if isinstance(node, exp.Add) and kind.this in TEXTS:  # as ||, in the examples of r_NVL2.html
        node.replace(exp.DPipe(this=node.this, expression=node.expression))
    elif decimal and isinstance(node, exp.Div):
        _divide(node, kind)
    elif decimal and isinstance(node, exp.WithinGroup) and name == "PERCENTILE_CONT":
        _interpolate(node, kind)
    elif decimal and name == "AVG":
        _average(node, kind, arguments)
    elif decimal or (name in _CAST and kind.this not in (DType.NULL, DType.UNKNOWN)):
        if name == "MEDIAN" or (name == "SUM" and types.of(arguments[0]).this is DType.FLOAT):
            _cast(arguments[0], kind)
        _cast(node, kind)


def _call(node: exp.Expr) -> tuple[str, list[exp.Expr]]:
    """Return the name and the arguments of a function, those of DISTINCT where they are within."""
    while isinstance(node, exp.Window | exp.WithinGroup):
        node = node.this
    if not isinstance(node, exp.Anonymous):
        return "", []
    first = node.expressions[0] if node.expressions else None
    return node.name.upper(), first.expressions if isinstance(first, exp.Distinct) else node.expressions


def _cast(node: exp.Expr, kind: DataType) -> None:
    cast = exp.Cast(this=exp.Null(), to=kind.copy())
    node.replace(cast)
    cast.set("this", exp.Paren(this=node) if isinstance(node, exp.Binary | exp.Unary) else node)


def _divide(node: exp.Div, kind: DataType) -> None:
    """Cut a quotient after its last digit, as AVG's are, where the page does not say how it is made."""
    _, scale = digits(kind) or (0, 0)
    scaled = exp.Mul(this=exp.Paren(this=node.this), expression=exp.Literal.number(f"1e{scale}"))
    quotient = exp.Anonymous(this="DIV", expressions=[scaled, node.expression])
    result = exp.Mul(this=quotient, expression=exp.Literal.number(f"1e-{scale}"))
    node.replace(exp.Cast(this=exp.Paren(this=result), to=kind.copy()))


def _average(node: exp.Expr, kind: DataType, arguments: list[exp.Expr]) -> None:
    # https://docs.aws.amazon.com/redshift/latest/dg/r_FROM_clause-pivot-unpivot-examples.html: 2.50, 3.75
    # and 1.90 have the mean 2.71
    _, scale = digits(kind) or (0, 0)
    value, more = arguments[0], exp.Anonymous(this="ROUND")
    value.replace(more)
    more.set("expressions", [value, exp.Literal.number(scale + _SPARE_DIGITS)])
    cut = exp.Anonymous(this="TRUNC")
    cast = exp.Cast(this=cut, to=kind.copy())
    node.replace(cast)
    cut.set("expressions", [node, exp.Literal.number(scale)])


def _interpolate(node: exp.WithinGroup, kind: DataType) -> None:
    """Compute a percentile with decimals, which PostgreSQL's function takes for floating-point numbers."""
    (fraction,), (ordered, *_) = node.this.expressions, node.expression.expressions
    if ordered.args.get("desc"):
        fraction = exp.Paren(this=exp.Sub(this=exp.Literal.number(1), expression=fraction))
    values = exp.Anonymous(this="ARRAY_AGG", expressions=[ordered.this])
    percentile = exp.Anonymous(this="percentile_cont", expressions=[values, fraction])
    call = exp.Dot(this=exp.to_identifier("rs_catalog"), expression=percentile)
    node.replace(exp.Cast(this=call, to=kind.copy()))


def _align(query: exp.SetOperation, columns: Columns, types: Types) -> None:
    """Give the queries of a UNION, EXCEPT or INTERSECT one type of DECIMAL for each column."""
    kinds = [types.combined(source) for _, source in columns.selected(query) or []]
    for select in selects(query):
        expand_stars(select, columns)
        for item, kind in zip(select.expressions, kinds, strict=False):
            if kind.this is DType.DECIMAL and types.of(item) != kind:
                value = item.unalias()
                if isinstance(item, exp.Column):
                    value = item.copy()
                    item.replace(exp.alias_(value, item.name, quoted=True, copy=False))
                _cast(value, kind)
