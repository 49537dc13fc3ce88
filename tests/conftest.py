"""The local stack, started once for all tests in a folder of its own, and Airflow's settings for it."""

import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiosmtpd.controller import Controller
from hypothesis import settings

# Airflow reads its settings when it is first imported, which is below.
_HOME = Path(tempfile.mkdtemp(prefix="sparkify-tests-"))
_HOME.chmod(0o755)  # where tests run as root, an unprivileged PostgreSQL reaches its data there


def free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


os.environ |= {
    "SPARKIFY_LOCAL_DIR": str(_HOME),
    "SPARKIFY_REDSHIFT_PORT": str(free_port()),
    "SPARKIFY_S3_PORT": str(free_port()),
    "LOCAL_REDSHIFT_FAULTS": str(_HOME / "fault"),
    "LOCAL_S3_FAULTS": str(_HOME / "s3-fault"),
}

from local import airflow  # noqa: E402
from local.__main__ import airflow_environment  # noqa: E402
from local.redshift import postgres  # noqa: E402
from local.settings import Settings  # noqa: E402

SETTINGS = Settings()
os.environ |= airflow_environment(SETTINGS)

from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook  # noqa: E402
from airflow.providers.amazon.aws.hooks.s3 import S3Hook  # noqa: E402
from airflow.providers.common.sql.hooks.sql import DbApiHook  # noqa: E402
from redshift_connector.iam_helper import IamHelper  # noqa: E402

from sparkify.state import WAREHOUSE  # noqa: E402
from sparkify.tables import TABLES  # noqa: E402
from tests.asset_state import AssetState, AssetStates  # noqa: E402
from tests.mail import ONCALL, Mailbox, smtp_connection  # noqa: E402

REPOSITORY = Path(__file__).parents[1]

settings.register_profile("default", max_examples=25, derandomize=True, deadline=None, print_blob=False)
settings.register_profile("soak", max_examples=200, derandomize=False, deadline=None, print_blob=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def stack() -> Iterator[Settings]:
    """The local S3 and the local Redshift, with generated sample data."""
    command = [sys.executable, "-m", "local"]
    subprocess.run([*command, "up"], cwd=REPOSITORY, check=True)
    yield SETTINGS
    subprocess.run([*command, "down"], cwd=REPOSITORY, check=True)


@pytest.fixture(scope="session")
def new_metadata(stack: Settings) -> Callable[[str], None]:
    """Return what makes a metadata database as before Airflow's first run, in place of one of that name."""
    airflow.migrate(stack, os.environ)

    def run(*statements: str) -> None:
        with psycopg.connect(postgres.dsn(stack, "postgres"), autocommit=True) as server:
            for statement in statements:
                server.execute(statement.encode())

    run(f"ALTER DATABASE {airflow.DATABASE} RENAME TO migrated")
    return lambda name: run(
        f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name} TEMPLATE migrated"
    )


@pytest.fixture(scope="module")
def metadata(stack: Settings, new_metadata: Callable[[str], None]) -> Iterator[psycopg.Connection]:
    """
    Airflow's metadata database, without a memory of what other test files had it run.

    What it remembers of S3 would let the next run load nothing, and runs of theirs would hold up this file's.
    """
    new_metadata(airflow.DATABASE)
    with psycopg.connect(postgres.dsn(stack, airflow.DATABASE), autocommit=True) as connection:
        yield connection


def everything_in(database: psycopg.Connection) -> str:
    """Return the rows of all tables as text."""
    tables = database.execute("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")
    rows = [database.execute(f"SELECT t::TEXT FROM {name} AS t".encode()) for (name,) in tables.fetchall()]
    return "\n".join(row for found in rows for (row,) in found)


@pytest.fixture
def s3(stack: Settings) -> S3Hook:
    """The local S3, through the connection that the project uses."""
    return S3Hook(aws_conn_id="aws_default")


@pytest.fixture
def s3_requests(stack: Settings) -> Iterator[Counter[tuple[str, str]]]:
    """The number of requests to S3 of a pipeline's runs, by operation and bucket."""
    from tests.pipeline import s3_client  # which reads all DAGs

    counted: Counter[tuple[str, str]] = Counter()

    def count(params: Mapping[str, Any], model: Any, **_: Any) -> None:
        counted[model.name, params["Bucket"]] += 1

    events = s3_client("aws_default").meta.events
    events.register("provide-client-params.s3", count)
    yield counted
    events.unregister("provide-client-params.s3", count)


@pytest.fixture(scope="session")
def created(stack: Settings) -> RedshiftSQLHook:
    """The local Redshift with all tables."""
    hook = RedshiftSQLHook(redshift_conn_id="redshift", log_sql=False)
    hook.run([(REPOSITORY / "include" / "sql" / "ddl" / f"{table}.sql").read_text() for table in TABLES])
    return hook


@pytest.fixture
def warehouse(created: RedshiftSQLHook) -> RedshiftSQLHook:
    """The local Redshift with all tables, empty."""
    created.run([f"DELETE FROM {table}" for table in TABLES])
    return created


@pytest.fixture
def runs(warehouse: RedshiftSQLHook, s3: S3Hook) -> Iterator[Any]:
    """A bucket with a file of each dataset, and one run after another over it."""
    from tests.runs import EVENT, OTHER_SONG, Runs  # which read all DAGs

    s3.create_bucket("runs", region_name="us-west-2")
    runs = Runs(s3)
    runs.put("song_data/other.json", OTHER_SONG)
    runs.put("log_data/1.json", EVENT, EVENT | {"itemInSession": 1, "ts": EVENT["ts"] + 1000})
    yield runs
    s3.delete_bucket("runs", force_delete=True)


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    """A mail server, to which the connection smtp_default leads."""
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", smtp_connection(controller.port))
    monkeypatch.setenv("AIRFLOW_VAR_SPARKIFY_ALERTS", ONCALL)
    yield box
    controller.stop()


def rows(hook: DbApiHook, sql: str) -> list[tuple]:
    """Return a query's rows as tuples, whatever the driver makes of them."""
    return [tuple(row) for row in hook.get_records(sql)]


#: Values of the parameters in ``include/sql/analytics``, and of those that filter nothing in ``operations``.
EVER = {
    **{"range_start": "'2000-01-01'", "range_end": "'2100-01-01'"},
    **{"dataset": "''", "run": "''", "file": "''", "reason": "''", "page": "0"},
}


def bound(question: Path, values: Mapping[str, str]) -> str:
    """Return a question with constants in place of its parameters, as a client may put them there."""
    return re.sub(r":(\w+)", lambda found: values[found[1]], question.read_text())


def context(**changes: Any) -> Any:
    """Return what the operators use of a task's context: a run without parameters, the first of all."""
    params = {"check_ledger": False, "reload_prefix": None, "replace_from": None, "replace_to": None}
    return {
        "run_id": "run 1",
        "params": {**params, "dry_run": False, **changes.pop("params", {})},
        "asset_state_store": AssetStates({WAREHOUSE.name: AssetState()}),
        **changes,
    }


@pytest.fixture(autouse=True)
def no_login_of_another_test() -> None:
    """Let Amazon's driver ask for the login of each test: it keeps those by IAM for 15 minutes."""
    IamHelper.credentials_cache.clear()


@pytest.fixture
def tries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Airflow's hook not wait before it tries again to connect, as it does from provider 9.13 on."""
    if hasattr(RedshiftSQLHook.get_conn, "retry"):
        monkeypatch.setattr(RedshiftSQLHook.get_conn.retry, "sleep", lambda seconds: None)


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return everything logged so far: operators log to standard output, Airflow 3.0.6's to the root, too."""
    seen: list[str] = []

    def text() -> str:
        seen.append(capfd.readouterr().out)
        printed = "".join(seen)
        return printed + "\n".join(message for message in caplog.messages if message not in printed)

    return text


def pytest_sessionfinish() -> None:
    """Remove the tests' folder."""
    shutil.rmtree(_HOME, ignore_errors=True)
