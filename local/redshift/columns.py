"""
What the names in a statement mean: which relation a column belongs to, and what it was made of there.

What tables have is known from PostgreSQL's catalog; what queries have follows from their SELECT lists.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.expressions import DataType, DType

# The columns of tables and their types, by the names that table_name returns
Catalog = Mapping[str, Mapping[str, DataType]]
# What makes a column: its type in the catalog, or expressions of SELECT lists, one of each query of a UNION
Source = tuple[exp.Expr, ...]

_BLOCKS = (exp.Select, exp.Update, exp.Delete, exp.Merge)

# PostgreSQL's numbers of the types that clients give to parameters
_PARAMETER_TYPES = {
    **{16: "bool", 20: "int8", 21: "int2", 23: "int4", 700: "float4", 701: "float8", 1700: "numeric"},
    **{1042: "bpchar", 1043: "varchar", 1082: "date", 1083: "time", 1114: "timestamp", 1184: "timestamptz"},
}
# PostgreSQL's names of types that expressions can have here
_TYPES = {
    "int2": DType.SMALLINT,
    "int4": DType.INT,
    "int8": DType.BIGINT,
    "float4": DType.FLOAT,
    "float8": DType.DOUBLE,
    "bool": DType.BOOLEAN,
    "bpchar": DType.CHAR,
    "varchar": DType.VARCHAR,
    "text": DType.VARCHAR,
    "name": DType.VARCHAR,
    "date": DType.DATE,
    "time": DType.TIME,
    "timetz": DType.TIMETZ,
    "timestamp": DType.TIMESTAMP,
    "timestamptz": DType.TIMESTAMPTZ,
    "interval": DType.INTERVAL,
}


def decimal(precision: int, scale: int) -> DataType:
    """
    Return the type DECIMAL.

    :param precision: how many digits
    :param scale: how many of them after the point
    """
    digits = (exp.DataTypeParam(this=exp.Literal.number(number)) for number in (precision, scale))
    return exp.DataType(this=DType.DECIMAL, expressions=list(digits), nested=False)


@lru_cache(maxsize=1024)
def catalog_type(name: str, modifier: int) -> DataType:
    """
    Return the type of a table's column.

    :param name: the type's name in pg_type
    :param modifier: the column's atttypmod
    """
    if name == "numeric" and modifier > 0:
        return decimal((modifier - 4) >> 16, (modifier - 4) & 65535)
    return exp.DataType(this=_TYPES.get(name, DType.UNKNOWN), nested=False)


def parameter_type(number: int) -> DataType | None:
    """
    Return the type that a client gives to a parameter, None if it leaves that open.

    :param number: the type's oid
    """
    name = _PARAMETER_TYPES.get(number)
    return catalog_type(name, -1) if name else None


def table_name(table: exp.Table) -> str:
    """
    Return a table's name without its alias, as PostgreSQL must be given it.

    :param table: names in lower case
    """
    return exp.Table(this=table.this.copy(), db=table.args.get("db")).sql(Postgres, identify=True)


def blocks_around(node: exp.Expr) -> Iterator[exp.Expr]:
    """
    Yield the queries that a node is part of, from the inside out.

    :param node: what is looked for
    """
    while node.parent:
        node = node.parent
        if isinstance(node, _BLOCKS):
            yield node


def relations(block: exp.Expr) -> dict[str, exp.Expr]:
    """
    Return what a query reads, by the names that it gives to it.

    :param block: a SELECT, UPDATE, DELETE or MERGE
    """
    using = block.args.get("using") or []
    clauses = [block.args.get("from_"), *(block.args.get("joins") or [])]
    read = [block.this, *(clause.this for clause in clauses if clause)]
    read += using if isinstance(using, list) else [using]
    found: dict[str, exp.Expr] = {}
    while read:
        relation = read.pop(0)
        if isinstance(relation, exp.Table | exp.Subquery):
            if isinstance(relation.this, exp.Table):  # (a JOIN b)
                read.insert(0, relation.this)
            else:
                found[relation.alias_or_name] = relation
            read += [join.this for join in relation.args.get("joins") or []]
    return found


def tables(tree: exp.Expr) -> set[str]:
    """
    Return the names of the tables that a statement reads.

    :param tree: the statement, names in lower case
    """
    read = (relation for block in tree.find_all(*_BLOCKS) for relation in relations(block).values())
    return {table_name(each) for each in read if isinstance(each, exp.Table) and _cte(each) is None}


class Columns:
    """
    The columns that a statement can name.

    :param catalog: of the tables that it names
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._of: dict[int, tuple[exp.Expr, dict[str, Source] | None]] = {}

    def sources(self, column: exp.Column) -> Source | None:
        """
        Return what makes a column, None if that is not known.

        :param column: part of a statement whose names are in lower case
        """
        block = self.block(column)
        if block is None:
            return None
        for name, relation in relations(block).items():
            if column.table in ("", name):
                found = (self.of(relation) or {}).get(column.name)
                if found:
                    return found
        return None

    def block(self, column: exp.Column) -> exp.Expr | None:
        """
        Return the query one of whose relations has a column, None if that is not known.

        :param column: part of a statement whose names are in lower case
        """
        for block in blocks_around(column):
            if column.table:
                if column.table in relations(block):
                    return block
            elif any(column.name in (self.of(each) or {}) for each in relations(block).values()):
                return block
            elif column.name in _aliases_for(column, block):
                return None
        return None

    def know(self, tree: exp.Expr) -> bool:
        """
        Return whether the catalog has all tables that a statement reads.

        :param tree: the statement
        """
        return tables(tree) <= self._catalog.keys()

    def of(self, relation: exp.Expr) -> dict[str, Source] | None:
        """
        Return what makes the columns of something that a query reads, None if that is not known.

        :param relation: a table, a common table expression's name, or a query in parentheses
        """
        if id(relation) not in self._of:
            columns = _renamed(self._columns(relation), relation)
            self._of[id(relation)] = relation, None if columns is None else dict(columns)
        return self._of[id(relation)][1]

    def _columns(self, relation: exp.Expr) -> list[tuple[str, Source]] | None:
        if isinstance(relation, exp.Subquery):
            return self.selected(relation.this)
        assert isinstance(relation, exp.Table)
        cte = _cte(relation)
        if cte:
            return _renamed(self.selected(cte.this), cte)
        columns = self._catalog.get(table_name(relation))
        return None if columns is None else [(name, (kind,)) for name, kind in columns.items()]

    def selected(self, query: exp.Expr) -> list[tuple[str, Source]] | None:
        """
        Return the names of what a query returns, and what makes it, None if that is not known.

        :param query: a SELECT, or several with UNION
        """
        if isinstance(query, exp.SetOperation):
            left, right = self.selected(query.this), self._selected_unless_recursive(query.expression)
            if left is None or right is None:
                return left
            return [(name, (*a, *b)) for (name, a), (_, b) in zip(left, right, strict=False)]
        if isinstance(query, exp.Subquery):
            return self.selected(query.this)
        columns: list[tuple[str, Source]] = []
        for item in query.expressions:
            if item.is_star:
                read = self.all(query, item)
                if read is None:
                    return None
                columns += [(column, source) for _, column, source in read]
            else:
                columns.append((item.output_name, (item.unalias(),)))
        return columns

    def all(self, select: exp.Expr, star: exp.Expr) -> list[tuple[str, str, Source]] | None:
        """
        Return the columns that a star stands for: the relation's name, the column's, and what makes it.

        :param select: the query whose item it is
        :param star: ``*`` or ``t.*``
        """
        found: list[tuple[str, str, Source]] = []
        for name, relation in relations(select).items():
            if isinstance(star, exp.Star) or (isinstance(star, exp.Column) and star.table == name):
                columns = self.of(relation)
                if columns is None:
                    return None
                found += [(name, column, source) for column, source in columns.items()]
        joins = select.args.get("joins") or []
        merged = list(dict.fromkeys(key.name for join in joins for key in join.args.get("using") or []))
        if not merged or not isinstance(star, exp.Star):
            return found
        # The columns of USING come first, and once
        first = {
            column: (name, column, source) for name, column, source in reversed(found) if column in merged
        }
        return [
            *(first[key] for key in merged if key in first),
            *(each for each in found if each[1] not in merged),
        ]

    def _selected_unless_recursive(self, query: exp.Expr) -> list[tuple[str, Source]] | None:
        """Return what a query returns, None if it reads the common table expression that it is part of."""
        around = query.find_ancestor(exp.CTE)
        if around and any(_cte(table) is around for table in query.find_all(exp.Table)):
            return None
        return self.selected(query)


def _cte(table: exp.Expr) -> exp.CTE | None:
    """Return the common table expression that a table's name means, if it means one."""
    if not isinstance(table, exp.Table) or table.db:
        return None
    around: list[exp.Expr] = [table]
    while around[-1].parent:
        around.append(around[-1].parent)
        with_ = around[-1].args.get("with_") or exp.With(expressions=[])
        for cte in with_.expressions:
            within = any(node is cte for node in around)
            if cte.alias == table.name and (not within or with_.recursive):
                return cte
            if within:  # it does not know those that follow
                break
    return None


def _renamed(columns: list[tuple[str, Source]] | None, relation: exp.Expr) -> list[tuple[str, Source]] | None:
    """Return columns by the names that an alias with a list of names gives them."""
    alias = relation.args.get("alias")
    if columns is None or not isinstance(alias, exp.TableAlias) or not alias.columns:
        return columns
    names = [name.name for name in alias.columns]
    return [(names[i] if i < len(names) else name, source) for i, (name, source) in enumerate(columns)]


def _aliases_for(column: exp.Column, block: exp.Expr) -> set[str]:
    """Return the names of a SELECT list that a column may mean where it stands: in GROUP BY or ORDER BY."""
    if not isinstance(block, exp.Select):
        return set()
    around: exp.Expr = column
    while around.parent is not block:
        assert around.parent
        around = around.parent
    return {item.alias for item in block.expressions} if around.arg_key in ("group", "order") else set()


def selects(query: exp.Expr) -> Iterator[exp.Select]:
    """
    Yield the SELECTs that make the rows of a query.

    :param query: a SELECT, or several with UNION, EXCEPT or INTERSECT
    """
    query = query.unnest()
    if isinstance(query, exp.SetOperation):
        yield from selects(query.this)
        yield from selects(query.expression)
    elif isinstance(query, exp.Select):
        yield query


def expand_stars(select: exp.Select, columns: Columns) -> None:
    """
    Replace the stars of a SELECT list by the columns that they stand for, where these are known.

    :param select: the query, changed in place
    :param columns: what the statement's names mean
    """
    for item in [item for item in select.expressions if item.is_star]:
        named = columns.all(select, item)
        if named:
            item.replace([exp.column(column, table=name, quoted=True) for name, column, _ in named])


# https://docs.aws.amazon.com/redshift/latest/dg/r_DATEADD_function.html and the pages of the other functions
_NAMES = {
    "DATEADD": "date_add",
    "DATEDIFF": "date_diff",
    "DATE_PART": "pgdate_part",
    "LOG": "dlog10",
    "NVL": "coalesce",
    "NVL2": "case",
}
_NAMES_OF_KINDS: dict[type[exp.Expr], str] = {
    exp.Case: "case",
    exp.DecodeCase: "case",
    exp.Exists: "exists",
    exp.Extract: "date_part",
    exp.StrPosition: "position",
    exp.Substring: "substring",
    exp.Trim: "btrim",
}


def name_items(tree: exp.Expr) -> None:
    """
    Give the expressions of SELECT lists that have no name the one that Redshift gives them.

    :param tree: the statement, changed in place
    """
    for select in tree.find_all(exp.Select):
        for item in list(select.expressions):
            value = item
            while isinstance(value, exp.Window | exp.WithinGroup):
                value = value.this
            if isinstance(value, exp.Anonymous):
                name = _NAMES.get(value.name.upper(), value.name.lower())
            elif isinstance(value, exp.Binary | exp.Unary | exp.Literal):
                name = "?column?"
            elif type(value) in _NAMES_OF_KINDS:
                name = _NAMES_OF_KINDS[type(value)]
            else:
                continue
            item.replace(exp.alias_(item.copy(), name, quoted=True, copy=False))


def inline_aliases(tree: exp.Expr, columns: Columns) -> None:
    """
    Replace the names of a SELECT list that stand for earlier items of the same list by these.

    A column of what the query reads comes first:
    https://docs.aws.amazon.com/redshift/latest/dg/r_SELECT_list.html

    :param tree: the statement, changed in place
    :param columns: what its names mean
    """
    for select in tree.find_all(exp.Select):
        read = [columns.of(relation) for relation in relations(select).values()]
        aliases: dict[str, exp.Expr] = {}
        for position, item in enumerate(select.expressions):
            for column in list(item.find_all(exp.Column)):
                if column.table or column.name not in aliases or column.parent_select is not select:
                    continue
                if any(each is None or column.name in each for each in read):
                    continue
                inlined = exp.Paren(this=aliases[column.name].copy())
                if column is item:
                    item = exp.alias_(inlined, column.name, quoted=True)
                    select.expressions[position].replace(item)
                else:
                    column.replace(inlined)
            if isinstance(item, exp.Alias):
                aliases[item.alias] = item.this
