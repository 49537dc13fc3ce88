from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

import psycopg
import pytest

from local.redshift import dialect
from local.redshift.errors import SqlError

# Examples of AWS's documentation, or what it says in words: docs.aws.amazon.com/redshift/latest/dg/<page>
EXPRESSIONS: list[tuple[str, str, Any]] = [
    ("r_DATEADD_function", "DATEADD(month, 18, '2008-02-28')", datetime(2009, 8, 28)),
    ("r_DATEADD_function", "DATEADD(day, -1, DATE '2024-03-01')", datetime(2024, 2, 29)),
    ("r_DATEADD_function", "DATEADD(m, 18, TIMESTAMP '2008-02-28')", datetime(2008, 2, 28, 0, 18)),
    ("r_DATEADD_function", "DATEADD(month, 1, '2008-04-30')", datetime(2008, 5, 30)),
    ("r_ADD_MONTHS", "ADD_MONTHS('2008-03-31', 1)", datetime(2008, 4, 30)),
    ("r_ADD_MONTHS", "ADD_MONTHS('2008-04-30', 1)", datetime(2008, 5, 31)),
    ("r_ADD_MONTHS", "ADD_MONTHS('2008-01-01 05:07:30', 1)", datetime(2008, 2, 1, 5, 7, 30)),
    ("r_DATEDIFF_function", "DATEDIFF(qtr, '1998-07-01', '2008-12-31')", 41),
    ("r_DATEDIFF_function", "DATEDIFF(year, '2008-12-31', '2009-01-01')", 1),
    ("r_DATEDIFF_function", "DATEDIFF(week, '2009-01-01', '2009-12-31')", 52),
    ("r_DATEDIFF_function", "DATEDIFF(day, '2024-01-01 23:59:59', '2024-01-02 00:00:00')", 1),
    ("r_DATEDIFF_function", "DATEDIFF(hour, '2024-01-01 00:59:59', '2024-01-01 01:00:00')", 1),
    ("r_DATEDIFF_function", "DATEDIFF(month, '2024-03-01', '2024-01-31')", -2),
    ("r_DATE_PART_function", "DATE_PART(dow, TIMESTAMP '2024-01-07')", 0.0),
    ("r_DATE_PART_function", "DATE_PART('minute', TIMESTAMP '2023-01-04 04:05:06.789')", 5.0),
    ("r_EXTRACT_function", "EXTRACT(ms FROM TIMESTAMP '2009-09-09 12:08:43.101')", 101),
    ("r_EXTRACT_function", "EXTRACT(minute FROM TIMESTAMP '2009-09-09 12:08:43')", 8),
    ("r_EXTRACT_function", "EXTRACT(dayofweek FROM DATE '2024-01-06')", 6),
    ("r_EXTRACT_function", "EXTRACT(week FROM DATE '2021-01-03')", 53),
    ("r_EXTRACT_function", "EXTRACT(epoch FROM TIMESTAMP '2018-11-01 20:57:10.796')", 1541105830),
    ("r_DATE_TRUNC", "DATE_TRUNC('month', DATE '2008-09-17')", datetime(2008, 9, 1)),
    ("r_DATE_TRUNC", "DATE_TRUNC('week', TIMESTAMP '2024-01-07 10:00:00')", datetime(2024, 1, 1)),
    ("r_TRUNC_date", "TRUNC(TIMESTAMP '2011-07-21 10:32:38.248109')", date(2011, 7, 21)),
    ("r_LAST_DAY", "LAST_DAY('2024-02-10')", date(2024, 2, 29)),
    ("CONVERT_TIMEZONE", "CONVERT_TIMEZONE('EST', '2008-08-21 07:23:54')", datetime(2008, 8, 21, 2, 23, 54)),
    (
        "CONVERT_TIMEZONE",
        "CONVERT_TIMEZONE('PST8PDT', 'America/New_York', TIMESTAMP '2024-07-01 00:00:00')",
        datetime(2024, 7, 1, 3),
    ),
    (
        "r_TO_CHAR",
        "TO_CHAR(TIMESTAMP '2009-12-31 23:15:59', 'MONTH-DY-DD-YYYY HH12:MIPM')",
        "DECEMBER -THU-31-2009 11:15PM",
    ),
    ("r_TO_DATE_function", "TO_DATE('02 Oct 2001', 'DD Mon YYYY')", date(2001, 10, 2)),
    (
        "r_interval_literals",
        "TIMESTAMP 'epoch' + 1541105830.796 * INTERVAL '1 second'",
        datetime(2018, 11, 1, 20, 57, 10, 796000),
    ),
    ("r_NVL_function", "NVL(NULL, NULL, 3)", 3),
    ("r_NVL2", "NVL2(NULL, 'yes', 'no')", "no"),
    ("r_DECODE_expression", "DECODE(NULL, NULL, 'same', 'other')", "same"),
    ("r_DECODE_expression", "DECODE(2, 1, 'one', 2, 'two')", "two"),
    ("r_CONCAT", "CONCAT('December 25, ', '2008')", "December 25, 2008"),
    ("r_CONCAT", "CONCAT('a', NULL)", None),
    ("r_LEN", "LEN('français')", 8),
    ("r_LEN", "LEN('abc  '::CHAR(5))", 3),
    ("r_OCTET_LENGTH", "OCTET_LENGTH('français')", 9),
    ("r_CHARINDEX", "CHARINDEX('fish', 'dogfish')", 4),
    ("r_POSITION", "POSITION('fish' IN 'dogfish')", 4),
    ("r_STRPOS", "STRPOS('dogfish', 'cat')", 0),
    ("r_SUBSTRING", "SUBSTRING('caterpillar', 6, 4)", "pill"),
    ("SPLIT_PART", "SPLIT_PART('abc$def$ghi', '$', 2)", "def"),
    ("r_LEFT", "LEFT('Chicago', 5) || RIGHT('Chicago', 2)", "Chicago"),
    ("r_LPAD", "LPAD('cat', 5, '*') || RPAD('cat', 2)", "**catca"),
    ("r_INITCAP", "INITCAP('bLUE angel')", "Blue Angel"),
    ("r_TRIM", "TRIM(BOTH 'x' FROM 'xax') || LTRIM('  b') || RTRIM('c  ')", "abc"),
    ("r_REPLACE", "REPLACE('Shows', 'Show', 'Play')", "Plays"),
    ("REGEXP_REPLACE", r"REGEXP_REPLACE('a1b22', '[0-9]+', '-')", "a-b-"),
    ("REGEXP_SUBSTR", r"REGEXP_SUBSTR('x=12', '\\d+')", "12"),
    ("REGEXP_COUNT", "REGEXP_COUNT('abcdefabc', 'abc')", 2),
    ("r_MD5", "MD5('Amazon Redshift')", "f7415e33f972c03abd4f3fed36748f7a"),
    ("SHA2", "SHA2('Amazon Redshift', 0)", sha256(b"Amazon Redshift").hexdigest()),
    ("IS_VALID_JSON", """IS_VALID_JSON('{"a":2}')""", True),
    ("IS_VALID_JSON", "IS_VALID_JSON('{''a'':[1,2,''3'']}')", False),
    (
        "JSON_EXTRACT_PATH_TEXT",
        """JSON_EXTRACT_PATH_TEXT('{"f2":{"f3":1},"f4":{"f5":99}}', 'f4', 'f5')""",
        "99",
    ),
    ("r_ROUND", "ROUND(28.05::FLOAT, 1)", 28.1),
    ("r_TRUNC", "TRUNC(111.86, 1)", Decimal("111.8")),
    ("r_MOD", "MOD(10, 4) + 10 % 4", 4),
    ("r_POWER", "POWER(2, 3) + SQRT(16) + FLOOR(1.5) + CEIL(1.5) + ABS(-1)", 16.0),
    ("r_GREATEST_LEAST", "GREATEST(1, NULL, 3) + LEAST(2, 1)", 4),
    ("r_OPERATOR_SYMBOLS", "7 / 2", 3),
    ("r_enable_numeric_rounding", "1.5::NUMERIC(10, 2)::INT", 2),
    ("r_Numeric_types201", "12.75::DECIMAL", Decimal(13)),
    ("r_Numeric_types201", "'0.1'::FLOAT", 0.1),
    ("r_Character_types", "LEN(REPEAT('a', 300)::VARCHAR)", 300),
    ("r_Character_types", "'abc'::CHAR", "a"),
    ("r_CONVERT_function", "CONVERT(INTEGER, '12')", 12),
    ("r_CASE_function", "CASE WHEN 1 = 2 THEN 'a' WHEN 1 = 1 THEN 'b' END", "b"),
    ("r_patternmatching_condition_like", "'a_c' LIKE 'a!_c' ESCAPE '!' AND 'ABC' ILIKE 'a%'", True),
    ("r_names", "CURRENT_USER || '/' || CURRENT_SCHEMA()", "sparkify/test"),
]

AGGREGATES: list[tuple[str, str, Any]] = [
    ("r_AVG", "AVG(n)", 2),
    ("r_AVG", "AVG(n::FLOAT)", 2.5),
    ("r_AVG", "AVG(DISTINCT n)", 2),
    ("r_SUM", "SUM(n)", 10),
    ("r_COUNT", "COUNT(*) + COUNT(DISTINCT n / 2)", 7),
    ("r_COUNT", "APPROXIMATE COUNT(DISTINCT n)", 4),
    ("r_LISTAGG", "LISTAGG(name, ', ') WITHIN GROUP (ORDER BY n DESC)", "d, c, b, a"),
    ("r_LISTAGG", "LISTAGG(DISTINCT name) WITHIN GROUP (ORDER BY name)", "abcd"),
    ("r_MEDIAN", "MEDIAN(n)", 2.5),
    ("r_PERCENTILE_CONT", "PERCENTILE_CONT(0.25) WITHIN GROUP (ORDER BY n)", 1.75),
    ("r_STDDEV_functions", "ROUND(STDDEV(n), 2)", Decimal("1.29")),
    ("r_VARIANCE_functions", "ROUND(VAR_POP(n), 2)", Decimal("1.25")),
]

WINDOWS: list[tuple[str, str, list[Any]]] = [
    ("r_WF_ROW_NUMBER", "ROW_NUMBER() OVER (ORDER BY n DESC)", [4, 3, 2, 1]),
    ("r_WF_RANK", "RANK() OVER (ORDER BY n / 2)", [1, 2, 2, 4]),
    ("r_WF_DENSE_RANK", "DENSE_RANK() OVER (ORDER BY n / 2)", [1, 2, 2, 3]),
    ("r_WF_LAG", "LAG(n, 1) OVER (ORDER BY n)", [None, 1, 2, 3]),
    ("r_WF_LEAD", "LEAD(n) OVER (ORDER BY n)", [2, 3, 4, None]),
    ("r_WF_first_value", "FIRST_VALUE(n) OVER (ORDER BY n ROWS UNBOUNDED PRECEDING)", [1, 1, 1, 1]),
    ("r_WF_first_value", "LAST_VALUE(n) OVER (ORDER BY n ROWS UNBOUNDED PRECEDING)", [1, 2, 3, 4]),
    ("r_WF_NTILE", "NTILE(2) OVER (ORDER BY n)", [1, 1, 2, 2]),
    ("r_WF_SUM", "SUM(n) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)", [1, 3, 5, 7]),
    ("r_WF_RATIO_TO_REPORT", "RATIO_TO_REPORT(n) OVER ()", [0.1, 0.2, 0.3, 0.4]),
]

# What Redshift does not have, or the local Redshift does not know; and the name it is refused by
REFUSED = [
    ("CREATE INDEX i ON t (a)", "CREATE INDEX"),
    ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "ON CONFLICT"),
    ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1", "ON CONFLICT"),
    ("CREATE TABLE t (a SERIAL)", "type SERIAL"),
    ("CREATE TABLE t (a INT[])", "type ARRAY"),
    ("CREATE TABLE t (a TEXT[])", "type ARRAY"),
    ("CREATE TABLE t (a JSON)", "type JSON"),
    ("CREATE TABLE t (a JSONB)", "type JSONB"),
    ("CREATE TABLE t (a UUID)", "type UUID"),
    ("SELECT ARRAY[1, 2]", "ARRAY"),
    ("SELECT ARRAY_AGG(a) FROM t", "function ARRAY_AGG"),
    ("SELECT STRING_AGG(a, ',') FROM t", "function STRING_AGG"),
    ("SELECT a[1] FROM t", "BRACKET"),
    ("SELECT DISTINCT ON (a) a FROM t", "DISTINCT ON"),
    ("DELETE FROM t RETURNING a", "RETURNING"),
    ("SELECT * FROM t, LATERAL (SELECT 1) u", "LATERAL"),
    ("SELECT * FROM GENERATE_SERIES(1, 3)", "function GENERATE_SERIES"),
    ("SELECT GENERATE_SERIES(1, 3)", "function GENERATE_SERIES"),
    ("WITH a AS MATERIALIZED (SELECT 1) SELECT * FROM a", "MATERIALIZED CTE"),
    ("DO $$ BEGIN END $$", "DO"),
    ("CREATE FUNCTION f() RETURNS INT AS $$ SELECT 1 $$ LANGUAGE sql", "CREATE FUNCTION"),
    ("SELECT SUM(a) FILTER (WHERE a > 1) FROM t", "FILTER"),
    ("SELECT LAG(a) IGNORE NULLS OVER (ORDER BY a) FROM t", "IGNORE NULLS"),
    ("SELECT * FROM t FOR UPDATE", "FOR UPDATE"),
    ("SELECT * FROM (VALUES (1)) t (a)", "VALUES as a table"),
    ("SELECT NOW()", "function NOW"),
    ("SELECT CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP"),
    ("SELECT SHA1('a')", "function SHA1"),
    ("SELECT PG_SLEEP(1)", "function PG_SLEEP"),
    ("SELECT pg_catalog.pg_read_file('/etc/passwd')", "function PG_READ_FILE"),
    ("SELECT public.f(1)", "function public.f"),
    ("SELECT * FROM t QUALIFY ROW_NUMBER() OVER (ORDER BY a) = 1", "QUALIFY with SELECT *"),
    ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET a = 1", "MERGE"),
    ("UNLOAD ('SELECT 1') TO 's3://b/x' IAM_ROLE DEFAULT", "UNLOAD"),
    ("COPY t FROM STDIN", "COPY"),
    ("SAVEPOINT s", "SAVEPOINT"),
    ("SET enable_hashjoin TO off", "SET enable_hashjoin"),
    ("ALTER TABLE t ADD COLUMN a INT, ADD COLUMN b INT", "ALTER TABLE with several actions"),
    ("ALTER TABLE t ADD COLUMN a INT PRIMARY KEY", "a key in ALTER TABLE"),
    ("CREATE TABLE t (a INT CHECK (a > 1))", "CHECK"),
]


@pytest.fixture(scope="module")
def numbers(server: Any) -> Iterator[psycopg.Connection]:
    """A connection with a temporary table t of four rows: (1, 'a') … (4, 'd')."""
    with psycopg.connect(
        host="127.0.0.1",
        port=server.port,
        user="sparkify",
        password="sparkify",
        dbname="sparkify",
        autocommit=True,
    ) as connection:
        connection.execute("CREATE SCHEMA test")
        connection.execute("SET search_path TO test, public")
        connection.execute("CREATE TEMP TABLE t (n INT, name VARCHAR(10))")
        connection.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')")
        yield connection
        connection.execute("DROP SCHEMA test")


@pytest.mark.parametrize(("page", "expression", "value"), EXPRESSIONS)
def test_an_expression_means_what_redshift_says(
    numbers: psycopg.Connection, page: str, expression: str, value: Any
) -> None:
    (row,) = numbers.execute(f"SELECT {expression}".encode()).fetchall()
    assert (row, type(row[0])) == ((value,), type(value)), page


@pytest.mark.parametrize(("page", "expression", "value"), AGGREGATES)
def test_an_aggregate_means_what_redshift_says(
    numbers: psycopg.Connection, page: str, expression: str, value: Any
) -> None:
    assert numbers.execute(f"SELECT {expression} FROM t".encode()).fetchall() == [(value,)], page


@pytest.mark.parametrize(("page", "expression", "values"), WINDOWS)
def test_a_window_function_means_what_redshift_says(
    numbers: psycopg.Connection, page: str, expression: str, values: list[Any]
) -> None:
    rows = numbers.execute(f"SELECT {expression} FROM t ORDER BY n".encode()).fetchall()
    assert [value for (value,) in rows] == values, page


@pytest.mark.parametrize(("sql", "name"), REFUSED)
def test_what_redshift_lacks_is_refused_by_name(sql: str, name: str) -> None:
    with pytest.raises(SqlError, match="is not supported by the local Redshift") as refusal:
        dialect.translate(sql)
    assert (refusal.value.sqlstate, refusal.value.message[: len(name)]) == ("0A000", name)


@pytest.mark.parametrize("sql", ["SELECT a tag FROM t", "CREATE TABLE t (open INT)", "SELECT 1 AS snapshot"])
def test_a_reserved_word_is_no_name_unless_quoted(sql: str) -> None:
    with pytest.raises(SqlError, match=r'syntax error at or near "(tag|open|snapshot)"'):
        dialect.translate(sql)


def test_a_quoted_reserved_word_is_a_name(numbers: psycopg.Connection) -> None:
    cursor = numbers.execute('SELECT 1 AS "Open"')
    assert [column.name for column in cursor.description or ()] == ["open"]


def test_a_syntax_error_says_where() -> None:
    with pytest.raises(SqlError, match=r"line 2, column 4: Expected table") as error:
        dialect.translate("SELECT 1\nFROM")
    assert error.value.sqlstate == "42601"


def test_an_aggregate_with_an_order_needs_a_frame() -> None:
    with pytest.raises(SqlError, match="require a frame clause"):
        dialect.translate("SELECT SUM(a) OVER (ORDER BY b) FROM t")


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("", []),
        (" ; -- nothing\n;", []),
        ("SELECT ';' ; /* ; */ SELECT 2;", ["SELECT ';'", "SELECT 2"]),
        ("BEGIN; COPY t FROM 's3://b/;x'", ["BEGIN", "COPY t FROM 's3://b/;x'"]),
        ("INSERT INTO t VALUES ($1,$2)", ["INSERT INTO t VALUES ($1,$2)"]),
    ],
)
def test_a_script_is_split_at_its_semicolons(script: str, statements: list[str]) -> None:
    assert dialect.split(script) == statements


def test_an_open_quote_is_a_syntax_error() -> None:
    with pytest.raises(SqlError, match="does not end"):
        dialect.split("SELECT 'a")


@pytest.mark.parametrize("name", ["pets", "PETS", '"Pets"', " pets "])
def test_names_are_folded_to_lower_case(name: str) -> None:
    assert dialect.relation(name) == '"pets"'


def test_backslashes_escape_in_strings(numbers: psycopg.Connection) -> None:
    cursor = psycopg.ClientCursor(numbers)
    row = cursor.execute(r"SELECT 'it\'s', '\\d', %s", [r"a\b"]).fetchone()
    assert row == ("it's", r"\d", r"a\b")


def test_qualify_filters_before_limit(numbers: psycopg.Connection) -> None:
    sql = "SELECT TOP 1 name FROM t QUALIFY ROW_NUMBER() OVER (ORDER BY n DESC) > 2 ORDER BY n"
    assert numbers.execute(sql).fetchall() == [("a",)]


def test_qualify_adds_no_column(numbers: psycopg.Connection) -> None:
    cursor = numbers.execute("SELECT name FROM t QUALIFY ROW_NUMBER() OVER (ORDER BY n) = 1")
    assert ([c.name for c in cursor.description or ()], cursor.fetchall()) == (["name"], [("a",)])


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT n FROM t WHERE n > 2) SELECT MAX(n) FROM a",
        "SELECT n FROM t WHERE n > 3 UNION SELECT 4",
        "SELECT n FROM t MINUS SELECT n FROM t WHERE n < 4",
        "SELECT n FROM t INTERSECT SELECT 4",
        "SELECT TOP 1 n FROM t ORDER BY n DESC",
        "SELECT n FROM t WHERE n IN (SELECT 4)",
        "SELECT a.n FROM t a LEFT JOIN t b ON a.n = b.n + 1 JOIN t c ON c.n = a.n WHERE b.n = 3",
        "SELECT n FROM t WHERE EXISTS (SELECT 1 FROM t u WHERE u.n = t.n AND u.n BETWEEN 4 AND 5)",
        "WITH RECURSIVE u (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM u WHERE n < 4) SELECT MAX(n) FROM u",
        "SELECT n FROM t GROUP BY n HAVING SUM(n) > 3",
    ],
)
def test_a_query_runs(numbers: psycopg.Connection, sql: str) -> None:
    assert numbers.execute(sql.encode()).fetchall() == [(4,)]


TABLES = [
    "CREATE TABLE made (a INT ENCODE az64 DISTKEY SORTKEY, b VARCHAR(9) ENCODE zstd) DISTSTYLE KEY BACKUP NO",
    "CREATE TABLE made (a INT, b INT) DISTKEY(a) COMPOUND SORTKEY(a, b)",
    "CREATE TABLE made (a INT, b INT) DISTSTYLE AUTO SORTKEY AUTO",
    "CREATE TABLE IF NOT EXISTS made (a INT DEFAULT 1 NOT NULL, b TEXT)",
    "CREATE TABLE made DISTSTYLE ALL SORTKEY(a) AS SELECT 1 AS a, 2 AS b",
    "CREATE TEMP TABLE made (LIKE t INCLUDING DEFAULTS)",
]


@pytest.mark.parametrize("sql", TABLES)
def test_a_table_is_created_whatever_its_storage(numbers: psycopg.Connection, sql: str) -> None:
    numbers.execute(sql.encode())
    columns = numbers.execute("SELECT * FROM made").description or ()
    numbers.execute("DROP TABLE made")
    assert len(columns) == 2


@pytest.mark.parametrize(
    ("declared", "stored"),
    [
        ("VARCHAR", "character varying(256)"),
        ("TEXT", "character varying(256)"),
        ("VARCHAR(MAX)", "character varying(65535)"),
        ("CHAR", "character(1)"),
        ("BPCHAR", "character(256)"),
        ("DECIMAL", "numeric(18,0)"),
        ("NUMERIC(9)", "numeric(9,0)"),
        ("FLOAT", "double precision"),
        ("REAL", "real"),
        ("TIMESTAMPTZ", "timestamp with time zone"),
    ],
)
def test_a_type_without_a_length_has_redshifts(
    numbers: psycopg.Connection, declared: str, stored: str
) -> None:
    numbers.execute(f"CREATE TEMP TABLE made (a {declared})".encode())
    (row,) = numbers.execute(
        "SELECT FORMAT_TYPE(a.atttypid, a.atttypmod) FROM pg_attribute a"
        " JOIN pg_class c ON c.oid = a.attrelid WHERE c.relname = 'made' AND a.attname = 'a'"
    ).fetchall()
    numbers.execute("DROP TABLE made")
    assert row == (stored,)


@pytest.mark.parametrize("declared", ["VARCHAR(65536)", "CHAR(4097)", "DECIMAL(39, 0)"])
def test_a_type_that_is_too_long_is_refused(declared: str) -> None:
    with pytest.raises(SqlError, match="must be between 1 and"):
        dialect.translate(f"CREATE TABLE t (a {declared})")
