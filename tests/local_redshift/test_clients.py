"""Clients that others wrote: Airflow's own operators on a ``redshift`` connection, and SQLAlchemy."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.amazon.aws.transfers.s3_to_redshift import S3ToRedshiftOperator
from airflow.providers.common.sql.operators.sql import (
    SQLColumnCheckOperator,
    SQLExecuteQueryOperator,
    SQLTableCheckOperator,
)
from botocore.exceptions import ClientError
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, select
from sqlalchemy.engine import make_url

from local.settings import REGION, Settings
from sparkify.compat import AirflowException
from tests.conftest import rows

BUCKET = "pets"
NEW = ({"id": 2, "name": "Zoé"}, {"id": 3, "name": "Rex"})


@pytest.fixture
def pets(created: RedshiftSQLHook, s3: S3Hook) -> Iterator[RedshiftSQLHook]:
    """A table of pets 1 and 2, and a file of pets 2 and 3."""
    s3.create_bucket(BUCKET, region_name=REGION)
    s3.load_string("\n".join(map(json.dumps, NEW)), "new.json", BUCKET, replace=True)
    created.run(
        [
            "CREATE TABLE pets (id INT PRIMARY KEY, name VARCHAR(10))",
            "INSERT INTO pets VALUES (1, 'Tom'), (2, 'Zoe')",
        ]
    )
    yield created
    created.run("DROP TABLE pets")
    s3.delete_bucket(BUCKET, force_delete=True)


def transfer(**changes: Any) -> S3ToRedshiftOperator:
    return S3ToRedshiftOperator(
        task_id="transfer",
        schema="public",
        table="pets",
        s3_bucket=BUCKET,
        s3_key="new.json",
        redshift_conn_id="redshift",
        aws_conn_id="aws_default",
        copy_options=["FORMAT AS JSON 'auto'"],
        **changes,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "APPEND"}, [(1, "Tom"), (2, "Zoe"), (2, "Zoé"), (3, "Rex")]),
        ({"method": "REPLACE"}, [(2, "Zoé"), (3, "Rex")]),
        ({"method": "UPSERT", "upsert_keys": ["id"]}, [(1, "Tom"), (2, "Zoé"), (3, "Rex")]),
        ({"method": "UPSERT"}, [(1, "Tom"), (2, "Zoé"), (3, "Rex")]),
    ],
)
def test_s3_to_redshift_loads(
    pets: RedshiftSQLHook, changes: dict[str, Any], expected: list[tuple[int, str]]
) -> None:
    transfer(**changes).execute({})
    assert rows(pets, "SELECT id, name FROM pets ORDER BY id, name") == expected


def test_the_keys_that_s3_to_redshift_copies_with_are_not_kept(pets: RedshiftSQLHook) -> None:
    transfer(method="APPEND").execute({})
    ((statement,),) = rows(
        pets,
        "SELECT TOP 1 statement FROM local_statements WHERE statement LIKE '%COPY public.pets%'"
        " ORDER BY started_at DESC",
    )
    assert "'***'" in statement
    assert "aws_secret_access_key" not in statement


def test_a_table_without_a_primary_key_has_none(pets: RedshiftSQLHook) -> None:
    assert pets.get_table_primary_key("pets") == ["id"]
    assert pets.get_table_primary_key("staging_events") is None


@pytest.mark.filterwarnings("ignore:ssl:DeprecationWarning")  # of how Amazon's driver sets TLS up
def test_iam_true_logs_in_with_a_temporary_password(
    stack: Settings, pets: RedshiftSQLHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"])
    del connection["password"]
    connection["extra"] |= {
        **{"iam": True, "cluster_identifier": "sparkify", "db_user": connection["login"], "ssl": True},
        **{"endpoint_url": stack.s3_url, "region": REGION},
        **{"access_key_id": "local", "secret_access_key": "local"},
    }
    monkeypatch.setenv("SSL_CERT_FILE", str(stack.redshift_ca))
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT_IAM", json.dumps(connection))
    hook = RedshiftSQLHook(redshift_conn_id="redshift_iam", log_sql=False)
    assert rows(hook, "SELECT CURRENT_USER, name FROM pets WHERE id = 1") == [("sparkify", "Tom")]
    connection["extra"]["cluster_identifier"] = "other"
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT_IAM", json.dumps(connection))
    with pytest.raises(ClientError, match="Cluster other not found"):
        rows(RedshiftSQLHook(redshift_conn_id="redshift_iam", log_sql=False), "SELECT 1")


@pytest.mark.skipif(sqlalchemy.__version__ < "2", reason="sqlalchemy-redshift warns of SQLAlchemy 1.4")
@pytest.mark.parametrize("driver", ["redshift_connector", "psycopg2"])
def test_sqlalchemy_creates_fills_and_queries_tables(stack: Settings, driver: str) -> None:
    no_tls = {"redshift_connector": {"ssl": False}, "psycopg2": {"sslmode": "disable"}}
    engine = create_engine(
        make_url(stack.redshift_dsn).set(drivername=f"redshift+{driver}"), connect_args=no_tls[driver]
    )
    cats = Table(
        "cats",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("name", String(10)),
        redshift_distkey="id",
        redshift_sortkey="name",
    )
    with engine.connect() as session:  # closed without a commit, which takes the table with it
        cats.create(session)
        session.execute(cats.insert(), [{"id": 1, "name": "Tom"}, {"id": 2, "name": "Zoé"}])
        found = session.execute(select(cats.c.name, func.count().over()).where(cats.c.id > 1))
        assert [tuple(row) for row in found] == [("Zoé", 1)]
    engine.dispose()


def test_a_query_and_checks_run(pets: RedshiftSQLHook) -> None:
    query = SQLExecuteQueryOperator(
        task_id="query", conn_id="redshift", sql="SELECT name FROM pets WHERE id = %s", parameters=[1]
    )
    assert [list(row) for row in query.execute({})] == [["Tom"]]
    checked = {"id": {"null_check": {"equal_to": 0}, "distinct_check": {"equal_to": 2}, "max": {"leq_to": 2}}}
    SQLColumnCheckOperator(
        task_id="columns", conn_id="redshift", table="pets", column_mapping=checked
    ).execute({})
    count = {"rows": {"check_statement": "COUNT(*) = 2"}}
    SQLTableCheckOperator(task_id="table", conn_id="redshift", table="pets", checks=count).execute({})
    count["rows"]["check_statement"] = "COUNT(*) = 3"
    with pytest.raises(AirflowException, match="rows"):
        SQLTableCheckOperator(task_id="table", conn_id="redshift", table="pets", checks=count).execute({})
