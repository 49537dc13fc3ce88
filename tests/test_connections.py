"""The ways to log in that ``.env.example`` shows, each against the local stack, over TLS that is verified."""

import json
import os
import re
from contextlib import closing

import boto3
import pytest
import trustme
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from redshift_connector import InterfaceError

from local.settings import REDSHIFT_CLUSTER, REDSHIFT_DATABASE, REDSHIFT_PASSWORD, REDSHIFT_USER, REGION
from sparkify import setup_check
from sparkify.sql import fresh
from tests.conftest import REPOSITORY, rows
from tests.pipeline import Pipeline
from tests.test_pipeline import airflow, masked

SECRET = "airflow/connections/redshift"  # checkov:skip=CKV_SECRET_6:its name
EXAMPLE = dict(
    re.findall(r"^(?:# )?(AIRFLOW_\w+)='?(.*?)'?$", (REPOSITORY / ".env.example").read_text(), re.MULTILINE)
)
CLUSTER, SERVERLESS, PASSWORD = (
    json.loads(text)
    for text in re.findall(r"AIRFLOW_CONN_REDSHIFT='(.*)'", (REPOSITORY / ".env.example").read_text())
)

# Amazon's driver sets TLS up in a way that Python will give up.
pytestmark = pytest.mark.filterwarnings("ignore:ssl:DeprecationWarning")


@pytest.fixture(autouse=True)
def aws(stack, monkeypatch):
    """AWS as boto3 finds it on a machine of AWS's: by no connection of Airflow's."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.s3_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", EXAMPLE["AIRFLOW_CONN_AWS_DEFAULT"])
    monkeypatch.setenv("SSL_CERT_FILE", str(stack.redshift_ca))


@pytest.fixture
def log_in(stack, tries_at_once, monkeypatch):
    """Return who is logged in by an example's connection."""

    def log_in(example, **changes):
        monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(local(stack, example) | changes))
        return rows(RedshiftSQLHook(redshift_conn_id="redshift"), "SELECT CURRENT_USER, CURRENT_DATABASE()")

    return log_in


def local(stack, example, user=REDSHIFT_USER):
    """Return an example's connection with the local stack's values in place of AWS's."""
    values = {
        "host": "localhost",
        "port": stack.redshift_port,
        "login": user,
        "password": REDSHIFT_PASSWORD,
        "schema": REDSHIFT_DATABASE,
        "cluster_identifier": REDSHIFT_CLUSTER,
        "serverless_work_group": REDSHIFT_CLUSTER,
        "db_user": user,
    }
    extra = {name: values.get(name, value) for name, value in example["extra"].items()}
    connection = {name: values.get(name, value) for name, value in example.items()}
    # The region stands in a host's name on AWS.
    return connection | {"extra": {"region": REGION, **extra}}


WAYS = pytest.mark.parametrize(
    "example", [CLUSTER, SERVERLESS, PASSWORD], ids=["cluster", "serverless", "password"]
)


@WAYS
def test_each_example_logs_in(log_in, example):
    assert log_in(example) == [(REDSHIFT_USER, REDSHIFT_DATABASE)]


@WAYS
def test_no_example_logs_in_where_another_authority_vouches_for_the_server(
    log_in, example, tmp_path, monkeypatch
):
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(InterfaceError, match="certificate verify failed"):
        log_in(example)


@WAYS
def test_no_example_logs_in_at_a_host_that_the_certificate_does_not_name(log_in, example):
    with pytest.raises(InterfaceError, match=r"not valid for '127\.1'"):
        log_in(example, host="127.1")


def test_on_serverless_a_role_of_iam_is_a_user_of_its_own(stack, created, log_in, monkeypatch):
    local = {"endpoint_url": stack.s3_url, "region_name": REGION}
    with closing(boto3.client("iam", **local)) as iam, closing(boto3.client("sts", **local)) as sts:
        role = iam.create_role(RoleName="airflow", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        session = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    created.run('CREATE USER "IAMR:airflow" PASSWORD DISABLE')  # Redshift makes it at the first login
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", session["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", session["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", session["SessionToken"])
    assert log_in(SERVERLESS) == [("IAMR:airflow", REDSHIFT_DATABASE)]
    created.run('DROP USER "IAMR:airflow"')


def test_a_hook_that_logs_in_again_asks_for_the_same_user(stack, monkeypatch):
    asked, call = set(), BaseClient._make_api_call

    def called(client, operation, request):
        asked.add(request["DbUser"])
        return call(client, operation, request)

    monkeypatch.setattr(BaseClient, "_make_api_call", called)
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(local(stack, CLUSTER)))
    hook = RedshiftSQLHook(redshift_conn_id="redshift")
    for _ in range(2):
        assert rows(fresh(hook), "SELECT 1") == [(1,)]
    assert asked == {REDSHIFT_USER}


def test_serverless_needs_no_host_and_names_a_workgroup_that_it_does_not_know(log_in):
    assert log_in(SERVERLESS, host=None, port=None) == [(REDSHIFT_USER, REDSHIFT_DATABASE)]
    with pytest.raises(ClientError, match=r"ResourceNotFoundException.* workgroup other"):
        log_in(SERVERLESS, extra={**SERVERLESS["extra"], "serverless_work_group": "other"})


def test_the_whole_pipeline_runs_by_iam_over_verified_tls_as_a_user_with_few_privileges(
    stack, created, monkeypatch
):
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT_ADMIN", os.environ["AIRFLOW_CONN_REDSHIFT"])
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(local(stack, CLUSTER, user="sparkify_etl")))
    Pipeline("sparkify_create_roles").run("roles")
    account = Pipeline().run("run 1")["record_files"]
    assert account["staging_events"]["files"] == 30
    assert created.get_first("SELECT COUNT(*) FROM sparkify.fact_songplays")[0] > 6000
    found = setup_check.log_in("redshift")["found"]
    assert found.startswith("user sparkify_etl, database sparkify, schema sparkify, TLSv1.3 (verify-full)")
    assert "may do all" in setup_check.check_privileges("redshift", "sparkify", "")["found"]
    assert "in schema sparkify, as defined" in setup_check.compare_tables("redshift")["found"]
    created.run(
        [
            "DROP SCHEMA sparkify CASCADE",
            f"REVOKE TEMP ON DATABASE {REDSHIFT_DATABASE} FROM sparkify_etl",
            "DROP USER sparkify_etl",
        ]
    )


def test_the_password_may_lie_in_secrets_manager(stack, created, metadata, monkeypatch):
    created.run("CREATE USER keeper PASSWORD 'Kept-1n-secret'")
    connection = local(stack, PASSWORD) | {"login": "keeper", "password": "Kept-1n-secret"}
    options = {"endpoint_url": stack.s3_url, "region_name": REGION}
    with closing(boto3.client("secretsmanager", **options)) as secrets:
        secrets.create_secret(Name=SECRET, SecretString=json.dumps(connection))
    monkeypatch.delenv("AIRFLOW_CONN_REDSHIFT")
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", EXAMPLE["AIRFLOW__SECRETS__BACKEND"])
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", EXAMPLE["AIRFLOW__SECRETS__BACKEND_KWARGS"])
    task = airflow("tasks", "test", "sparkify_check_setup", "log_in")
    assert task.returncode == 0, task.stdout
    assert "user keeper, database sparkify" in task.stdout
    assert "Kept-1n-secret" not in masked(task.stdout)
    created.run("DROP USER keeper")
