"""
What the local Redshift knows of SQL: everything else is refused.

An allow-list, since PostgreSQL accepts much that Redshift does not, and sqlglot reads more than either.
"""

import re

from sqlglot import exp
from sqlglot.dialects.redshift import Redshift
from sqlglot.expressions import DataType

from local.redshift.errors import SqlError, unsupported

Type = DataType.Type


def words_of(text: str) -> frozenset[str]:
    """
    Return the words of a text, as a set.

    :param text: words and white space
    """
    return frozenset(text.split())


# https://docs.aws.amazon.com/redshift/latest/dg/r_pg_keywords.html
RESERVED_WORDS = words_of(
    """
    AES128 AES256 ALL ALLOWOVERWRITE ANALYSE ANALYZE AND ANY ARRAY AS ASC AUTHORIZATION AZ64 BACKUP BETWEEN
    BINARY BLANKSASNULL BOTH BYTEDICT BZIP2 CASE CAST CHECK COLLATE COLUMN CONSTRAINT CREATE CREDENTIALS
    CROSS CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURRENT_USER_ID DEFAULT DEFERRABLE
    DEFLATE DEFRAG DELTA DELTA32K DESC DISABLE DISTINCT DO ELSE EMPTYASNULL ENABLE ENCODE ENCRYPT ENCRYPTION
    END EXCEPT EXPLICIT FALSE FOR FOREIGN FREEZE FROM FULL GLOBALDICT256 GLOBALDICT64K GRANT GROUP GZIP
    HAVING IDENTITY IGNORE ILIKE IN INITIALLY INNER INTERSECT INTERVAL INTO IS ISNULL JOIN LEADING LEFT LIKE
    LIMIT LOCALTIME LOCALTIMESTAMP LUN LUNS LZO LZOP MINUS MOSTLY16 MOSTLY32 MOSTLY8 NATURAL NEW NOT NOTNULL
    NULL NULLS OFF OFFLINE OFFSET OID OLD ON ONLY OPEN OR ORDER OUTER OVERLAPS PARALLEL PARTITION PERCENT
    PERMISSIONS PIVOT PLACING PRIMARY RAW READRATIO RECOVER REFERENCES REJECTLOG RESORT RESPECT RESTORE
    RIGHT SELECT SESSION_USER SIMILAR SNAPSHOT SOME SYSDATE SYSTEM TABLE TAG TDES TEXT255 TEXT32K THEN
    TIMESTAMP TO TOP TRAILING TRUE TRUNCATECOLUMNS UNION UNIQUE UNNEST UNPIVOT USER USING VERBOSE WALLET
    WHEN WHERE WITH WITHOUT
    """
)

# Functions that may be called. Those whose meaning differs are rewritten below or replaced in catalog.sql.
_FUNCTIONS = words_of(
    """
    ABS ADD_MONTHS AVG BTRIM CEIL CEILING CHARINDEX CHR COALESCE CONCAT CONVERT_TIMEZONE COUNT CUME_DIST
    CURRENT_DATABASE CURRENT_SCHEMA CURRENT_SETTING DATEADD DATEDIFF DATE_ADD DATE_DIFF DATE_PART DATE_TRUNC
    DENSE_RANK EXP FIRST_VALUE FLOOR FORMAT_TYPE GETDATE GREATEST HAS_ASSUMEROLE_PRIVILEGE
    HAS_DATABASE_PRIVILEGE HAS_SCHEMA_PRIVILEGE HAS_TABLE_PRIVILEGE
    INITCAP IS_VALID_JSON JSON_EXTRACT_PATH_TEXT LAG LAST_DAY LAST_VALUE LEAD LEAST LEFT LEN LENGTH LISTAGG
    LN LOG LOWER LPAD LTRIM MAX MD5 MEDIAN MIN MOD NTH_VALUE NTILE NULLIF NVL NVL2 OCTET_LENGTH
    PERCENTILE_CONT PERCENTILE_DISC PERCENT_RANK PG_BACKEND_PID PG_GET_EXPR PG_GET_USERBYID
    PG_LAST_COPY_COUNT PG_LAST_COPY_ID PG_TABLE_IS_VISIBLE POWER QUOTE_IDENT QUOTE_LITERAL RANDOM RANK
    RATIO_TO_REPORT REGEXP_COUNT REGEXP_REPLACE REGEXP_SUBSTR REPEAT REPLACE REVERSE RIGHT ROUND ROW_NUMBER
    RPAD RTRIM SHA2 SIGN SPLIT_PART SQRT STDDEV STDDEV_POP STDDEV_SAMP STRPOS SUBSTR SUM TO_CHAR TO_DATE
    TO_NUMBER TO_TIMESTAMP TRANSLATE TRUNC UPPER VARIANCE VAR_POP VAR_SAMP VERSION
    """
)

# https://docs.aws.amazon.com/redshift/latest/dg/c_SQL_functions_leader_node_only.html lists the first four as
# deprecated: they run on the leader node alone, so not in a query over a table.
_HINTS = {
    "CURRENT_TIMESTAMP": "use GETDATE() or SYSDATE",
    "LOCALTIMESTAMP": "use GETDATE() or SYSDATE",
    "CURRENT_TIME": "use GETDATE() or SYSDATE",
    "NOW": "use GETDATE() or SYSDATE",
    "ARRAY_AGG": "use LISTAGG",
    "STRING_AGG": "use LISTAGG",
    "FILTER": "use an aggregate over CASE",
    "ON CONFLICT": "use DELETE … USING and INSERT in one transaction",
    "SERIAL": "use IDENTITY(seed, step)",
    "DISTINCT ON": "use ROW_NUMBER() and QUALIFY",
    "FRAME": "use ROWS",
    "VALUES as a table": "use SELECT … UNION ALL",
    "INTERVAL": "write the units: INTERVAL '1 year 2 months'",
    "COPY": "use COPY … FROM 's3://…'",
    "GROUP": "use a role",
    "CREATE INDEX": "Redshift has no indexes; use SORTKEY",
}


# The kinds of expressions that a statement may consist of, by sqlglot's names …
_EXPRESSIONS = words_of(
    """
    Add Alias AlterRename And Anonymous AtTimeZone BackupProperty Between Boolean ByteString Case Cast
    ColumnConstraint Constraint CurrentDate CurrentSchema CurrentTimestamp CurrentUser DPipe
    DataTypeParam DecodeCase DefaultColumnConstraint DistKeyProperty DistStyleProperty Div Dot EQ
    EncodeColumnConstraint Escape Exists Extract ForeignKey From GT GTE Having ILike Identifier If In
    IndexParameters Interval Is LT LTE Like LikeProperty Limit Literal Mod Mul NEQ Neg Not
    NotNullColumnConstraint Null Offset Or Order Parameter Paren PrimaryKey PrimaryKeyColumnConstraint
    Properties Property Qualify Reference RegexpLike Schema SessionUser SimilarTo SortKeyProperty
    StrPosition Sub Substring TableAlias TemporaryProperty Trim Tuple UniqueColumnConstraint Var Where
    Whens WithinGroup
    """
)
# … and those of which only some parts are known
_PARTS = {
    exp.Select: "with_ expressions distinct from_ joins where group having qualify order limit offset"
    " operation_modifiers",
    exp.Union: "with_ this expression distinct order limit offset",
    exp.Except: "with_ this expression distinct order limit offset",
    exp.Intersect: "with_ this expression distinct order limit offset",
    exp.Subquery: "this alias with_ order limit offset joins",
    exp.With: "expressions recursive",
    exp.CTE: "this alias",
    exp.Values: "expressions alias",
    exp.Column: "this table",
    exp.Table: "this db alias joins",
    exp.Join: "this on side kind using method",
    exp.Group: "expressions",
    exp.Distinct: "expressions",
    exp.Ordered: "this desc nulls_first",
    exp.Window: "this partition_by order spec over",
    exp.WindowSpec: "kind start start_side end end_side",
    exp.Star: "",
    exp.DataType: "this expressions kind",
    exp.Insert: "this expression with_",
    exp.Update: "this expressions from_ where with_",
    exp.Delete: "this using where tables with_",
    exp.Merge: "this using on whens",
    exp.When: "matched then",
    exp.Create: "this kind expression exists properties replace no_schema_binding",
    exp.ColumnDef: "this kind constraints",
    exp.GeneratedAsIdentityColumnConstraint: "this on_null start increment",
    exp.Drop: "kind tables exists cascade restrict",
    exp.Alter: "this kind actions",
    exp.RenameColumn: "this to",
    exp.AlterColumn: "this dtype",
    exp.AlterSortKey: "this expressions compound",
    exp.AlterDistStyle: "this",
}
_ALLOWED: dict[type[exp.Expr], frozenset[str] | None] = {
    **{getattr(exp, name): None for name in _EXPRESSIONS},
    **{kind: words_of(parts) for kind, parts in _PARTS.items()},
}

_TYPES = {
    *(Type.SMALLINT, Type.INT, Type.BIGINT, Type.DECIMAL, Type.FLOAT, Type.DOUBLE, Type.BOOLEAN),
    *(Type.CHAR, Type.NCHAR, Type.BPCHAR, Type.VARCHAR, Type.NVARCHAR, Type.TEXT),
    *(Type.DATE, Type.TIMESTAMP, Type.TIMESTAMPTZ, Type.TIME, Type.TIMETZ, Type.INTERVAL),
}


# "Compute-node only": https://docs.aws.amazon.com/redshift/latest/dg/r_LISTAGG.html and the others' pages
TABLE_FUNCTIONS = words_of("LISTAGG MEDIAN PERCENTILE_CONT PERCENTILE_DISC")

# https://docs.aws.amazon.com/redshift/latest/dg/r_Window_function_synopsis.html
_FRAMED = words_of(
    "AVG COUNT FIRST_VALUE LAST_VALUE MAX MIN NTH_VALUE STDDEV STDDEV_POP STDDEV_SAMP SUM VARIANCE VAR_POP"
    " VAR_SAMP"
)


def check(tree: exp.Expr) -> None:
    """
    Refuse a statement of which not every part is known, and fold its names to lower case.

    :param tree: the statement
    :raises SqlError: 0A000 for what the local Redshift does not know, 42601 for a reserved word as a name
    """
    for node in tree.walk():
        _check(node)


def _check(node: exp.Expr) -> None:
    if type(node) not in _ALLOWED:
        raise refusal(_NODE_NAMES.get(type(node), words(type(node).__name__)))
    parts = _ALLOWED[type(node)]
    if parts is not None:
        for part, value in node.args.items():
            if value and part not in parts:
                raise refusal(
                    _PART_NAMES.get((type(node), part), f"{words(part)} in {words(type(node).__name__)}")
                )
    match node:
        case exp.Identifier():
            _check_identifier(node)
        case exp.Anonymous():
            if node.name.upper() not in _FUNCTIONS:
                raise refusal(f"function {node.name.upper()}", node.name.upper())
        case exp.DataType():
            if node.this not in _TYPES:
                raise refusal(f"type {node.sql(Redshift)}", node.this.value)
        case exp.Create():
            if node.args["kind"] not in ("TABLE", "VIEW", "SCHEMA"):
                raise refusal(f"CREATE {node.args['kind']}")
        case exp.Drop():
            if node.args["kind"] not in ("TABLE", "VIEW", "SCHEMA", "COLUMN"):
                raise refusal(f"DROP {node.args['kind']}")
        case exp.Merge():
            _check_merge(node)
        case exp.Values() if not isinstance(node.parent, exp.Insert):
            raise refusal("VALUES as a table")
        case exp.Select():
            _check_sorted(node)
        case exp.Window():
            _check_window(node)
        case exp.WindowSpec():
            if node.args["kind"].upper() != "ROWS":
                raise refusal(f"a {node.args['kind'].upper()} frame", "FRAME")
        case exp.CurrentTimestamp():
            if not node.args.get("sysdate"):
                raise refusal("CURRENT_TIMESTAMP")
        case exp.Dot():
            if node.this.name.lower() != "pg_catalog":
                raise refusal(f"function {node.sql(Redshift)}")


def _check_sorted(select: exp.Select) -> None:
    # https://docs.aws.amazon.com/redshift/latest/dg/r_MEDIAN.html
    orders = set()
    for node in select.find_all(exp.WithinGroup, exp.Anonymous):
        if node.parent_select is select:
            if isinstance(node, exp.WithinGroup):
                orders.add(node.expression.sql(Redshift, normalize=True))
            elif node.name.upper() == "MEDIAN" and node.expressions:
                order = exp.Order(
                    expressions=[exp.Ordered(this=node.expressions[0].copy(), nulls_first=False)]
                )
                orders.add(order.sql(Redshift, normalize=True))
    if len(orders) > 1:
        raise SqlError("within group ORDER BY clauses for aggregate functions must be the same", "0A000")


def _check_window(window: exp.Window) -> None:
    # https://docs.aws.amazon.com/redshift/latest/dg/r_Window_function_synopsis.html
    function = window.this.this if isinstance(window.this, exp.WithinGroup) else window.this
    if function is not window.this or function.name.upper() == "LISTAGG":
        raise refusal(f"{function.name.upper()} … OVER")
    order = window.args.get("order")
    if order and not window.args.get("spec") and function.name.upper() in _FRAMED:
        message = "Aggregate window functions with an ORDER BY clause require a frame clause"
        raise SqlError(message, "42601", "add ROWS UNBOUNDED PRECEDING")
    if order and any(isinstance(key.this, exp.Literal | exp.Null) for key in order.expressions):
        raise SqlError(
            "Constant expressions are not supported in ORDER BY clauses of window functions", "42601"
        )


def _check_merge(merge: exp.Merge) -> None:
    # https://docs.aws.amazon.com/redshift/latest/dg/r_MERGE.html
    target, source = merge.this, merge.args["using"]
    if target.alias:
        raise SqlError("syntax error: the target of MERGE takes no alias", "42601")
    if not isinstance(source, exp.Table):
        raise refusal("MERGE from a query")
    if (target.name, target.db) == (source.name, source.db):
        raise SqlError("the source of MERGE cannot be its target", "0A000")
    whens = merge.args["whens"].expressions
    if [bool(when.args["matched"]) for when in whens] != [True, False]:
        raise SqlError("syntax error: MERGE takes WHEN MATCHED, then WHEN NOT MATCHED", "42601")
    if not whens[1].args["then"].expression:
        raise unsupported("MERGE with INSERT without columns", "list the columns")


_NODE_NAMES: dict[type[exp.Expr], str] = {
    exp.BitwiseAnd: "operator &",
    exp.BitwiseLeftShift: "operator <<",
    exp.BitwiseNot: "operator ~",
    exp.BitwiseOr: "operator |",
    exp.BitwiseRightShift: "operator >>",
    exp.BitwiseXor: "operator #",
    exp.Cbrt: "operator ||/",
    exp.Pow: "operator ^",
    exp.RawString: "a dollar-quoted string",
    exp.RegexpILike: "operator ~*",
    exp.Sqrt: "operator |/",
}
_PART_NAMES: dict[tuple[type[exp.Expr], str], str] = {
    (exp.DataType, "nested"): "type ARRAY",
    (exp.Column, "join_mark"): "the (+) operator",
    (exp.Distinct, "on"): "DISTINCT ON",
    (exp.Group, "all"): "GROUP BY ALL",
    (exp.Select, "connect"): "CONNECT BY",
    (exp.Star, "except_"): "EXCLUDE",
    (exp.Subquery, "pivots"): "PIVOT",
    (exp.Table, "pivots"): "PIVOT",
    (exp.Table, "sample"): "TABLESAMPLE",
    (exp.CTE, "materialized"): "MATERIALIZED CTE",
    (exp.Insert, "conflict"): "ON CONFLICT",
    (exp.Select, "into"): "SELECT INTO",
    (exp.Insert, "default"): "INSERT … DEFAULT VALUES",
    **dict.fromkeys(((kind, "returning") for kind in (exp.Insert, exp.Update, exp.Delete)), "RETURNING"),
    **dict.fromkeys(((kind, "locks") for kind in (exp.Select, exp.Union)), "FOR UPDATE"),
}


def words(name: str) -> str:
    """
    Return one of sqlglot's names as SQL would write it.

    :param name: of a class, such as ``OnConflict``, or of a part
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).strip().upper()


def refusal(what: str, key: str = "") -> SqlError:
    """
    Return the error for something that is not known, with a hint where there is one.

    :param what: the construct
    :param key: what its hint is filed under, if not under that
    """
    return unsupported(what, _HINTS.get(key or what, ""))


def _check_identifier(name: exp.Identifier) -> None:
    # Both kinds of names are folded: https://docs.aws.amazon.com/redshift/latest/dg/r_names.html
    word = name.this.upper()
    catalogs = word == "OID" and isinstance(name.parent, exp.Column)  # a column of the catalog's tables
    if not name.args.get("quoted") and word in RESERVED_WORDS and not catalogs:
        raise SqlError(
            f'syntax error at or near "{name.this}"', "42601", "it is a reserved word of Redshift: quote it"
        )
    name.set("this", name.this.lower())
