"""
Blanks at the end of a text, which do not matter when Redshift compares it, and do when PostgreSQL does.

https://docs.aws.amazon.com/redshift/latest/dg/r_Examples_with_character_types.html
"""

from collections.abc import Iterator

from sqlglot import exp

_COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
# What has no blanks, or has no type yet, so that it takes the other side's
_PLAIN = (exp.Null, exp.Boolean, exp.Parameter, exp.Star, exp.Interval)


def ignore(tree: exp.Expr) -> None:
    """
    Make a statement's comparisons ignore blanks at the end of texts.

    What is compared goes through a function of catalog.sql, which leaves all but texts as it is, and which
    PostgreSQL expands where it is called: it can use the same indexes and joins as without.

    :param tree: the statement, changed in place
    """
    compared = [part for node in tree.walk() for part in _compared(node)]
    # The inner ones first, whose replacement would otherwise be lost with the outer ones'
    for part in reversed(compared):
        if isinstance(part, exp.Literal):
            if part.is_string:
                part.set("this", part.name.rstrip(" "))
        elif not isinstance(part, _PLAIN):
            call = exp.Anonymous(this="comparable")
            function = exp.Dot(this=exp.to_identifier("rs_catalog"), expression=call)
            part.replace(function)
            call.set("expressions", [part])


def _compared(node: exp.Expr) -> Iterator[exp.Expr]:
    """Yield what an expression compares."""
    if isinstance(node, _COMPARISONS):
        if not (isinstance(node.parent, exp.Update) and node.arg_key == "expressions"):  # an assignment
            yield from _values(node.this, node.expression)
    elif isinstance(node, exp.Between):
        yield from _values(node.this, node.args["low"], node.args["high"])
    elif isinstance(node, exp.In):
        query = node.args.get("query")
        yield from _values(node.this, *node.expressions)
        yield from _selected(query.this if query else None)
    elif isinstance(node, exp.Case) and node.this:
        yield from _values(node.this, *(branch.this for branch in node.args["ifs"]))
    elif isinstance(node, exp.DecodeCase):
        parts = node.expressions
        yield from _values(parts[0], *parts[1 : len(parts) - 1 : 2])


def _values(*parts: exp.Expr) -> Iterator[exp.Expr]:
    """Yield values, those of a row one by one."""
    for part in parts:
        if isinstance(part, exp.Tuple):
            yield from _values(*part.expressions)
        else:
            yield part


def _selected(query: exp.Expr | None) -> Iterator[exp.Expr]:
    """Yield the columns of a query whose rows something is compared with."""
    if isinstance(query, exp.SetOperation):
        yield from _selected(query.this)
        yield from _selected(query.expression)
    elif isinstance(query, exp.Select):
        yield from _values(*(column.unalias() for column in query.expressions))
