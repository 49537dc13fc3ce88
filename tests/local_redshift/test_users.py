import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from typing import Any

import psycopg
import pytest
from psycopg import sql

from local import temporary_password
from local.redshift.journal import without_secrets
from local.redshift.server import Server
from tests.local_redshift.conftest import Connect

PASSWORD = "Mypassword1"
SALT = "c721bff5d9042cf541ff7b9d48fa8a6e545c19a763e3710151f9513038b0f6c6"
ROLE = "IAM_ROLE 'arn:aws:iam::123456789012:role/sparkify-redshift-copy' FORMAT AS JSON 'auto'"


@pytest.fixture
def admin(warehouse: psycopg.Connection, server: Server) -> Iterator[psycopg.Connection]:
    """The superuser's connection; the users and roles of the test go with it."""
    yield warehouse
    with psycopg.connect(server.postgres.dsn, autocommit=True) as connection:
        users = connection.execute("SELECT rolname FROM rs_catalog.users WHERE NOT superuser").fetchall()
        roles = connection.execute("SELECT rolname FROM rs_catalog.roles").fetchall()
        for name in [sql.Identifier(*row) for row in users + roles]:
            connection.execute(sql.SQL("DROP OWNED BY {0} CASCADE").format(name))
            connection.execute(sql.SQL("DROP ROLE {0}").format(name))


def rows(connection: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()


def refused(connect: Connect, user: str, password: str) -> bool:
    with pytest.raises(psycopg.OperationalError, match=f'password authentication failed for user "{user}"'):
        connect(user=user, password=password)
    return True


def temporary(user: str) -> dict[str, str]:
    login = f"IAM:{user}"
    return {
        "user": login,
        "password": temporary_password.sign(login, datetime.now(UTC) + timedelta(minutes=15)),
    }


@pytest.mark.parametrize(
    "given",
    [
        PASSWORD,
        "md5" + md5(f"{PASSWORD}ann".encode()).hexdigest(),
        f"sha256|{PASSWORD}",
        f"sha256|{sha256(PASSWORD.encode() + bytes.fromhex(SALT)).hexdigest()}|{SALT}",
    ],
)
def test_a_user_logs_in_with_the_password_however_it_was_given(
    admin: psycopg.Connection, connect: Connect, given: str
) -> None:
    admin.execute(f"CREATE USER ann PASSWORD '{given}'".encode())
    assert rows(connect(user="ann", password=PASSWORD), "SELECT CURRENT_USER") == [("ann",)]
    for wrong in (given if given != PASSWORD else "sparkify", PASSWORD.lower(), " "):
        assert refused(connect, "ann", wrong)


def test_without_a_password_a_user_logs_in_with_temporary_ones_alone(
    admin: psycopg.Connection, connect: Connect
) -> None:
    admin.execute("CREATE USER ann PASSWORD DISABLE")
    admin.execute('CREATE USER "IAMR:Analysts" PASSWORD DISABLE')
    assert refused(connect, "ann", " ")
    assert rows(connect(**temporary("ann")), "SELECT CURRENT_USER") == [("ann",)]
    assert rows(connect(**temporary("IAMR:Analysts")), "SELECT CURRENT_USER") == [("IAMR:Analysts",)]
    assert refused(connect, "IAM:ann", temporary("bob")["password"])
    for nobody in ("bob", "postgres"):
        assert refused(connect, **temporary(nobody))


def test_a_password_ends_with_its_validity_its_users_name_or_the_user(
    admin: psycopg.Connection, connect: Connect
) -> None:
    for user in ("ann", "bob", "cid"):
        admin.execute(f"CREATE USER {user} PASSWORD '{PASSWORD}'".encode())
    admin.execute("ALTER USER ann VALID UNTIL '2020-01-01'")
    admin.execute("ALTER USER bob RENAME TO robert")
    admin.execute("DROP USER cid")
    for user in ("ann", "bob", "robert", "cid"):
        assert refused(connect, user, PASSWORD)
    admin.execute("ALTER USER ann VALID UNTIL 'infinity'")
    admin.execute("ALTER USER robert PASSWORD 'Another2'")
    assert rows(connect(user="ann", password=PASSWORD), "SELECT 1") == [(1,)]
    assert rows(connect(user="robert", password="Another2"), "SELECT 1") == [(1,)]


def test_users_change_their_own_password_until_it_is_disabled(
    admin: psycopg.Connection, connect: Connect
) -> None:
    for user in ("ann", "bob"):
        admin.execute(f"CREATE USER {user} PASSWORD '{PASSWORD}'".encode())
    ann = connect(user="ann", password=PASSWORD)
    ann.execute("ALTER USER ann PASSWORD 'Another2'")
    assert refused(connect, "ann", PASSWORD)
    for statement in (
        "ALTER USER bob PASSWORD 'Another2'",
        "ALTER USER ann PASSWORD DISABLE",
        "ALTER USER ann PASSWORD 'Another2' VALID UNTIL 'infinity'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be superuser to alter users"):
            ann.execute(statement.encode())
    admin.execute("ALTER USER ann PASSWORD DISABLE")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be superuser to enable"):
        ann.execute("ALTER USER ann PASSWORD 'Another3'")
    assert rows(connect(user="bob", password=PASSWORD), "SELECT 1") == [(1,)]


def test_passwords_are_nowhere_in_clear(
    admin: psycopg.Connection, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for statement in (
        f"CREATE USER ann PASSWORD '{PASSWORD}'",
        f"CREATE USER ann PASSWORD /* twice */ '{PASSWORD}'",
        f"ALTER USER ann PASSWORD'sha256|{PASSWORD}'",
        f"ALTER USER nobody WITH password '{PASSWORD}'",
        f"CREATE USER bob PASSWORD '{PASSWORD}",
        f"CREATE USER bob PASSWORD '{PASSWORD}''s'",
        f"CREATE USER bob PASSWORD $${PASSWORD}$$",
        f"CREATE USER bob PASSWORD E'{PASSWORD}'",
    ):
        with suppress(psycopg.Error):
            admin.execute(statement.encode())
    assert rows(admin, "SELECT COUNT(*) FROM local_statements")  # writes what waits
    with psycopg.connect(server.postgres.dsn) as connection:
        kept = "".join(
            str(connection.execute(query).fetchall())
            for query in (
                "TABLE rs_catalog.statements",
                "TABLE rs_catalog.passwords",
                "SELECT query FROM pg_stat_activity",
            )
        )
    log = next(server.settings.home.rglob("postgresql.log")).read_text()
    assert "CREATE USER ann PASSWORD '***'" in kept
    assert "42710" in caplog.text
    for text in (kept, log, caplog.text):
        assert PASSWORD not in text


@pytest.mark.parametrize(
    "statement",
    [
        "PASSWORD 'x'",
        "password\t'x''y'",
        "PASSWORD'x'",
        "PASSWORD -- so\n'x'",
        "PASSWORD 'x",
        r"PASSWORD 'x\'y'",
        "PASSWORD E'x'",
        "PASSWORD $$x$$",
        "PASSWORD $a$x$b$y$a$",
        "PASSWORD $$x",
    ],
)
def test_a_password_is_cut_out_of_a_statement(statement: str) -> None:
    kept = without_secrets(f"CREATE USER ann {statement}")
    assert "'***'" in kept
    assert not {"x", "y"} & set(kept)


def test_a_statement_of_many_comments_holds_nothing_up() -> None:
    for statement in (
        "PASSWORD" + " /* no */" * 10_000,
        "PASSWORD '" + "\\" * 10_001,
        "PASSWORD" + " AS" * 10_000,
    ):
        assert without_secrets(statement)


def test_settings_of_a_user_hold_from_the_next_login(admin: psycopg.Connection, connect: Connect) -> None:
    admin.execute(f"CREATE USER ann PASSWORD '{PASSWORD}'".encode())
    admin.execute("ALTER USER ann SET search_path TO test, public")
    assert rows(connect(user="ann", password=PASSWORD), "SHOW search_path") == [("test, public",)]
    admin.execute("ALTER USER ann RESET search_path")
    assert rows(connect(user="ann", password=PASSWORD), "SHOW search_path") == [('"$user", public',)]


def test_no_more_connections_than_allowed(admin: psycopg.Connection, connect: Connect) -> None:
    admin.execute(f"CREATE USER ann PASSWORD '{PASSWORD}' CONNECTION LIMIT 1".encode())
    connect(user="ann", password=PASSWORD)
    with pytest.raises(psycopg.OperationalError, match="too many connections"):
        connect(user="ann", password=PASSWORD)


def test_a_granted_role_counts_at_once_in_sessions_that_are_open(
    admin: psycopg.Connection, connect: Connect
) -> None:
    admin.execute("CREATE TABLE pets (id INT)")
    admin.execute(f"CREATE USER ann PASSWORD '{PASSWORD}'".encode())
    admin.execute("CREATE ROLE keepers")
    admin.execute("GRANT USAGE ON SCHEMA test TO ROLE keepers")
    admin.execute("GRANT SELECT ON pets TO ROLE keepers")
    ann = connect(user="ann", password=PASSWORD)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for schema test"):
        ann.execute("SELECT * FROM test.pets")
    admin.execute("GRANT ROLE keepers TO ann")
    assert rows(ann, "SELECT * FROM test.pets") == []
    admin.execute("REVOKE ROLE keepers FROM ann")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ann.execute("SELECT * FROM test.pets")


def test_system_views_show_ordinary_users_their_own_loads(
    admin: psycopg.Connection, connect: Connect, bucket: Any
) -> None:
    bucket.put_object(Key="pets/1.json", Body=b'{"id": 1} {"id": "x"}')
    admin.execute("CREATE TABLE pets (id INT)")
    admin.execute("GRANT USAGE ON SCHEMA test TO PUBLIC")
    admin.execute("GRANT INSERT ON pets TO PUBLIC")
    sessions = {}
    for user in ("ann", "bob"):
        admin.execute(f"CREATE USER {user} PASSWORD '{PASSWORD}'".encode())
        sessions[user] = connect(user=user, password=PASSWORD)
        sessions[user].execute(f"COPY test.pets FROM 's3://{bucket.name}/pets/' MAXERROR 2 {ROLE}".encode())
    admin.execute(f"COPY pets FROM 's3://{bucket.name}/pets/' MAXERROR 2 {ROLE}".encode())
    pids = ", ".join(str(each.info.backend_pid) for each in (admin, *sessions.values()))
    views = {
        "sys_load_history": "session_id",
        "sys_load_error_detail": "session_id",
        "stl_load_errors": "session",
    }
    for view, session in views.items():
        query = f"SELECT {session} FROM {view} WHERE {session} IN ({pids})"
        for each in sessions.values():
            assert rows(each, query) == [(each.info.backend_pid,)], view
        assert len(rows(admin, query)) == 3, view
    for each in sessions.values():
        assert rows(each, "SELECT COUNT(*) FROM sys_load_detail") == [(1,)]
    admin.execute("ALTER USER bob SYSLOG ACCESS UNRESTRICTED")
    assert len(rows(sessions["bob"], query)) == 3
    assert len(rows(sessions["ann"], query)) == 1


@pytest.mark.parametrize(
    "table", ["passwords", "loads", "load_errors", "load_files", "statements", "iam_role_grants"]
)
def test_what_the_server_keeps_is_read_through_views_alone(connect: Connect, table: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect().execute(f"SELECT * FROM rs_catalog.{table}".encode())


@pytest.mark.parametrize(
    "call",
    [
        "rs_catalog.set_password('sparkify', 'md5')",
        "RS_CATALOG.later(NULL)",
        "\"rs_catalog\".dblink('journal', 'SELECT 1')",
        "rs_catalog.change_assumerole('GRANT', ARRAY['ALL'], ARRAY['COPY'], ARRAY['bob'])",
    ],
)
def test_no_client_calls_the_servers_own_functions(connect: Connect, call: str) -> None:
    for query in (f"SELECT {call}", f"SELECT {call} FROM pg_catalog.pg_class"):
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            connect().execute(query.encode())


def test_the_superuser_does_not_reach_the_machine(connect: Connect) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect().execute("SELECT pg_catalog.pg_read_file('/etc/passwd') FROM pg_catalog.pg_class")
