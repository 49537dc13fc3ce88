"""
Redshift's SQL in, PostgreSQL's SQL out.

sqlglot parses and writes the statements; ``allowlist`` says which may pass. Function calls keep the name that
they were written with: the functions that PostgreSQL lacks, or means differently, are in ``catalog.sql``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlglot import exp, transforms
from sqlglot.dialects.postgres import Postgres
from sqlglot.dialects.redshift import Redshift
from sqlglot.errors import ErrorLevel, ParseError, TokenError, UnsupportedError
from sqlglot.expressions import DataType
from sqlglot.parsers.redshift import RedshiftParser
from sqlglot.tokens import Token, TokenType

from local.redshift import blanks, columns, correlation, isolation, privileges, tables
from local.redshift.allowlist import TABLE_FUNCTIONS, check, refusal, words_of
from local.redshift.arguments import cast_arguments
from local.redshift.arithmetic import type_numbers
from local.redshift.errors import SqlError, unsupported
from local.redshift.expression_types import Types

Type = DataType.Type

# https://docs.aws.amazon.com/redshift/latest/dg/r_Dateparts_for_datetime_functions.html
_DATE_PARTS = {
    alias: part
    for part, aliases in {
        "millennium": "millennia mil mils",
        "century": "centuries c cent cents",
        "decade": "decades dec decs",
        "epoch": "",
        "year": "years y yr yrs",
        "quarter": "quarters qtr qtrs",
        "month": "months mon mons",
        "week": "weeks w",
        "dow": "dayofweek dw weekday",
        "doy": "dayofyear dy yearday",
        "day": "days d",
        "hour": "hours h hr hrs",
        "minute": "minutes m min mins",
        "second": "seconds s sec secs",
        "milliseconds": "millisecond ms msec msecs msecond mseconds millisec millisecs millisecon",
        "microseconds": "microsecond us usec usecs usecond useconds microsec microsecs",
        "timezone": "",
        "timezone_hour": "",
        "timezone_minute": "",
    }.items()
    for alias in (part, *aliases.split())
}

# https://docs.aws.amazon.com/redshift/latest/dg/r_interval_data_types.html
_INTERVAL_UNITS = ("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND")

# Settings that clients send and that change nothing here.
_POSTGRES_SETTINGS = frozenset(
    (
        "search_path",
        "statement_timeout",
        "timezone",
        "datestyle",
        "extra_float_digits",
        "application_name",
        "client_encoding",
    )
)
_REDSHIFT_SETTINGS = frozenset(("query_group", "enable_result_cache_for_session", "wlm_query_slot_count"))
_READABLE_SETTINGS = frozenset(
    ("transaction_isolation", "standard_conforming_strings", "server_version", "server_encoding")
)

_TRANSACTION = re.compile(
    r"(?P<verb>BEGIN|START TRANSACTION|COMMIT|END|ROLLBACK|ABORT)(?: WORK| TRANSACTION)?"
    # Redshift takes any level and runs the transaction serializable:
    # https://docs.aws.amazon.com/redshift/latest/dg/r_BEGIN.html
    r"(?: ISOLATION LEVEL (?:SERIALIZABLE|READ COMMITTED|READ UNCOMMITTED|REPEATABLE READ))?"
    r"(?: ?,? ?(?P<access>READ (?:WRITE|ONLY)))?"
)

# https://docs.aws.amazon.com/redshift/latest/dg/r_ALTER_DATABASE.html
_ISOLATION_LEVEL = re.compile(
    r"(?i)ALTER DATABASE (?P<name>\w+) ISOLATION LEVEL (?P<level>SERIALIZABLE|SNAPSHOT)"
)


class CatalogColumn(NamedTuple):
    """A table's column, and the name and modifier of its type, as PostgreSQL's catalog has them."""

    table: str
    name: str
    type_name: str
    type_modifier: int


@dataclass(frozen=True)
class Translation:
    """
    What PostgreSQL is to run for one statement of the client.

    :param sql: the statement, in PostgreSQL's SQL
    :param then: statements to run after it, which the client does not see
    :param reads_journal: the statement reads ``local_statements`` or ``local_connections``
    :param alone: what it does, if Redshift does not do that in a transaction block
    :param tag: what the client is told has run, if not what PostgreSQL says
    :param isolation_level: the level that it gives the database
    """

    sql: str
    then: tuple[str, ...] = ()
    reads_journal: bool = False
    alone: str = ""
    tag: str = ""
    isolation_level: str | None = None


class _Source(Redshift):
    """Redshift as this module reads it: sqlglot's, without its opinion on what each function means."""

    class Tokenizer(Redshift.Tokenizer):
        # sqlglot takes the "$1,$" of "VALUES ($1,$2)" for the tag of a dollar-quoted string
        HEREDOC_STRINGS = []  # noqa: RUF012
        RAW_STRINGS = [("$$", "$$")]  # noqa: RUF012
        COMMANDS = set()  # noqa: RUF012  # whose rest sqlglot leaves unread
        VAR_SINGLE_TOKENS = set()  # noqa: RUF012
        SINGLE_TOKENS = {**Redshift.Tokenizer.SINGLE_TOKENS, "$": TokenType.PARAMETER}  # noqa: RUF012
        # FLOAT is FLOAT8 (https://docs.aws.amazon.com/redshift/latest/dg/r_Numeric_types201.html), not REAL
        KEYWORDS = {**Redshift.Tokenizer.KEYWORDS, "FLOAT": TokenType.DOUBLE}  # noqa: RUF012

    class Parser(RedshiftParser):
        def _parse_interval(self, *_: Any, **__: Any) -> exp.Interval | None:
            # sqlglot reads more than a literal: in INTERVAL '1 day' + '2024-01-01', a sum of two intervals
            if not self._match_pair(TokenType.INTERVAL, TokenType.STRING, advance=False):
                return None
            self._advance(2)
            quantity, unit = exp.Literal.string(self._prev.text), None
            if self._curr and self._curr.text.upper() in _INTERVAL_UNITS:
                unit = self._parse_var(any_token=True, upper=True)
                if self._match_text_seq("TO") or not re.fullmatch(r"[+-]?[\d.]+", quantity.name):
                    raise refusal("INTERVAL with a qualifier", "INTERVAL")
            return self.expression(exp.Interval(this=quantity, unit=unit))

        def _parse_when_matched(self) -> exp.Whens:
            if self._match_text_seq("REMOVE", "DUPLICATES"):
                raise refusal("MERGE … REMOVE DUPLICATES")
            return super()._parse_when_matched()

        FUNCTIONS = {}  # noqa: RUF012
        FUNCTION_PARSERS = {  # noqa: RUF012
            name: RedshiftParser.FUNCTION_PARSERS[name]
            for name in ("CAST", "CONVERT", "DECODE", "EXTRACT", "POSITION", "SUBSTRING", "TRIM")
        }
        NO_PAREN_FUNCTION_PARSERS = {  # noqa: RUF012
            "APPROXIMATE": lambda self: self._parse_function(),
            "CASE": RedshiftParser.NO_PAREN_FUNCTION_PARSERS["CASE"],
            "SYSDATE": RedshiftParser.NO_PAREN_FUNCTION_PARSERS["SYSDATE"],
        }
        CONSTRAINT_PARSERS = {  # noqa: RUF012
            **RedshiftParser.CONSTRAINT_PARSERS,
            "DISTKEY": lambda self: exp.DistKeyProperty(),
            "SORTKEY": lambda self: exp.SortKeyProperty(),
        }
        PROPERTY_PARSERS = {  # noqa: RUF012
            **RedshiftParser.PROPERTY_PARSERS,
            "SORTKEY": lambda self: (
                exp.SortKeyProperty() if self._match_text_seq("AUTO") else self._parse_sortkey()
            ),
        }


def footprint(sql: str) -> isolation.Footprint:
    """
    Return the tables that a statement reads and writes.

    :param sql: one statement, without its semicolon, other than COPY
    :raises SqlError: as ``translate`` does
    """
    return (_footprint.__wrapped__ if _has_password(sql) else _footprint)(sql)


def translate(
    sql: str, catalog: tuple[CatalogColumn, ...] = (), parameters: tuple[int, ...] = ()
) -> Translation:
    """
    Return what PostgreSQL is to run for one Redshift statement other than COPY.

    :param sql: one statement, without its semicolon
    :param catalog: the columns of those tables that ``footprint`` reads and that are there
    :param parameters: oids of the types of the statement's parameters
    :raises SqlError: 42601 when it cannot be read, 0A000 when the local Redshift does not know part of it
    """
    return (_translate.__wrapped__ if _has_password(sql) else _translate)(sql, catalog, parameters)


def _has_password(sql: str) -> bool:
    """Return whether a statement must not stay in memory."""
    return "password" in sql.lower()


@lru_cache(maxsize=4096)
def _footprint(sql: str) -> isolation.Footprint:
    tokens = _tokenize(sql)
    verb = tokens[0].text.upper() if tokens else ""
    if verb == "EXPLAIN":
        return isolation.Footprint(footprint(_after(sql, tokens, "VERBOSE")).reads)
    if (
        verb not in _STATEMENTS
        or privileges.block(sql, tokens, _POSTGRES_SETTINGS)
        or _isolation_level(tokens)
        or _reads_catalog_alone(sql)
    ):
        return isolation.NOTHING
    tree = _parse(sql)
    check(tree)
    return isolation.footprint(tree)


@lru_cache(maxsize=4096)
def _translate(sql: str, catalog: tuple[CatalogColumn, ...], parameters: tuple[int, ...]) -> Translation:
    tokens = _tokenize(sql)
    if not tokens:
        return Translation("")
    block = privileges.block(sql, tokens, _POSTGRES_SETTINGS)
    if block:
        return Translation(block.sql, tag=block.tag)
    verb = tokens[0].text.upper()
    command = _COMMANDS.get(verb)
    if command:
        return command(sql, tokens)
    if verb == "EXPLAIN":
        return Translation(f"EXPLAIN {translate(_after(sql, tokens, 'VERBOSE'), catalog, parameters).sql}")
    if verb not in _STATEMENTS:
        raise refusal(verb)
    if level := _isolation_level(tokens):
        return level
    if _reads_catalog_alone(sql):
        # What psql's \d asks; it takes Redshift's version for a PostgreSQL that still had this column
        return Translation(re.sub(r"\bc\.relhasoids\b", "false", sql))
    tree = _parse(sql)
    if isinstance(tree, exp.Create) and isinstance(tree.expression, exp.Query) and not _has_as(tokens):
        raise SqlError("syntax error: AS must stand before the query that a table is made of", "42601")
    return _translate_tree(tree, catalog, parameters)


def split(sql: str) -> list[str]:
    """
    Return the statements of a script, without semicolons, comments around them and empty statements.

    :param sql: any number of statements
    :raises SqlError: 42601 when a quote or comment does not end
    """
    statements: list[str] = []
    start: int | None = None
    end = 0
    for token in _tokenize(sql):
        if token.token_type is TokenType.SEMICOLON:
            if start is not None:
                statements.append(sql[start:end])
            start = None
        else:
            start, end = token.start if start is None else start, token.end + 1
    if start is not None:
        statements.append(sql[start:end])
    return statements


def relation(name: str) -> str:
    """
    Return a table's name as PostgreSQL must be given it: quoted, lower case.

    :param name: the name as the user wrote it, perhaps with a schema, quotes or a leading ``#``
    :raises SqlError: 42601 when it is no table name
    """
    try:
        table = _DIALECT.parse_into(exp.Table, name)[0] or exp.Table()
    except ParseError as error:
        raise _syntax_error(error) from error
    check(table)
    return _generate(table)


def quoted(name: str) -> str:
    """
    Return an identifier as PostgreSQL must be given it.

    :param name: a column's name, already folded to lower case
    """
    return exp.to_identifier(name, quoted=True).sql(Postgres)


_DIALECT = _Source()


def _tokenize(sql: str) -> list[Token]:
    try:
        return _DIALECT.tokenize(sql)
    except TokenError as error:
        raise SqlError(f"syntax error: {error}: a quote or comment does not end", "42601") from error


def _parse(sql: str) -> exp.Expr:
    tokens = _tokenize(sql)
    verb = tokens[0].text.upper()
    if verb in ("CREATE", "DROP", "ALTER"):
        _check_object(verb, tokens)
    try:
        (tree,) = _DIALECT.parse(sql)
    except ParseError as error:
        raise _syntax_error(error) from error
    if tree is None or isinstance(tree, exp.Command):
        raise unsupported(" ".join(sql.split()[:3]))
    if isinstance(tree, exp.Delete) and tree.args.get("tables"):  # DELETE t: FROM is optional in Redshift
        tree.set("this", tree.args["tables"][0])
        tree.set("tables", None)
    return tree


def _reads_catalog_alone(sql: str) -> bool:
    """Return whether a statement is a query of PostgreSQL's catalog, named as the schema of all it uses."""
    if "pg_catalog." not in sql:
        return False
    try:
        (tree,) = _DIALECT.parse(sql.replace("::pg_catalog.", "::"))  # sqlglot knows no schemas of types
    except ParseError:
        return False
    relations = list(tree.find_all(exp.Table)) if tree else []
    schemas = [relation.db for relation in relations]
    schemas += [call.this.name for call in tree.find_all(exp.Dot)] if tree else []
    catalog = all(schema.lower() == "pg_catalog" for schema in schemas)
    return isinstance(tree, exp.Query) and bool(relations) and catalog


def _check_object(verb: str, tokens: list[Token]) -> None:
    """Refuse kinds of objects that are not known, before sqlglot fails to read what is said of them."""
    words = [token.text.upper() for token in tokens[1:]]
    while words and words[0] in ("OR", "REPLACE", "TEMP", "TEMPORARY", "LOCAL"):
        words.pop(0)
    kind = words[: 2 if words[:1] and words[0] in ("DEFAULT", "EXTERNAL", "MATERIALIZED", "UNIQUE") else 1]
    if kind not in (["TABLE"], ["VIEW"], ["SCHEMA"]):
        raise refusal(" ".join((verb, *kind)))


def _has_as(tokens: list[Token]) -> bool:
    """Return whether AS stands outside of parentheses; sqlglot does not ask for it in CREATE TABLE."""
    depth = 0
    for token in tokens:
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        if token.token_type is TokenType.ALIAS and not depth:
            return True
    return False


def _syntax_error(error: ParseError) -> SqlError:
    first = error.errors[0]
    where = f'at or near "{first["highlight"]}", line {first["line"]}, column {first["col"]}'
    return SqlError(f"syntax error {where}: {first['description'].partition(' but got <')[0]}", "42601")


def _generate(tree: exp.Expr) -> str:
    try:
        return tree.sql(Postgres, identify=True, unsupported_level=ErrorLevel.RAISE, comments=False)
    except UnsupportedError as error:
        raise unsupported(str(error)) from error


def _translate_tree(
    tree: exp.Expr, catalog: tuple[CatalogColumn, ...], parameters: tuple[int, ...]
) -> Translation:
    journal = any(
        t.name.lower() in ("local_statements", "local_connections") for t in tree.find_all(exp.Table)
    )
    then: tuple[str, ...] = ()
    check(tree)
    calls = (call.name.upper() for call in tree.find_all(exp.Anonymous))
    if not columns.tables(tree) and not TABLE_FUNCTIONS.isdisjoint(calls):
        message = "One or more of the used functions must be applied on at least one user created tables"
        raise SqlError(message, "0A000", f"such functions are {', '.join(sorted(TABLE_FUNCTIONS))}")
    known: dict[str, dict[str, exp.DataType]] = {}
    for table, name, type_name, modifier in catalog:
        known.setdefault(table, {})[name] = columns.catalog_type(type_name, modifier)
    columns.name_items(tree)
    columns.inline_aliases(tree, columns.Columns(known))
    names = columns.Columns(known)
    correlation.check(tree, names)
    types = Types(names, [columns.parameter_type(number) for number in parameters])
    for select in tree.find_all(exp.Select):
        if select.args.get("qualify"):  # adds to the list what it filters by
            columns.expand_stars(select, names)
    if names.know(tree):
        type_numbers(tree, types, names)
    cast_arguments(tree, types)
    blanks.ignore(tree)
    tree = _rewritten(tree)
    if isinstance(tree, exp.Create):
        then = tables.create(tree)
    elif isinstance(tree, exp.Alter):
        then = tables.alter(tree)
    alone = "ALTER TABLE ALTER COLUMN" if tree.find(exp.AlterColumn) else ""
    return Translation(_generate(tree), then, journal, alone)


def _rewritten(tree: exp.Expr) -> exp.Expr:
    for node in reversed(list(tree.walk())):  # the parts of an expression before itself
        rewrite = _REWRITES.get(type(node))
        replacement = rewrite(node) if rewrite else node
        if replacement is not node:
            if node is tree:
                tree = replacement
            else:
                node.replace(replacement)
    return tree


def _call(name: str, *arguments: exp.Expr) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _local(name: str, *arguments: exp.Expr) -> exp.Dot:
    """Return a call of a function of catalog.sql that stands in for PostgreSQL's of the same name."""
    return exp.Dot(this=exp.to_identifier("rs_catalog"), expression=_call(name, *arguments))


def _date_part(unit: exp.Expr) -> exp.Expr:
    """Return the full name of a date part, written bare or as a string."""
    part = _DATE_PARTS.get(unit.name.lower())
    if part is None:
        raise SqlError(f'date part "{unit.name}" is not known', "22023")
    return exp.Literal.string(part)


# Functions of catalog.sql that have the names of PostgreSQL's
_LOCAL_FUNCTIONS = words_of("AVG CHR MEDIAN QUOTE_LITERAL REGEXP_COUNT REGEXP_REPLACE REGEXP_SUBSTR VERSION")


def _function(node: exp.Anonymous) -> exp.Expr:
    name, arguments = node.name.upper(), node.expressions
    match name, arguments:
        case "NVL", _:
            return _call("COALESCE", *arguments)
        case "NVL2", [value, present, absent]:
            return exp.Case(ifs=[exp.If(this=value.is_(exp.null()).not_(), true=present)], default=absent)
        case "LEN", _:
            return _call("LENGTH", *arguments)
        case "CONCAT", [left, right]:  # NULL if either is; PostgreSQL's CONCAT skips NULLs
            return exp.Paren(this=exp.DPipe(this=left, expression=right))
        case "CONCAT", _:
            raise SqlError(f"CONCAT takes two arguments, not {len(arguments)}", "42883", "use ||")
        case (("DATEADD" | "DATE_ADD"), [unit, amount, value]):
            return _local("dateadd", _date_part(unit), amount, value)
        case (("DATEDIFF" | "DATE_DIFF"), [unit, start, end]):
            return _local("datediff", _date_part(unit), start, end)
        case "DATE_PART", [unit, value]:
            part = _date_part(unit)
            if part.name in ("milliseconds", "microseconds"):
                # "The complete seconds portion of the time stamp, regardless of the specified datepart":
                # https://docs.aws.amazon.com/redshift/latest/dg/r_Dateparts_for_datetime_functions.html
                raise unsupported(f"DATE_PART of {part.name}", "use EXTRACT")
            return _local("date_part", part, value)
        case (("TO_DATE" | "TO_TIMESTAMP"), [value, pattern, exp.Boolean()]):
            # Strict or not, what is out of range is an error here
            return _call(name, value, pattern)
        case "JSON_EXTRACT_PATH_TEXT", [value, *path, exp.Boolean() as null_if_invalid]:
            if null_if_invalid.this:
                value = _local("valid_json", value)
            return _call(name, value, *path)
        case "DATE_TRUNC", [unit, value]:
            return _call("DATE_TRUNC", _date_part(unit), value)
        case "LISTAGG", _ if not isinstance(node.parent, exp.WithinGroup):
            return _listagg(arguments, [])
        case "SPLIT_PART", [value, delimiter, part]:  # which PostgreSQL also counts from the end
            return _call(name, value, delimiter, _call("GREATEST", part, exp.Literal.number(0)))
        case _ if name in _LOCAL_FUNCTIONS:
            return _local(name.lower(), *arguments)
    return node


def _listagg(arguments: list[exp.Expr], order: list[exp.Expr]) -> exp.Expr:
    distinct = isinstance(arguments[0], exp.Distinct)
    value, *separator = arguments[0].expressions if distinct else arguments
    elements = exp.Distinct(expressions=[value]) if distinct else value
    ordered = exp.Order(this=elements, expressions=order) if order else elements
    return _local("listagg", _call("ARRAY_AGG", ordered), *(separator or [exp.Literal.string("")]))


def _within_group(node: exp.WithinGroup) -> exp.Expr:
    if node.this.name.upper() == "LISTAGG":
        return _listagg(node.this.expressions, node.expression.expressions)
    return node


def _window(node: exp.Window) -> exp.Expr:
    if not (isinstance(node.this, exp.Anonymous) and node.this.name.upper() == "RATIO_TO_REPORT"):
        return node
    (value,) = node.this.expressions
    total = node.copy()
    total.set("this", _call("SUM", value.copy()))
    return exp.Div(
        this=exp.cast(value, Type.DOUBLE), expression=_call("NULLIF", total, exp.Literal.number(0))
    )


def _extract(node: exp.Extract) -> exp.Expr:
    # An integer, unlike PostgreSQL's: https://docs.aws.amazon.com/redshift/latest/dg/r_EXTRACT_function.html
    part = _date_part(node.this)
    if part.name == "epoch":
        return exp.cast(_call("TRUNC", _local("date_part", part, node.expression)), Type.BIGINT)
    return _local("extract", part, node.expression)


def _dot(node: exp.Dot) -> exp.Expr:
    return node.expression if node.this.name == "pg_catalog" else node


def _table(node: exp.Table) -> exp.Expr:
    # Keys are recorded, not enforced, so PostgreSQL's own views do not know them
    if node.db.lower() == "information_schema" and node.name.lower() in _KEY_VIEWS:
        node.set("db", exp.to_identifier("rs_catalog"))
    return node


def _expression_type(node: exp.DataType) -> exp.Expr:
    return node if isinstance(node.parent, exp.ColumnDef) else tables.sized_type(node, in_column=False)


def _cast(node: exp.Cast) -> exp.Expr:
    if node.to.this in (Type.CHAR, Type.VARCHAR) and node.to.expressions:
        text = exp.cast(node.this, Type.VARCHAR)
        node.set("this", _local("first_bytes", text, node.to.expressions[0].this.copy()))
    return node


def _without_qualify(select: exp.Select) -> exp.Expr:
    if not select.args.get("qualify"):
        return select
    # https://docs.aws.amazon.com/redshift/latest/dg/r_QUALIFY_clause.html
    before = [select.args["from_"].this, *(join.this for join in select.args.get("joins") or [])][-1]
    if not before.alias and not any(select.args.get(part) for part in ("where", "group", "having")):
        raise SqlError("syntax error: QUALIFY right after FROM needs an alias of the relation", "42601")
    # QUALIFY filters before DISTINCT and LIMIT, so these go to the query around
    parts = ("distinct", "order", "limit", "offset") if select.args.get("distinct") else ("limit", "offset")
    later = {part: select.args.pop(part, None) for part in parts}
    outer = transforms.eliminate_qualify(select)
    for part, value in later.items():
        outer.set(part, value)
    return outer


_KEY_VIEWS = ("key_column_usage", "table_constraints")
_REWRITES: dict[type[exp.Expr], Callable[[Any], exp.Expr]] = {
    exp.Anonymous: _function,
    exp.Cast: _cast,
    exp.WithinGroup: _within_group,
    exp.Window: _window,
    exp.Extract: _extract,
    exp.Dot: _dot,
    exp.CurrentTimestamp: lambda node: _call("SYSDATE"),
    exp.DataType: _expression_type,
    exp.Table: _table,
    exp.Select: _without_qualify,
}


def _transaction(sql: str, tokens: list[Token]) -> Translation:
    match = _TRANSACTION.fullmatch(" ".join(token.text.upper() for token in tokens))
    if not match:
        raise unsupported(sql)
    return Translation(" ".join(filter(None, (match["verb"], match["access"]))))


def _isolation_level(tokens: list[Token]) -> Translation | None:
    match = _ISOLATION_LEVEL.fullmatch(" ".join(token.text for token in tokens))
    if not match:
        return None
    level = isolation.SNAPSHOT if match["level"].upper() == "SNAPSHOT" else isolation.SERIALIZABLE
    value = exp.Literal.string(level).sql(Postgres)
    alter = f"ALTER DATABASE {quoted(match['name'].lower())} SET redshift.isolation_level = {value}"
    return Translation(alter, alone="ALTER DATABASE ISOLATION LEVEL", isolation_level=level)


def _setting(sql: str, tokens: list[Token]) -> Translation:
    words = [token.text.lower() for token in tokens]
    verb, rest = words[0], words[2:] if words[1:2] == ["session"] and words[0] == "set" else words[1:]
    if verb == "set" and rest[:2] == ["time", "zone"]:
        raise unsupported("SET TIME ZONE", "use SET timezone TO …")
    if (verb, rest) == ("show", ["transaction", "isolation", "level"]):  # asked by SQLAlchemy as it connects
        return Translation(sql)
    name = rest[0] if rest else ""
    if (verb, name) == ("reset", "all"):
        return Translation("RESET ALL")
    known = _POSTGRES_SETTINGS | (_READABLE_SETTINGS if verb == "show" else frozenset())
    if name in known:
        return Translation(sql)
    if name in _REDSHIFT_SETTINGS:
        return Translation(re.sub(name, f"redshift.{name}", sql, count=1, flags=re.IGNORECASE))
    raise unsupported(f"{verb.upper()} {name}".strip())


def _vacuum(sql: str, tokens: list[Token]) -> Translation:
    # https://docs.aws.amazon.com/redshift/latest/dg/r_VACUUM_command.html: PostgreSQL has no such kinds
    match = re.fullmatch(
        r"(?is)VACUUM(?:\s+(?:FULL|SORT\s+ONLY|DELETE\s+ONLY|REINDEX|RECLUSTER)\b)?(?P<table>.*?)"
        r"(?:\s+TO\s+\d+\s+PERCENT)?(?:\s+BOOST)?",
        sql,
    )
    table = match["table"].strip() if match else ""
    return Translation(f"VACUUM {relation(table)}" if table else "VACUUM")


def _analyze(sql: str, tokens: list[Token]) -> Translation:
    if any(token.text.upper() == "COMPRESSION" for token in tokens):
        raise unsupported("ANALYZE COMPRESSION")
    # Which columns are analyzed does not matter here
    table = re.sub(r"(?is)(\(.*\)|\s(PREDICATE|ALL)\s+COLUMNS)\s*$", "", _after(sql, tokens, "VERBOSE"))
    return Translation(f"ANALYZE {relation(table)}" if table else "ANALYZE")


def _lock(sql: str, tokens: list[Token]) -> Translation:
    tables = ", ".join(relation(name) for name in _after(sql, tokens, "TABLE").split(","))
    return Translation(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")


def _truncate(sql: str, tokens: list[Token]) -> Translation:
    # It commits the transaction that it is in: https://docs.aws.amazon.com/redshift/latest/dg/r_TRUNCATE.html
    return Translation(f"TRUNCATE TABLE {relation(_after(sql, tokens, 'TABLE'))}", then=("COMMIT",))


def _deallocate(sql: str, tokens: list[Token]) -> Translation:
    if not re.fullmatch(r'(?is)DEALLOCATE(\s+PREPARE)?\s+(\w+|"[^"]+")', sql):
        raise unsupported(sql)
    return Translation(sql)


def _after(sql: str, tokens: list[Token], noise: str) -> str:
    """Return what follows a statement's verb and, if it is there, a word that adds nothing."""
    skip = 2 if len(tokens) > 1 and tokens[1].text.upper() == noise else 1
    return sql[tokens[skip].start :] if len(tokens) > skip else ""


_COMMANDS: dict[str, Callable[[str, list[Token]], Translation]] = {
    **dict.fromkeys(("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT"), _transaction),
    **dict.fromkeys(("SET", "RESET", "SHOW"), _setting),
    "TRUNCATE": _truncate,
    "VACUUM": _vacuum,
    **dict.fromkeys(("ANALYZE", "ANALYSE"), _analyze),
    "LOCK": _lock,
    "DEALLOCATE": _deallocate,
}
_STATEMENTS = ("SELECT", "WITH", "(", "INSERT", "UPDATE", "DELETE", "MERGE", "CREATE", "DROP", "ALTER")
