import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import psycopg2
import pytest
import redshift_connector
import trustme

from local import temporary_password
from local.redshift.server import Server
from local.settings import REDSHIFT_ROLE
from tests.local_redshift.conftest import Connect

ROLE = f"IAM_ROLE '{REDSHIFT_ROLE}' FORMAT AS JSON 'auto'"


@pytest.fixture
def driver(warehouse: psycopg.Connection, address: dict[str, Any]) -> Iterator[redshift_connector.Connection]:
    """A connection of Amazon's driver, as Airflow's RedshiftSQLHook makes it."""
    with redshift_connector.connect(**address, database="sparkify", ssl=False) as connection:
        connection.cursor().execute("SET search_path TO test, public")
        connection.commit()
        yield connection


@pytest.fixture
def pets(warehouse: psycopg.Connection) -> psycopg.Connection:
    warehouse.execute("CREATE TABLE pets (id INT PRIMARY KEY, name VARCHAR(10))")
    return warehouse


def rows(connection: Any, sql: str = "SELECT * FROM pets ORDER BY 1") -> list[Any]:
    cursor = connection.cursor()
    cursor.execute(sql)
    return [tuple(row) for row in cursor.fetchall()]


# --- connecting ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"password": "wrong"}, 'password authentication failed for user "sparkify"'),
        ({"user": "nobody"}, 'password authentication failed for user "nobody"'),
        ({"dbname": "other"}, 'database "other" does not exist'),
    ],
)
def test_a_wrong_login_is_refused(connect: Connect, options: dict[str, str], message: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=message):
        connect(**options)


def test_tls_proves_which_server_it_is(server: Server, connect: Connect, tmp_path: Path) -> None:
    connection = connect(sslmode="verify-full", sslrootcert=str(server.settings.redshift_ca))
    assert connection.pgconn.ssl_in_use
    assert rows(connection, "SELECT REPEAT('x', 60000)") == [("x" * 60000,)]
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        connect(sslmode="verify-full", sslrootcert=str(other))
    assert not connect(sslmode="disable").pgconn.ssl_in_use


def test_a_temporary_password_lets_its_user_in_until_it_expires(connect: Connect) -> None:
    user, soon = "IAM:sparkify", datetime.now(UTC) + timedelta(minutes=15)
    password = temporary_password.sign(user, soon)
    assert rows(connect(user=user, password=password), "SELECT CURRENT_USER") == [("sparkify",)]
    until, _, signature = password.partition("-")
    for wrong in (
        temporary_password.sign(user, datetime.now(UTC)),
        temporary_password.sign("IAM:analyst", soon),
        f"{int(until) + 1}-{signature}",
        f"{until}-é",
        "9" * 20,
        "sparkify",
    ):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(user=user, password=wrong)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(user="sparkify", password=temporary_password.sign("sparkify", soon))


@pytest.mark.parametrize("function", ["version()", "pg_catalog.version()"])
def test_it_reports_redshifts_version(connect: Connect, function: str) -> None:
    connection = connect()
    (row,) = rows(connection, f"SELECT {function}")
    assert row[0].startswith("PostgreSQL 8.0.2 on i686-pc-linux-gnu")
    assert connection.info.server_version == 80002


def test_an_unknown_startup_setting_does_not_matter(connect: Connect) -> None:
    assert rows(connect(application_name="analyst"), "SELECT 1") == [(1,)]


@pytest.mark.skipif(not shutil.which("psql"), reason="psql is not on this machine")
def test_psql_can_query_list_and_describe_tables(pets: psycopg.Connection, address: dict[str, Any]) -> None:
    environment = {**os.environ, "PGPASSWORD": address["password"], "PGOPTIONS": "-c search_path=test"}
    command = [
        "psql",
        "-h",
        "127.0.0.1",
        "-p",
        str(address["port"]),
        "-U",
        address["user"],
        "-At",
        "sparkify",
    ]
    printed = subprocess.check_output(
        [*command, "-c", "SELECT 6 * 7", "-c", r"\dt", "-c", r"\d pets"], env=environment, text=True
    )
    assert printed.splitlines()[:2] == ["42", "test|pets|table|sparkify"]
    assert printed.splitlines()[2].startswith("id|integer|")
    copied = subprocess.run(
        [*command, "-c", r"\copy pets from '/dev/null'"], env=environment, capture_output=True
    )
    assert b"COPY is not supported by the local Redshift" in copied.stderr
    assert b"COPY \xe2\x80\xa6 FROM 's3://\xe2\x80\xa6'" in copied.stderr


# --- statements and transactions ---


def test_the_airflow_driver_commits_and_rolls_back(pets: psycopg.Connection, driver: Any) -> None:
    cursor = driver.cursor()
    cursor.execute("INSERT INTO pets VALUES (%s, %s)", (1, "Rex"))
    driver.commit()
    cursor.executemany("INSERT INTO pets VALUES (%s, %s)", [(2, "Tom"), (3, "Ada")])
    driver.rollback()
    assert (cursor.rowcount, rows(pets)) == (2, [(1, "Rex")])


@pytest.mark.parametrize(
    ("style", "values", "one", "many"),
    [
        ("qmark", "?, ?", [1, "Tom"], [[2, "Zoé"], [3, None]]),
        ("numeric", ":1, :2", [1, "Tom"], [[2, "Zoé"], [3, None]]),
        ("format", "%s, %s", [1, "Tom"], [[2, "Zoé"], [3, None]]),
        (
            "named",
            ":id, :name",
            {"id": 1, "name": "Tom"},
            [{"id": 2, "name": "Zoé"}, {"id": 3, "name": None}],
        ),
        (
            "pyformat",
            "%(id)s, %(name)s",
            {"id": 1, "name": "Tom"},
            [{"id": 2, "name": "Zoé"}, {"id": 3, "name": None}],
        ),
    ],
)
def test_the_airflow_driver_binds_in_every_style(
    pets: psycopg.Connection, driver: Any, style: str, values: str, one: Any, many: Any
) -> None:
    driver.autocommit = True  # other sessions see at once what this one does
    cursor = driver.cursor()
    cursor.paramstyle = style
    cursor.execute(f"INSERT INTO pets VALUES ({values})", one)
    assert rows(pets) == [(1, "Tom")]
    cursor.executemany(f"INSERT INTO pets VALUES ({values})", many)
    assert rows(pets) == [(1, "Tom"), (2, "Zoé"), (3, None)]


def test_the_airflow_driver_reads_every_type(driver: Any) -> None:
    (row,) = rows(
        driver, "SELECT 1::SMALLINT, 2::BIGINT, 1.5::FLOAT, 1.50::DECIMAL(5, 2), TRUE, TIMESTAMP '2020-01-02'"
    )
    assert [str(value) for value in row] == ["1", "2", "1.5", "1.50", "True", "2020-01-02 00:00:00"]


def test_the_airflow_driver_keeps_temporary_tables_to_itself(pets: psycopg.Connection, driver: Any) -> None:
    cursor = driver.cursor()
    cursor.execute("CREATE TABLE #batch (LIKE pets)")
    cursor.execute("INSERT INTO #batch VALUES (1, 'new')")
    cursor.execute("DELETE FROM pets USING #batch WHERE pets.id = #batch.id")
    cursor.execute("INSERT INTO pets SELECT * FROM #batch")
    driver.commit()
    assert rows(pets) == [(1, "new")]
    with pytest.raises(psycopg.errors.UndefinedTable):
        pets.execute("SELECT * FROM #batch")


def test_psycopg2_works(pets: psycopg.Connection, address: dict[str, Any]) -> None:
    connection = psycopg2.connect(**address, dbname="sparkify")
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO test.pets VALUES (%s, %s)", (1, "it's\\"))
    connection.close()
    assert rows(pets) == [(1, "it's\\")]


def test_psycopg_binds_parameters(pets: psycopg.Connection) -> None:
    with pets.cursor() as cursor:
        cursor.executemany("INSERT INTO pets VALUES (%s, %s)", [(1, "a"), (2, None)])
    assert pets.execute("SELECT name FROM pets WHERE id = %s", [1], binary=True).fetchall() == [("a",)]


def test_the_statements_of_one_query_share_a_transaction(pets: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        pets.execute("INSERT INTO pets VALUES (1, 'a'); SELECT 1 / 0")
    assert rows(pets) == []


def test_several_statements_cannot_be_prepared(pets: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.SyntaxError, match="cannot insert multiple commands"):
        pets.execute("SELECT %s::INT; SELECT 2", [1])


@pytest.mark.parametrize("parameters", [None, [1]])
def test_a_refused_statement_aborts_the_transaction(connect: Connect, parameters: list[int] | None) -> None:
    connection = connect(autocommit=False)
    connection.execute("SELECT 1")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        connection.execute("SELECT ARRAY_AGG(%s::INT)" if parameters else "SELECT ARRAY_AGG(1)", parameters)
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")


def test_a_session_goes_on_after_an_error(connect: Connect) -> None:
    connection = connect()
    for sql in ("SELECT nothing", "SELECT NOW()", "SELECT FROM WHERE", "SELECT 1 / 0"):
        with pytest.raises(psycopg.Error):
            connection.execute(sql.encode())
    assert rows(connection, "SELECT 1") == [(1,)]


def test_truncate_commits(pets: psycopg.Connection, connect: Connect) -> None:
    pets.execute("INSERT INTO pets VALUES (1, 'a')")
    other = connect(autocommit=False)
    other.execute("TRUNCATE test.pets")
    other.rollback()
    assert rows(pets) == []


def test_keys_are_recorded_and_not_enforced(pets: psycopg.Connection) -> None:
    pets.execute("INSERT INTO pets VALUES (1, 'a'), (1, 'b')")
    recorded = "SELECT kind, columns FROM rs_catalog.table_keys k JOIN pg_class c ON c.oid = k.table_id"
    assert rows(pets, f"{recorded} WHERE c.relname = 'pets'") == [("PRIMARY KEY", ["id"])]


def test_recorded_keys_go_with_a_rollback(warehouse: psycopg.Connection) -> None:
    warehouse.execute("BEGIN; CREATE TABLE toys (id INT UNIQUE); ROLLBACK")
    assert rows(warehouse, "SELECT * FROM rs_catalog.table_keys WHERE columns::VARCHAR LIKE '%toys%'") == []


@pytest.mark.parametrize(
    "declaration", ["PRIMARY KEY", "NOT NULL, b INT, PRIMARY KEY (a)", "IDENTITY(0, 1), b INT"]
)
def test_a_primary_key_or_identity_is_not_null(warehouse: psycopg.Connection, declaration: str) -> None:
    warehouse.execute(f"CREATE TABLE made (a INT {declaration})".encode())
    nullable = "SELECT is_nullable FROM svv_columns WHERE table_name = 'made' AND column_name = 'a'"
    assert rows(warehouse, nullable) == [("NO",)]


def test_identity_counts_from_its_seed(warehouse: psycopg.Connection) -> None:
    warehouse.execute("CREATE TABLE made (a INT IDENTITY(0, 5), b INT)")
    warehouse.execute("INSERT INTO made (b) VALUES (1), (2)")
    assert rows(warehouse, "SELECT a FROM made ORDER BY a") == [(0,), (5,)]


def test_a_length_is_in_bytes(pets: psycopg.Connection) -> None:
    pets.execute("INSERT INTO pets VALUES (1, 'éééée')")
    with pytest.raises(psycopg.errors.StringDataRightTruncation, match=r"type character varying\(10\)"):
        pets.execute("INSERT INTO pets VALUES (2, 'éééééé')")
    with pytest.raises(psycopg.errors.StringDataRightTruncation):
        pets.execute("CREATE TEMP TABLE copy (LIKE pets); INSERT INTO copy VALUES (2, 'éééééé')")


def test_a_length_can_be_changed_outside_of_transactions_alone(pets: psycopg.Connection) -> None:
    pets.execute("ALTER TABLE pets ALTER COLUMN name TYPE VARCHAR(12)")
    pets.execute("INSERT INTO pets VALUES (2, 'éééééé')")
    with pytest.raises(psycopg.Error, match=r"value too long for type character varying\(12\)"):
        pets.execute("INSERT INTO pets VALUES (3, 'ééééééé')")
    with pytest.raises(psycopg.Error, match=r"value too long for type character varying\(9\)"):
        pets.execute("ALTER TABLE pets ALTER COLUMN name TYPE VARCHAR(9)")
    for block in (
        "BEGIN; ALTER TABLE pets ALTER COLUMN name TYPE VARCHAR(14)",
        "SELECT 1; ALTER TABLE pets ALTER COLUMN name TYPE VARCHAR(14)",
    ):
        with pytest.raises(psycopg.Error, match="ALTER COLUMN cannot run inside a transaction block"):
            pets.execute(block.encode())
        pets.execute("ROLLBACK")
    with pets.transaction(), pytest.raises(psycopg.Error, match="cannot run inside a transaction block"):
        pets.execute("ALTER TABLE pets ALTER COLUMN name TYPE VARCHAR(14)")


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ("a VARCHAR(5) DEFAULT 'x'", "it has a default value"),
        ("a VARCHAR(5) UNIQUE", "it is part of a key"),
        ("a VARCHAR(5) ENCODE text255", "of its encoding"),
        ("a CHAR(5)", "it is not a VARCHAR"),
        ("a INT", "it is not a VARCHAR"),
    ],
)
def test_a_length_of_any_other_column_cannot_be_changed(
    warehouse: psycopg.Connection, definition: str, why: str
) -> None:
    warehouse.execute(f"CREATE TABLE made ({definition})".encode())
    with pytest.raises(psycopg.Error, match=f'cannot alter the type of column "a": {why}'):
        warehouse.execute("ALTER TABLE made ALTER COLUMN a TYPE VARCHAR(9)")
    with pytest.raises(psycopg.Error, match="changes the length of a VARCHAR"):
        warehouse.execute("ALTER TABLE made ALTER COLUMN a TYPE INT")


def test_getdate_is_the_statements_time_and_sysdate_the_transactions(connect: Connect) -> None:
    connection = connect(autocommit=False)
    ((before,),) = rows(connection, "SELECT SYSDATE")
    time.sleep(1.1)
    ((sysdate, getdate),) = rows(connection, "SELECT SYSDATE, GETDATE()")
    assert (sysdate, getdate.microsecond, getdate > sysdate) == (before, 0, True)


def test_text_compares_byte_by_byte(connect: Connect) -> None:
    assert rows(connect(), "SELECT 'B' < 'a', 'é' > 'z'") == [(True, True)]


@pytest.mark.parametrize(
    "sql",
    [
        *(
            "VACUUM",
            "VACUUM FULL pets TO 99 PERCENT",
            "ANALYZE pets (id)",
            "ANALYZE",
            "EXPLAIN SELECT * FROM pets",
        ),
        *("BEGIN; LOCK pets; END", "START TRANSACTION; COMMIT", "begin transaction; abort"),
        *(
            "SET query_group TO 'etl'",
            "SET statement_timeout TO 60000",
            "RESET query_group",
            "SHOW search_path",
            "SHOW transaction isolation level",
        ),
        *(
            "ALTER TABLE pets ADD COLUMN age SMALLINT DEFAULT 1",
            "ALTER TABLE pets RENAME COLUMN name TO title",
        ),
        *("ALTER TABLE pets DROP COLUMN name", "CREATE VIEW v AS SELECT * FROM pets; DROP VIEW v"),
        "UPDATE pets SET name = o.name FROM pets o WHERE o.id = pets.id",
        "DELETE pets WHERE id = 1",
        "CREATE TABLE s (LIKE pets); ALTER TABLE s RENAME TO r; DROP TABLE IF EXISTS r, nothing",
        "SELECT table_name FROM svv_tables WHERE table_schema = 'test'",
        "SELECT pg_backend_pid(), pg_last_copy_id(), pg_last_copy_count()",
    ],
)
def test_a_statement_runs(pets: psycopg.Connection, sql: str) -> None:
    pets.execute(sql.encode())
    assert pets.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


# --- COPY ---


@pytest.fixture
def two_pets(bucket: Any) -> str:
    bucket.put_object(Key="pets/1.json", Body=b'{"id": 1, "name": "Rex"}')
    bucket.put_object(Key="pets/2.json", Body='{"id": 2, "name": "Zoé"}'.encode())
    return f"'s3://{bucket.name}/pets/' {ROLE}"


@pytest.fixture
def bad_pets(bucket: Any) -> str:
    bucket.put_object(Key="bad.json", Body=b'{"id": 1, "name": "Rex"}\n{"id": "x", "name": "Tom"}\n')
    return f"'s3://{bucket.name}/bad.json' {ROLE}"


def test_copy_loads_json_from_s3(pets: psycopg.Connection, two_pets: str) -> None:
    notices: list[str] = []
    pets.add_notice_handler(lambda notice: notices.append(f"{notice.severity}: {notice.message_primary}"))
    pets.execute(f"COPY pets FROM {two_pets}".encode())
    assert rows(pets) == [(1, "Rex"), (2, "Zoé")]
    assert notices == ["INFO: Load into table 'pets' completed, 2 record(s) loaded successfully."]


@pytest.mark.parametrize("table", ["pets", "test.pets", '"pets"', "PETS (name, id)"])
def test_copy_takes_any_name_of_a_table(pets: psycopg.Connection, two_pets: str, table: str) -> None:
    pets.execute(f"COPY {table} FROM {two_pets}".encode())
    assert len(rows(pets)) == 2


def test_copy_with_a_role_that_is_not_attached_is_refused(pets: psycopg.Connection, two_pets: str) -> None:
    other = "arn:aws:iam::210987654321:role/other"
    message = (
        "User arn:aws:redshift:us-west-2:123456789012:dbuser:sparkify/sparkify"
        f" is not authorized to assume IAM Role {other}"
    )
    with pytest.raises(psycopg.Error) as refusal:
        pets.execute(f"COPY pets FROM {two_pets.replace(REDSHIFT_ROLE, other)}".encode())
    assert refusal.value.diag.message_primary == message
    assert f"context:   IAM Role={other}\n" in str(refusal.value.diag.message_detail)
    pets.execute(f"COPY pets FROM {two_pets.replace(REDSHIFT_ROLE, f'{REDSHIFT_ROLE},{other}')}".encode())


def test_copy_by_the_airflow_driver_is_part_of_the_transaction(
    pets: psycopg.Connection, driver: Any, two_pets: str
) -> None:
    cursor = driver.cursor()
    cursor.execute("CREATE TABLE #batch (LIKE pets)")
    cursor.execute(f"\n COPY #batch FROM {two_pets};")
    cursor.execute("INSERT INTO pets SELECT * FROM #batch")
    assert (rows(driver, "SELECT pg_last_copy_count()"), rows(pets)) == ([(2,)], [])
    driver.commit()
    assert len(rows(pets)) == 2


def test_copy_among_other_statements(pets: psycopg.Connection, two_pets: str) -> None:
    pets.execute(f"BEGIN; DELETE FROM pets; COPY pets FROM {two_pets}; COMMIT".encode())
    assert len(rows(pets)) == 2


def test_a_failed_copy_aborts_the_transaction_and_keeps_its_reasons(
    pets: psycopg.Connection, connect: Connect, bad_pets: str
) -> None:
    connection = connect(autocommit=False)
    connection.execute("DELETE FROM test.pets")
    with pytest.raises(
        psycopg.errors.InternalError_, match=r"Load into table 'pets' failed\. .*stl_load_errors"
    ):
        connection.execute(f"COPY test.pets FROM {bad_pets}".encode())
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    connection.rollback()
    reasons = "SELECT TRIM(filename), line_number, TRIM(colname) FROM stl_load_errors"
    assert rows(pets, f"{reasons} ORDER BY query DESC LIMIT 1") == [("s3://udacity-dend/bad.json", 2, "id")]


def test_maxerror_loads_the_rest_and_tells_what_it_left_out(pets: psycopg.Connection, bad_pets: str) -> None:
    pets.execute(f"COPY pets FROM {bad_pets} MAXERROR 10".encode())
    history = "SELECT status, loaded_rows, error_count, source_file_count FROM sys_load_history"
    assert rows(pets) == [(1, "Rex")]
    assert rows(pets, f"{history} WHERE query_id = pg_last_copy_id()") == [("completed", 1, 1, 1)]
    errors = "SELECT line_number, error_code FROM sys_load_error_detail WHERE query_id = pg_last_copy_id()"
    assert rows(pets, errors) == [(2, 1207)]


def test_each_file_of_a_copy_is_kept(pets: psycopg.Connection, bucket: Any) -> None:
    """SYS_LOAD_DETAIL."""
    contents = {
        "in/1 é\t.json": b'{"id": 1}\n{"id": "x"}\n{"id": 3}',
        "in/2.json": b"",
        "in/3.json": b'{"id": 1}\n' * 100_000,
    }
    for key, content in contents.items():
        bucket.put_object(Key=key, Body=content)
    before = datetime.now(UTC).replace(tzinfo=None)
    source = "'s3://udacity-dend/in' IAM_ROLE DEFAULT JSON 'auto'"
    pets.execute("SET timezone TO 'America/New_York'")
    pets.execute(f"COPY pets FROM {source} MAXERROR 10".encode())
    columns = "TRIM(file_name), bytes_scanned, lines_scanned, TRIM(file_etag)"
    detail = f"SELECT {columns} FROM sys_load_detail WHERE query_id = "
    assert rows(pets, f"{detail} pg_last_copy_id() ORDER BY file_name") == [
        (f"s3://udacity-dend/{key}", len(content), lines, f'"{hashlib.md5(content).hexdigest()}"')
        for (key, content), lines in zip(contents.items(), (3, 0, 100_000), strict=True)
    ]
    times = "start_time, end_time, record_time, file_last_modified"
    for started, ended, recorded, modified in rows(
        pets, f"SELECT {times} FROM sys_load_detail WHERE query_id = pg_last_copy_id()"
    ):
        assert before <= started <= ended == recorded
        assert abs(before - modified) < timedelta(seconds=10)
    with pytest.raises(psycopg.errors.InternalError_):
        pets.execute(f"COPY pets FROM {source}".encode())
    assert rows(pets, f"{detail} (SELECT MAX(query_id) FROM sys_load_history)")[0][2] == 1


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("COPY nothing FROM {}", "Cannot COPY into nonexistent table nothing"),
        ("COPY pets (age) FROM {}", "age"),
        ("COPY pets FROM 's3://udacity-dend/none' IAM_ROLE DEFAULT JSON 'auto'", "does not exist"),
        ("COPY pets FROM 's3://udacity-dend/none' JSON 'auto'", "(?i)role|credentials"),
    ],
)
def test_a_copy_that_cannot_work_says_why(
    pets: psycopg.Connection, two_pets: str, sql: str, message: str
) -> None:
    with pytest.raises(psycopg.Error, match=message):
        pets.execute(sql.format(two_pets).encode())
    assert rows(pets, "SELECT 1") == [(1,)]


# --- what the server remembers ---


def test_statements_are_counted(pets: psycopg.Connection, connect: Connect) -> None:
    connection = connect(application_name="counted", autocommit=False)
    connection.execute("INSERT INTO test.pets VALUES (1, 'a'), (%s, 'b')", [2])
    connection.rollback()
    counted = "SELECT statement, rows FROM local_statements WHERE client = 'counted' ORDER BY started_at"
    insert = "INSERT INTO test.pets VALUES (1, 'a'), ($1, 'b')"
    assert rows(pets, counted) == [("BEGIN", None), (insert, 2), ("ROLLBACK", None)]


def test_connections_are_counted(connect: Connect) -> None:
    for _ in range(2):
        connect(application_name="came twice").close()
    assert rows(connect(), "SELECT COUNT(*) FROM local_connections WHERE client = 'came twice'") == [(2,)]


def test_access_keys_are_not_kept(pets: psycopg.Connection, bucket: Any) -> None:
    key = "AKIAIOSFODNN7EXAMPLE"  # checkov:skip=CKV_SECRET_2:AWS's example
    secret = f"aws_access_key_id={key};aws_secret_access_key=wJalrXUtnFEMI"
    with pytest.raises(psycopg.Error):
        pets.execute(f"COPY pets FROM 's3://{bucket.name}/none' CREDENTIALS '{secret}' JSON 'auto'".encode())
    kept = rows(pets, "SELECT statement FROM local_statements WHERE statement LIKE 'COPY%CREDENTIALS%'")
    assert kept
    assert not [statement for (statement,) in kept if "wJalr" in statement]


# --- processes ---


def backends(server: Server, query: str) -> int:
    with psycopg.connect(server.postgres.dsn) as connection:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"
        ((count,),) = connection.execute(sql, [f"%{query}%"]).fetchall()
        return int(count)


SLOW = "SELECT COUNT(*) AS {} FROM pg_attribute a, pg_attribute b, pg_attribute c"


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_statement_can_be_cancelled(connect: Connect, server: Server) -> None:
    connection = connect()
    threading.Timer(0.3, connection.cancel_safe).start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute(SLOW.format("cancelled").encode())


def test_a_client_that_disappears_leaves_no_statement_behind(address: dict[str, Any], server: Server) -> None:
    slow = SLOW.format("abandoned")
    script = f"import psycopg; psycopg.connect(**{address!r}, dbname='sparkify').execute({slow!r})"
    with subprocess.Popen([sys.executable, "-c", script]) as client:
        wait_until(lambda: backends(server, '"abandoned"') == 1)
        client.kill()
    wait_until(lambda: backends(server, '"abandoned"') == 0)
