"""The pipeline as a user with no more privileges than it needs, and what analysts see of its tables."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any

import jinja2
import psycopg
import pytest
import redshift_connector
import sqlparse
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from local import temporary_password
from local.redshift.postgres import Postgres
from local.settings import REDSHIFT_DATABASE, Settings
from sparkify.compat import AirflowFailException
from sparkify.setup_check import check_privileges
from sparkify.sql import quoted
from sparkify.tables import MIGRATIONS, SQL_FOLDER, STAR, TABLES
from tests.conftest import EVER, bound, everything_in, rows
from tests.expected_star import expected_star, read_events, read_songs
from tests.pipeline import Pipeline, star
from tests.runs import EVENT, PREFIXES, SONG
from tests.test_pipeline import airflow, masked

USER, PASSWORD, ROLE = "sparkify_etl", "Least1privilege", "analysts"
COPY_ROLE = os.environ["AIRFLOW_VAR_SPARKIFY_IAM_ROLE"]
COUNTS = {
    "etl_files": (
        "dataset, s3_key, etag, size_bytes, last_modified, run_id, loaded_at, status, rows_read,"
        " rows_rejected"
    ),
    "etl_rejected_rows": "dataset, run_id, column_name, rejected_at",
    "etl_quality_results": "run_id, check_name, table_name, severity, failed_rows, checked_at",
}
READABLE = {**dict.fromkeys(STAR, "*"), **COUNTS}
# What everybody may do in a new warehouse. An administrator who cares about privileges takes it away.
OF_PUBLIC = ("CREATE ON SCHEMA public", f"TEMP ON DATABASE {REDSHIFT_DATABASE}", "ASSUMEROLE ON ALL")


def change_public(verb: str, way: str) -> list[str]:
    return [f"{verb} {what} {way} PUBLIC{' FOR ALL' * ('ROLE' in what)}" for what in OF_PUBLIC]


@pytest.fixture(scope="module", autouse=True)
def settings(stack: Settings) -> Iterator[pytest.MonkeyPatch]:
    """Airflow's settings: the pipeline logs in as a user of its own, the administrator as sparkify."""
    with pytest.MonkeyPatch.context() as settings:
        admin = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"])
        settings.setenv("AIRFLOW_CONN_REDSHIFT_ADMIN", json.dumps(admin))
        settings.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(admin | {"login": USER, "password": PASSWORD}))
        settings.setenv("AIRFLOW_VAR_SPARKIFY_ANALYSTS_ROLE", ROLE)
        yield settings


@pytest.fixture(scope="module")
def admin(settings: pytest.MonkeyPatch, stack: Settings) -> Iterator[RedshiftSQLHook]:
    """The administrator's hook. What everybody may do is taken away until all users have gone again."""
    hook = RedshiftSQLHook(redshift_conn_id="redshift_admin", log_sql=False)
    hook.run(change_public("REVOKE", "FROM"))
    yield hook
    server = Postgres(stack)
    server.start()  # adopts the one that runs
    with psycopg.connect(server.dsn, autocommit=True) as postgres:
        names = "SELECT quote_ident(rolname) FROM rs_catalog.{}"
        users = postgres.execute(f"{names.format('users')} WHERE NOT superuser".encode()).fetchall()
        for (name,) in users + postgres.execute(names.format("roles").encode()).fetchall():
            postgres.execute(f"DROP OWNED BY {name} CASCADE".encode())
            postgres.execute(f"DROP ROLE {name}".encode())
    hook.run(change_public("GRANT", "TO"))


@pytest.fixture(scope="module")
def pipeline(admin: RedshiftSQLHook) -> RedshiftSQLHook:
    """The hook of the pipeline's user, after a run of the sample data."""
    Pipeline("sparkify_create_roles").run("roles")
    Pipeline().run("sample")
    return RedshiftSQLHook(redshift_conn_id="redshift", log_sql=False)


Ask = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def analyst(pipeline: object, admin: RedshiftSQLHook, stack: Settings) -> Iterator[Ask]:
    """Asks as an analyst who has the role."""
    admin.run(["CREATE USER ana PASSWORD 'Questions1'", "ALTER USER ana SET search_path TO sparkify"])
    admin.run(f"GRANT ROLE {ROLE} TO ana")
    with psycopg.connect(
        stack.redshift_dsn, user="ana", password="Questions1", autocommit=True
    ) as connection:
        yield lambda sql: connection.execute(sql.encode()).fetchall()


def refused(ask: Callable[[str], Any], sql: str) -> bool:
    error: Any = psycopg.errors.InsufficientPrivilege, redshift_connector.ProgrammingError
    with pytest.raises(error) as refusal:
        ask(sql)
    assert "42501" in (
        getattr(refusal.value, "sqlstate", ""),
        getattr(refusal.value.args[0], "get", str)("C"),
    ), refusal.value
    return True


# --- the pipeline's user ---


def test_the_run_builds_the_right_star_in_the_schema_that_it_owns(
    pipeline: RedshiftSQLHook, stack: Settings
) -> None:
    sample = stack.home / "sample"
    expected = expected_star(read_events(sample), read_songs(sample))
    found = star(pipeline)
    assert len(found["fact_songplays"]) > 6000
    for table in STAR:
        assert found[table] == expected[table], table
    schemas = rows(
        pipeline, "SELECT DISTINCT schemaname, tableowner FROM pg_tables WHERE tableowner = CURRENT_USER"
    )
    assert schemas == [("sparkify", USER)]


@pytest.fixture(scope="module")
def elsewhere(admin: RedshiftSQLHook) -> Iterator[None]:
    """Another's schemas: one that can be looked into, one that cannot."""
    admin.run(
        ["CREATE SCHEMA lobby", "CREATE TABLE lobby.pets (id INT)", "GRANT USAGE ON SCHEMA lobby TO PUBLIC"]
    )
    admin.run(["CREATE SCHEMA vault", "CREATE TABLE vault.pets (id INT)"])
    yield
    admin.run(["DROP SCHEMA lobby CASCADE", "DROP SCHEMA vault CASCADE"])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM lobby.pets",
        "INSERT INTO lobby.pets VALUES (1)",
        "DROP TABLE lobby.pets",
        "SELECT * FROM vault.pets",
        "CREATE TABLE lobby.more (id INT)",
        "CREATE TABLE public.more (id INT)",
        "CREATE SCHEMA more",
        "CREATE USER more PASSWORD DISABLE",
        "CREATE ROLE more",
        f"ALTER USER {USER} SYSLOG ACCESS UNRESTRICTED",
        "ALTER USER sparkify PASSWORD 'Sparkify1'",
        f"GRANT ROLE {ROLE} TO {USER}",
        f"GRANT USAGE ON SCHEMA vault TO {USER}",
        f"GRANT ASSUMEROLE ON ALL TO {USER} FOR ALL",
        "COPY staging_songs FROM 's3://udacity-dend/' IAM_ROLE default FORMAT AS JSON 'auto'",
        "SET SESSION AUTHORIZATION sparkify",
    ],
)
def test_the_pipelines_user_is_refused(pipeline: RedshiftSQLHook, elsewhere: None, sql: str) -> None:
    assert refused(pipeline.run, sql)


def test_the_pipelines_user_sees_its_own_loads_alone(
    pipeline: RedshiftSQLHook, admin: RedshiftSQLHook
) -> None:
    loads = "sys_load_history INNER JOIN svv_user_info USING (user_id)"
    assert rows(pipeline, f"SELECT DISTINCT user_name FROM {loads}") == [(USER,)]
    own = rows(pipeline, "SELECT COUNT(*) FROM sys_load_history")
    assert rows(admin, f"SELECT COUNT(*) FROM {loads} WHERE user_name = '{USER}'") == own


def test_the_setup_check_finds_these_privileges_enough(pipeline: RedshiftSQLHook) -> None:
    assert (
        f"user {USER} may do all that a run does" in check_privileges("redshift", "sparkify", ROLE)["found"]
    )


def least_privileges(user: str, schema: str) -> list[str]:
    """Return the statements that the DAG grants the pipeline's user its privileges with."""
    script = (SQL_FOLDER / "grants" / "pipeline.sql").read_text()
    names = {"user": quoted(user), "schema": schema, "database": quoted(REDSHIFT_DATABASE)}
    statements = sqlparse.split(jinja2.Template(script).render(names), strip_semicolon=True)
    return [*statements, f"GRANT ASSUMEROLE ON '{COPY_ROLE}' TO {quoted(user)} FOR COPY"]


@pytest.fixture
def songs(s3: S3Hook) -> Iterator[None]:
    s3.create_bucket("runs", region_name="us-west-2")
    s3.load_string(json.dumps(SONG), "song_data/1.json", "runs")
    s3.load_string(json.dumps(EVENT), "log_data/1.json", "runs")
    yield
    s3.delete_bucket("runs", force_delete=True)


@pytest.mark.parametrize(
    ("left_out", "task", "message"),
    [
        ("CREATE SCHEMA", "create_tables", "no schema has been selected to create in"),
        ("AUTHORIZATION", "create_tables", "no schema has been selected to create in"),
        # The schema public may hold the tables of other tests.
        ("ALTER USER", "create_tables", "permission denied for (schema public|relation etl_migrations)"),
        ("GRANT TEMP", "load_dim_users", "permission denied to create temporary tables"),
        ("GRANT ASSUMEROLE", "stage_events", "does not have ASSUMEROLE permission"),
        ("NOTHING", "", ""),
    ],
)
def test_without_any_one_of_its_privileges_a_task_fails(
    admin: RedshiftSQLHook, songs: None, settings: pytest.MonkeyPatch, left_out: str, task: str, message: str
) -> None:
    user = f"lacks_{left_out.lower().replace(' ', '_')}"
    schema = f"of_{user}"
    admin.run(f"CREATE USER {user} PASSWORD '{PASSWORD}'")
    statements = least_privileges(user, schema)
    if left_out == "AUTHORIZATION":  # the schema is there, and another's
        statements[0] = f"CREATE SCHEMA {schema}"
    admin.run([each for each in statements if left_out == "AUTHORIZATION" or left_out not in each])
    connection = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"]) | {"login": user}
    run = Pipeline()
    with settings.context() as own:
        own.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(connection))
        own.setenv("AIRFLOW_VAR_SPARKIFY_ANALYSTS_ROLE", "")
        if not task:
            assert run.run("run 1", variables=PREFIXES)["record_files"]
            return
        with pytest.raises((redshift_connector.ProgrammingError, AirflowFailException), match=message):
            run.run("run 1", variables=PREFIXES)
    assert run.current_task == task


# --- analysts ---


@pytest.mark.parametrize("table", READABLE)
def test_an_analyst_reads(analyst: Ask, pipeline: RedshiftSQLHook, table: str) -> None:
    ((count,),) = rows(pipeline, f"SELECT COUNT(*) FROM {table}")
    assert len(analyst(f"SELECT {READABLE[table]} FROM {table}")) == count
    assert analyst(f"SELECT COUNT(*) FROM {table}") == [(count,)]
    assert count or table == "etl_rejected_rows"


@pytest.mark.parametrize("path", sorted((SQL_FOLDER / "analytics").glob("*.sql")), ids=lambda path: path.stem)
def test_an_analyst_gets_an_answer_to_every_question(analyst: Ask, path: Any) -> None:
    assert analyst(bound(path, EVER))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM staging_events",
        "SELECT title FROM staging_songs",
        *(
            f"SELECT {column} FROM etl_rejected_rows"
            for column in ("raw_line", "raw_value", "reason", "s3_key")
        ),
        "SELECT example FROM etl_quality_results",
        "SELECT reason FROM etl_files",
        *(f"SELECT * FROM {table}" for table in COUNTS),
        *(f"SELECT run_id FROM {table}" for table in ("etl_batches", "etl_migrations")),
    ],
)
def test_an_analyst_does_not_read_what_may_name_people_or_is_locked(analyst: Ask, sql: str) -> None:
    assert refused(analyst, sql)


def test_a_transaction_that_an_analyst_leaves_open_holds_no_run_up(
    analyst: Ask, admin: RedshiftSQLHook, stack: Settings, songs: None
) -> None:
    admin.run(f"ALTER USER {USER} SET statement_timeout TO 20000")  # a lock that is waited for is an error
    with psycopg.connect(stack.redshift_dsn, user="ana", password="Questions1") as connection:
        whole = [
            table for table in TABLES if analyst(f"SELECT HAS_TABLE_PRIVILEGE('{table}', 'select')")[0][0]
        ]
        for table, columns in {**dict.fromkeys(whole, "*"), **COUNTS}.items():
            connection.execute(f"SELECT {columns} FROM {table}".encode())
        assert Pipeline().run("meanwhile", variables=PREFIXES)["record_files"]
    admin.run(f"ALTER USER {USER} RESET statement_timeout")


@pytest.mark.parametrize("table", TABLES)
def test_an_analyst_changes_nothing(analyst: Ask, table: str) -> None:
    column = (SQL_FOLDER / "ddl" / f"{table}.sql").read_text().split("(\n")[1].split()[0]
    for sql in (
        f"INSERT INTO {table} SELECT * FROM {table}",
        f"UPDATE {table} SET {column} = NULL",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE {table} ADD COLUMN more INT",
        f"COPY {table} FROM 's3://udacity-dend/song_data' IAM_ROLE '{COPY_ROLE}' FORMAT AS JSON 'auto'",
        "CREATE TABLE more (id INT)",
    ):
        assert refused(analyst, sql)


def test_an_analyst_still_reads_after_all_tables_were_dropped_and_created(
    analyst: Ask, pipeline: RedshiftSQLHook
) -> None:
    Pipeline("sparkify_create_tables").run("again", from_task="drop_tables")
    for table, columns in READABLE.items():
        analyst(f"SELECT {columns} FROM {table}")
    assert refused(analyst, "SELECT * FROM staging_events")
    assert refused(analyst, "SELECT raw_line FROM etl_rejected_rows")
    Pipeline().run("sample again")
    assert analyst("SELECT COUNT(*) > 6000 FROM fact_songplays") == [(True,)]


def test_an_analyst_who_could_read_whole_files_of_the_ledger_no_longer_reads_reasons(
    analyst: Ask, pipeline: RedshiftSQLHook
) -> None:
    older = [f"REVOKE SELECT ON etl_files FROM ROLE {ROLE}", f"GRANT SELECT ON etl_files TO ROLE {ROLE}"]
    pipeline.run(older)
    assert analyst("SELECT COUNT(reason) FROM etl_files")
    pipeline.run("DELETE FROM etl_migrations WHERE migration = '0003_file_status'")
    Pipeline().run("upgrade", params={"check_ledger": True})
    assert refused(analyst, "SELECT reason FROM etl_files")
    assert analyst("SELECT COUNT(status) > 0 FROM etl_files") == [(True,)]


def test_an_analyst_still_reads_after_a_migration_replaced_a_table(
    analyst: Ask, pipeline: RedshiftSQLHook, settings: pytest.MonkeyPatch
) -> None:
    replace = (
        "SELECT 1; CREATE TABLE new_time (LIKE dim_time); INSERT INTO new_time SELECT * FROM dim_time;"
        "DROP TABLE dim_time; ALTER TABLE new_time RENAME TO dim_time"
    )
    run = Pipeline()
    create_tables = run.dag.get_task("create_tables")
    settings.setattr(create_tables, "migrations", {**MIGRATIONS, "9999_replace": replace})
    run.run("migration")
    assert analyst("SELECT COUNT(*) > 6000 FROM dim_time") == [(True,)]
    pipeline.run("DELETE FROM etl_migrations WHERE migration = '9999_replace'")


# --- the DAG that creates them ---


def privileges(stack: Settings) -> list[tuple[Any, ...]]:
    """Return every privilege and owner that PostgreSQL knows of, but for what ends with a session."""
    server = Postgres(stack)
    server.start()
    with psycopg.connect(server.dsn) as postgres:
        return [
            *postgres.execute("SELECT rolname, rolconfig FROM pg_roles ORDER BY 1"),
            *postgres.execute(
                "SELECT nspname, nspowner, nspacl FROM pg_namespace WHERE nspname !~ '_temp_' ORDER BY 1"
            ),
            *postgres.execute(
                "SELECT oid, relowner, relacl FROM pg_class WHERE relpersistence <> 't' ORDER BY 1"
            ),
            *postgres.execute(
                "SELECT attrelid, attnum, attacl FROM pg_attribute WHERE attacl IS NOT NULL ORDER BY 1, 2"
            ),
            *postgres.execute("TABLE rs_catalog.passwords ORDER BY 1"),
            *postgres.execute("TABLE rs_catalog.iam_role_grants ORDER BY 1, 2, 3"),
        ]


def create_roles(**variables: str) -> Pipeline:
    run = Pipeline("sparkify_create_roles")
    run.run("roles", variables=variables)
    return run


def test_the_dag_may_be_triggered_again(analyst: Ask, stack: Settings) -> None:
    before = privileges(stack)
    create_roles()
    assert privileges(stack) == before


def test_tables_that_are_there_are_granted_to_a_role_that_comes_later(
    analyst: Ask, admin: RedshiftSQLHook
) -> None:
    create_roles(sparkify_analysts_role="readers")
    query = "SELECT HAS_TABLE_PRIVILEGE('readers', '{}', 'select')"
    assert analyst(query.format("dim_users")) == [(True,)]
    assert analyst(query.format("staging_events")) == [(False,)]


@pytest.mark.parametrize(
    "extra",
    [{"iam": True, "cluster_identifier": "sparkify", "db_user": "by_iam"}, {}],
    ids=["iam", "no password"],
)
def test_a_user_who_logs_in_by_iam_is_given_no_password(
    admin: RedshiftSQLHook, settings: pytest.MonkeyPatch, stack: Settings, extra: dict[str, Any]
) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"]) | {"login": "by_iam"}
    connection["extra"] |= extra
    if not extra:
        del connection["password"]
    with settings.context() as own:
        own.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(connection))
        create_roles(sparkify_schema="by_iam", sparkify_analysts_role="")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(stack.redshift_dsn, user="by_iam", password=PASSWORD)


def test_the_user_may_be_that_of_an_iam_role(admin: RedshiftSQLHook, stack: Settings) -> None:
    run = Pipeline("sparkify_create_roles")
    run.run("roles", params={"pipeline_user": "IAMR:Airflow"}, variables={"sparkify_schema": "by_role"})
    login = "IAM:IAMR:Airflow"
    password = temporary_password.sign(login, datetime.now(UTC) + timedelta(minutes=15))
    with psycopg.connect(stack.redshift_dsn, user=login, password=password) as connection:
        found = connection.execute("SELECT CURRENT_USER, CURRENT_SCHEMA()").fetchall()
    assert found == [("IAMR:Airflow", "by_role")]


def test_anothers_schema_is_not_taken(pipeline: RedshiftSQLHook, elsewhere: None, stack: Settings) -> None:
    before = privileges(stack)
    with pytest.raises(AirflowFailException, match="Schema lobby belongs to sparkify"):
        create_roles(sparkify_schema="lobby")
    assert privileges(stack) == before


@pytest.mark.parametrize(
    ("params", "variables"),
    [
        ({"pipeline_user": 'x"; DROP USER ana; --'}, {}),
        ({"pipeline_user": "x' OR 'a' = 'a"}, {}),
        ({}, {"sparkify_schema": "public; DROP SCHEMA sparkify"}),
        ({}, {"sparkify_analysts_role": "x, PUBLIC"}),
        ({}, {"sparkify_iam_role": "x' TO PUBLIC FOR ALL; --"}),
    ],
)
def test_a_name_that_is_none_reaches_no_statement(
    pipeline: object, stack: Settings, params: dict[str, str], variables: dict[str, str]
) -> None:
    before = privileges(stack)
    with pytest.raises((ValueError, AirflowFailException), match="is not "):
        Pipeline("sparkify_create_roles").run("roles", params=params, variables=variables)
    assert privileges(stack) == before


def test_the_password_shows_nowhere(admin: RedshiftSQLHook, metadata: psycopg.Connection) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"]) | {"login": "secretive"}
    run = airflow(
        *("dags", "test", "sparkify_create_roles"),
        AIRFLOW_CONN_REDSHIFT=json.dumps(connection),
        AIRFLOW_VAR_SPARKIFY_SCHEMA="secretive",
        AIRFLOW__LOGGING__MIN_LENGTH_MASKED_SECRET="100",  # nothing is masked: nothing need be
    )
    assert run.returncode == 0, run.stdout
    assert 'Created user "secretive", who logs in by password' in run.stdout
    database = everything_in(metadata)
    assert "ALTER USER" in database  # rendered templates are what is searched
    statements = str(rows(admin, "SELECT statement FROM local_statements"))
    digest = md5(f"{PASSWORD}secretive".encode(), usedforsecurity=False).hexdigest()
    for secret in (PASSWORD, digest):
        assert secret not in masked(run.stdout)
        assert secret not in database
        assert secret not in statements


def test_without_a_role_of_analysts_nothing_is_granted(
    admin: RedshiftSQLHook, pipeline: RedshiftSQLHook, songs: None
) -> None:
    asked = "SELECT COUNT(*) FROM local_statements WHERE statement LIKE 'GRANT%'"
    before = rows(admin, asked)
    Pipeline("sparkify_create_tables").run(
        "again", from_task="drop_tables", variables={"sparkify_analysts_role": ""}
    )
    assert rows(admin, asked) == before
