"""
Subqueries that refer to the query around them, in the ways that Redshift refuses.

https://docs.aws.amazon.com/redshift/latest/dg/r_correlated_subqueries.html
"""

from sqlglot import exp

from local.redshift.columns import Columns, blocks_around
from local.redshift.errors import SqlError


def check(tree: exp.Expr, columns: Columns) -> None:
    """
    Refuse correlated subqueries that Redshift cannot decorrelate.

    :param tree: the statement, names in lower case
    :param columns: what its names mean
    :raises SqlError: 0A000
    """
    for column in tree.find_all(exp.Column):
        outer = columns.block(column)
        blocks = list(blocks_around(column))
        depth = next((depth for depth, block in enumerate(blocks) if block is outer), 0)
        if depth:
            _check_reference(blocks[depth - 1], blocks[depth], depth)


def _check_reference(subquery: exp.Expr, outer: exp.Expr, depth: int) -> None:
    """Check a subquery one of whose columns, or one of those in queries within, is the outer query's."""
    if depth > 1:
        raise _refusal("a column of a query that is not the one right around")
    if subquery.find(exp.Window):
        raise _refusal("a window function in the subquery")
    around, predicate = subquery, subquery.parent
    while around.parent is not outer:
        assert around.parent
        around = around.parent
    if isinstance(around, exp.Join):
        raise _refusal("a subquery in an ON clause")
    while isinstance(predicate, exp.Subquery | exp.Paren):
        predicate = predicate.parent
    if isinstance(predicate, exp.In) and subquery.args.get("group"):
        raise _refusal("a subquery with GROUP BY after IN")
    if around.arg_key == "expressions" and _groups_by(outer, around):
        raise _refusal("GROUP BY of a subquery's result")


def _groups_by(outer: exp.Expr, item: exp.Expr) -> bool:
    """Return whether a query groups by one of the items that it selects, by name or by number."""
    group = outer.args.get("group")
    if not group:
        return False
    number = str(outer.expressions.index(item) + 1)
    return any(
        (isinstance(key, exp.Column) and not key.table and key.name == item.alias)
        or (isinstance(key, exp.Literal) and key.name == number)
        for key in group.expressions
    )


def _refusal(which: str) -> SqlError:
    return SqlError(
        "This type of correlated subquery pattern is not supported yet", "0A000", f"{which}: use a join"
    )
