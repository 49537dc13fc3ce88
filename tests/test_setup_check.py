"""What ``sparkify_check_setup`` says when all is well, and of failures, most of which are made for real."""

import gc
import json
import os
import re
import socket
import urllib.request
from contextlib import closing, nullcontext
from types import SimpleNamespace

import boto3
import psycopg
import pytest
import trustme
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.amazon.aws.hooks.sqs import SqsHook
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, NoRegionError

from local.redshift import postgres
from local.settings import INPUT_BUCKET, REDSHIFT_DATABASE, REDSHIFT_ROLE, REGION
from sparkify import setup_check
from sparkify.advice import aws_advice, warehouse_advice
from sparkify.compat import HAS_PAGES, AirflowFailException
from sparkify.files import SourceError, look_up, open_object, s3_hook, write_text
from sparkify.rejects import read_values
from sparkify.setup_check import SetupError
from sparkify.tables import MIGRATIONS, SQL_FOLDER, TABLES, defined_columns
from tests.conftest import free_port
from tests.local.test_s3 import client, serving
from tests.pipeline import Pipeline
from tests.test_pipeline import airflow, masked

# Of how Amazon's driver sets TLS up, and of the sockets of refused logins, which it leaves open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ssl:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

INPUT = "s3://udacity-dend/log_data/"


@pytest.fixture
def connect(stack, tries_at_once, monkeypatch):
    """Make a connection out of an environment's, and return its id."""

    def connect(like="REDSHIFT", **changes):
        connection = json.loads(os.environ[f"AIRFLOW_CONN_{like}"]) | changes
        monkeypatch.setenv(f"AIRFLOW_CONN_{like}_CHANGED", json.dumps(connection))
        return f"{like.lower()}_changed"

    yield connect
    gc.collect()


# --- the whole DAG ---


def summary(run):
    """Return the lines of the summary by task id."""
    found = re.findall(r"^(ok|FAILED|-) +(\w+): (.*)$", run.stdout, re.MULTILINE)
    return {task_id: (state, text) for state, task_id, text in found}


def test_all_is_well_on_the_local_stack(metadata, created, s3):
    run = airflow("dags", "test", "sparkify_check_setup")
    assert run.returncode == 0, run.stdout
    assert "Setup check: 15 of 15 steps passed" in run.stdout
    found = summary(run)
    assert {state for state, _ in found.values()} == {"ok"}
    assert "user sparkify, database sparkify, schema public" in found["log_in"][1]
    assert found["compare_tables"][1].startswith(
        f"{len(TABLES)} of {len(TABLES)} tables are in schema public, as defined"
    )
    assert "apache-airflow 3." in found["show_versions"][1]
    assert s3.list_keys("sparkify-etl", prefix="runs/sparkify_check_setup/") == []


def test_one_failure_hides_no_other_and_stops_only_what_needs_it(metadata, created, s3, connect):
    connection = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"]) | {"password": "wr0ng"}
    run = airflow(
        *("dags", "test", "sparkify_check_setup"),
        AIRFLOW_CONN_REDSHIFT=json.dumps(connection),
        AIRFLOW_VAR_SPARKIFY_SONG_DATA="s3://no-such-bucket/song_data/",
    )
    assert run.returncode != 0
    found = summary(run)
    bad = {task_id: text for task_id, (state, text) in found.items() if state == "FAILED"}
    assert set(bad) == {"list_song_data", "log_in"}
    assert "There is no such bucket" in bad["list_song_data"].replace("there is", "There is")
    assert 'password authentication failed for user "sparkify". Correct login and password' in bad["log_in"]
    not_run = {task_id for task_id, (state, _) in found.items() if state == "-"}
    assert not_run == {"copy_log_data", "copy_song_data", "copy_file", "check_privileges", "compare_tables"}
    assert "7 of 15 steps did not pass" in run.stdout
    assert "wr0ng" not in masked(run.stdout)
    assert s3.list_keys("sparkify-etl", prefix="runs/sparkify_check_setup/") == []


@pytest.mark.skipif(not HAS_PAGES, reason="Airflow 3.0 looks for a missing connection only within a task")
def test_an_alert_target_without_its_connection_is_named(stack):
    with pytest.raises(ValueError, match="slack:…' needs the Airflow connection slack_alrts, which does not"):
        Pipeline("sparkify_check_setup").run(
            "setup", variables={"sparkify_alerts": "slack:slack_alrts"}, to_task="check_settings"
        )


# --- S3 and AWS ---


@pytest.mark.parametrize(
    ("prefix", "problem"),
    [
        ("s3://no-such-bucket/in/", r"NoSuchBucket\): there is no such bucket"),
        ("s3://udacity-dend/nothing/", "Nothing lies below s3://udacity-dend/nothing/"),
        ("", "The Airflow variable sparkify_log_data does not exist"),
    ],
)
def test_an_input_that_is_not_there_is_named(stack, prefix, problem):
    with pytest.raises((SetupError, SourceError), match=problem):
        setup_check.list_input("sparkify_log_data", prefix, REGION, "aws_default")


def test_a_bucket_in_another_region_than_copy_is_told_is_named(stack, s3):
    far_away = boto3.client(
        "s3",
        endpoint_url=stack.s3_url,
        region_name="eu-central-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    with closing(far_away):
        far_away.create_bucket(
            Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
    s3.load_string("{}", "in/a.json", "far-away")
    try:
        problem = "far-away is in eu-central-1: set the Airflow variable sparkify_s3_region, now us-west-2"
        with pytest.raises(SetupError, match=problem):
            setup_check.list_input("sparkify_log_data", "s3://far-away/in/", REGION, "aws_default")
        with pytest.raises(SetupError, match=problem):
            setup_check.write_file("s3://far-away/", "check", "run 1", REGION, "aws_default")
    finally:
        s3.delete_bucket("far-away", force_delete=True)


def test_a_work_bucket_that_is_not_there_is_named(stack):
    with pytest.raises(
        SetupError, match=r"^s3:PutObject on arn:aws:s3:::no-such-bucket/runs/\*: .*no such bucket"
    ):
        setup_check.write_file("s3://no-such-bucket/runs/", "check", "run 1", REGION, "aws_default")


@pytest.fixture(scope="module")
def guarded(stack, tmp_path_factory):
    """An S3 that asks for signatures and policies as AWS does, with a user that may do nothing yet."""
    seed = tmp_path_factory.mktemp("seed")
    for folder in ("log_data", "song_data"):
        (seed / folder).mkdir()
        (seed / folder / "a.json").write_text("{}")
    with serving(seed) as (_, port), client(port, "iam") as iam:
        iam.create_user(UserName="airflow")
        key = iam.create_access_key(UserName="airflow")["AccessKey"]

        def allow(*actions: str) -> None:
            statement = {"Effect": "Allow", "Action": ["iam:GetUser", *actions], "Resource": "*"}
            document = {"Version": "2012-10-17", "Statement": statement}
            iam.put_user_policy(UserName="airflow", PolicyName="p", PolicyDocument=json.dumps(document))

        def guard(requests: str) -> None:
            url, plain = f"http://127.0.0.1:{port}/moto-api/reset-auth", {"Content-Type": "text/plain"}
            urllib.request.urlopen(urllib.request.Request(url, requests.encode(), plain)).close()

        yield SimpleNamespace(
            port=port,
            url=f"http://127.0.0.1:{port}",
            allow=allow,
            guard=guard,
            login=key["AccessKeyId"],
            password=key["SecretAccessKey"],
        )


@pytest.mark.parametrize(
    ("key", "allowed", "problem"),
    [
        (
            {"login": "AKIAUNKNOWN"},
            ["s3:*"],
            r"InvalidAccessKeyId\): the AWS connection's access key does not exist",
        ),
        ({"password": "wrong"}, ["s3:*"], r"SignatureDoesNotMatch\): .* does not match its secret"),
        (
            {},
            [],
            r"grant s3:ListBucket on arn:aws:s3:::udacity-dend with the prefix log_data/ to the identity",
        ),
        (
            {},
            ["s3:ListBucket"],
            r"grant s3:GetObject on arn:aws:s3:::udacity-dend/log_data/\* to the identity",
        ),
    ],
)
def test_what_s3_refuses_is_named_with_the_permission_to_grant(guarded, connect, key, allowed, problem):
    connection = connect(
        "AWS_DEFAULT",
        **{"login": guarded.login, "password": guarded.password, **key},
        extra={"endpoint_url": guarded.url, "region_name": REGION},
    )
    guarded.allow(*allowed)
    guarded.guard("0")
    try:
        with pytest.raises((SetupError, SourceError), match=problem):
            setup_check.list_input("sparkify_log_data", INPUT, REGION, connection)
    finally:
        guarded.guard("inf")


def test_what_a_run_may_not_write_or_read_is_named_with_the_permission_to_grant(guarded, connect, caplog):
    hook = s3_hook(
        connect(
            "AWS_DEFAULT",
            login=guarded.login,
            password=guarded.password,
            extra={"endpoint_url": guarded.url, "region_name": REGION},
        )
    )
    guarded.allow()
    guarded.guard("0")
    try:
        with pytest.raises(SourceError, match=r"Cannot write s3://.*/b: .*grant s3:PutObject on arn:.*/b to"):
            write_text(hook, "s3://sparkify-etl/b", "{}")
        with pytest.raises(SourceError, match=r"Cannot read the work file .*/b: .*grant s3:GetObject on arn"):
            open_object(hook, "s3://sparkify-etl/b")
        assert list(read_values(hook, INPUT + "a.json")) == []
        assert "Cannot read s3://udacity-dend/log_data/a.json" in caplog.text
    finally:
        guarded.guard("inf")


def test_a_file_that_may_not_be_written_or_deleted_is_named(guarded, connect):
    connection = connect(
        "AWS_DEFAULT",
        **{"login": guarded.login, "password": guarded.password},
        extra={"endpoint_url": guarded.url, "region_name": REGION},
    )
    guarded.allow()
    guarded.guard("0")
    try:
        with pytest.raises(
            SetupError, match=r"grant s3:PutObject on arn:aws:s3:::sparkify-etl/runs/\* to the"
        ):
            setup_check.write_file("s3://sparkify-etl/runs/", "check", "run 1", REGION, connection)
        stays = setup_check.delete_file("s3://sparkify-etl/runs/check/run-1.json", connection)
    finally:
        guarded.guard("inf")
    assert "stays: AccessDenied" in stays["found"]


@pytest.fixture
def queue_url(stack):
    sqs = SqsHook(aws_conn_id="aws_default").get_conn()
    url = sqs.create_queue(QueueName="setup-check")["QueueUrl"]
    yield url
    sqs.delete_queue(QueueUrl=url)


def test_a_queue_is_used_and_left_as_it_was(queue_url):
    sqs = SqsHook(aws_conn_id="aws_default").get_conn()
    sqs.send_message(QueueUrl=queue_url, MessageBody="{}")
    for _ in range(2):
        found = setup_check.use_queue(queue_url, "aws_default")
        assert found == {"found": f"1 messages wait in {queue_url}"}
    assert "none" in setup_check.use_queue("", "aws_default")["found"]


def test_a_queue_that_is_not_there_is_named(queue_url):
    with pytest.raises(SetupError, match=r"sqs:GetQueueAttributes on .*: there is no such queue: correct"):
        setup_check.use_queue(f"{queue_url}-of-old", "aws_default")


@pytest.mark.parametrize(("key", "found"), [("log_data/a.json", True), ("log_data/none.json", False)])
def test_what_may_not_be_looked_up_is_named_but_passed_over_if_it_is_not_there(guarded, connect, key, found):
    connection = connect(
        "AWS_DEFAULT",
        **{"login": guarded.login, "password": guarded.password},
        extra={"endpoint_url": guarded.url, "region_name": REGION},
    )
    guarded.allow("s3:ListBucket")
    guarded.guard("0")
    refused = (
        rf"Cannot look up s3://{INPUT_BUCKET}/{key}: .*grant s3:GetObject on arn:aws:s3:::{INPUT_BUCKET}/"
    )
    try:
        with pytest.raises(SourceError, match=refused) if found else nullcontext():
            assert look_up(S3Hook(aws_conn_id=connection), INPUT_BUCKET, key) is None
    finally:
        guarded.guard("inf")


@pytest.mark.parametrize("denied", ["sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:DeleteMessage"])
def test_a_queue_that_may_not_be_used_is_named(guarded, connect, denied):
    with client(guarded.port, "sqs") as sqs:
        url = sqs.create_queue(QueueName="guarded")["QueueUrl"]
    connection = connect(
        "AWS_DEFAULT",
        **{"login": guarded.login, "password": guarded.password},
        extra={"endpoint_url": guarded.url, "region_name": REGION},
    )
    permissions = ("sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:DeleteMessage")
    guarded.allow(*(each for each in permissions if each != denied))
    guarded.guard("0")
    try:
        with pytest.raises(SetupError, match=rf"(?s)^{denied} on {url}: .*grant {denied}\b"):
            setup_check.use_queue(url, connection)
    finally:
        guarded.guard("inf")


def test_an_aws_that_is_not_there_is_named(connect):
    connection = connect("AWS_DEFAULT", extra={"endpoint_url": "http://127.0.0.1:1", "region_name": REGION})
    with pytest.raises(SourceError, match="can Airflow reach AWS"):
        setup_check.list_input("sparkify_log_data", INPUT, REGION, connection)
    assert "unknown, since STS is not reached" in setup_check.identify_to_aws(connection)["found"]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("ExpiredToken", "renew them"),
        ("RequestTimeTooSkewed", "set the clock"),
        (
            "PermanentRedirect",
            "set region_name of the AWS connection, and the Airflow variable sparkify_s3_region",
        ),
        ("AuthorizationHeaderMalformed", "another region"),
        ("ClusterNotFound", "set cluster_identifier"),
        ("ResourceNotFoundException", "set serverless_work_group"),
        (NoCredentialsError(), "a role, or the AWS connection a key"),
        (NoRegionError(), "set region_name"),
        (EndpointConnectionError(endpoint_url="https://s3"), "a VPC endpoint"),
    ],
    ids=str,
)
def test_what_aws_says_leads_to_what_to_change(error, advice):
    if isinstance(error, str):
        error = ClientError({"Error": {"Code": error, "Message": "It says so."}}, "ListObjectsV2")
    assert advice in aws_advice(error, "s3:ListBucket", "arn:aws:s3:::bucket")


def test_the_action_that_aws_itself_names_is_the_one_to_grant():
    message = (
        "User: arn:aws:sts::1:assumed-role/airflow/i-1 is not authorized to perform: kms:GenerateDataKey on"
        ' resource: "arn:aws:kms:us-west-2:1:key/2" because no identity-based policy allows it'
    )
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "PutObject")
    advice = aws_advice(error, "s3:PutObject", "arn:aws:s3:::bucket/*")
    assert "grant kms:GenerateDataKey on arn:aws:kms:us-west-2:1:key/2 to" in advice


# --- the warehouse ---


def test_a_port_where_nothing_listens_is_named(connect):
    connection = connect(port=free_port())
    with pytest.raises(SetupError, match=r"Connection refused. Nothing listens there: .* not paused"):
        setup_check.reach_warehouse(connection)


def test_a_host_that_does_not_exist_is_named(connect):
    with pytest.raises(SetupError, match="Correct the connection's host"):
        setup_check.reach_warehouse(connect(host="warehouse.invalid"))


def test_a_firewall_that_swallows_packets_is_named(connect, monkeypatch):
    monkeypatch.setattr(setup_check, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]  # beyond the backlog, connections are not answered
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        with pytest.raises(SetupError, match=r"timed out. Is the warehouse available .* admit the port"):
            setup_check.reach_warehouse(connect(port=port))
        for each in waiting:
            each.close()


def test_a_missing_connection_is_named(stack):
    with pytest.raises(
        SetupError, match=r"There is no connection nowhere .*create it as \.env\.example shows"
    ):
        setup_check.reach_warehouse("nowhere")


HOST = "sparkify.c1.us-west-2.redshift.amazonaws.com"
IAM = {"iam": True, "cluster_identifier": "sparkify", "region": REGION}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"password": "wrong"},
            'password authentication failed for user "sparkify". Correct login and password',
        ),
        ({"schema": "other"}, 'database "other" does not exist. Correct "schema" of the connection'),
        ({"extra": {**IAM, "ssl": False}}, 'SSL must be enabled .*remove "ssl"'),
        ({"extra": IAM}, "Set db_user in the connection's extra"),
        (
            {"extra": {"iam": True, "region": REGION}, "host": HOST},
            "Set cluster_identifier in the conn",
        ),
        (
            {"extra": {**IAM, "cluster_identifier": "other"}},
            "Cluster other not found .* set cluster_identifier",
        ),
    ],
)
def test_a_login_that_is_refused_is_named(connect, changes, problem):
    with pytest.raises(SetupError, match=problem):
        setup_check.log_in(connect(**changes))


def test_a_certificate_that_is_not_right_is_named_and_one_that_is_counts(
    stack, connect, tmp_path, monkeypatch
):
    verified = {"sslmode": "verify-full", "application_name": "test"}
    monkeypatch.setenv("SSL_CERT_FILE", str(stack.redshift_ca))
    assert "TLSv1.3 (verify-full)" in setup_check.log_in(connect(extra=verified))["found"]
    with pytest.raises(SetupError, match="certificate is for another host: set the connection's host"):
        setup_check.log_in(connect(extra=verified, host="127.1"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(SetupError, match=r"Amazon has not signed the server.s certificate"):
        setup_check.log_in(connect(extra=verified))


@pytest.fixture
def analyst(warehouse, connect):
    """The connection of a user who has been granted nothing."""
    warehouse.run(["CREATE SCHEMA pets", "CREATE USER analyst PASSWORD 'An4lyst-of-pets'"])
    yield connect(login="analyst", password="An4lyst-of-pets")  # checkov:skip=CKV_SECRET_6:made up
    warehouse.run(
        [
            *(f"REVOKE ALL ON {table} FROM analyst" for table in TABLES),
            *("DROP SCHEMA pets CASCADE", "DROP USER analyst"),
        ]
    )


def test_what_has_to_be_granted_is_named(warehouse, analyst):
    tables = [f"GRANT SELECT, INSERT, DELETE ON public.{table} TO analyst" for table in TABLES]
    with pytest.raises(SetupError) as refusal:
        setup_check.check_privileges(analyst, "pets", "")
    assert set(str(refusal.value).partition(". Or trigger")[0].split("; ")) == set(tables)
    warehouse.run(tables)
    assert setup_check.check_privileges(analyst, "pets", "")["found"].startswith("user analyst may do all")
    warehouse.run("REVOKE INSERT, DELETE ON dim_users FROM analyst")
    with pytest.raises(SetupError, match=r"^GRANT INSERT, DELETE ON public.dim_users TO analyst. Or trigger"):
        setup_check.check_privileges(analyst, "pets", "")


def test_a_schema_where_nothing_may_be_created_is_named(warehouse, analyst):
    warehouse.run("ALTER USER analyst SET search_path TO pets")
    with pytest.raises(SetupError, match=r"User analyst sees no schema .*: trigger sparkify_create_roles"):
        setup_check.log_in(analyst)
    warehouse.run("GRANT USAGE ON SCHEMA pets TO analyst")
    assert "schema pets" in setup_check.log_in(analyst)["found"]
    with pytest.raises(SetupError, match=r"^GRANT CREATE ON SCHEMA pets TO analyst"):
        setup_check.check_privileges(analyst, "pets", "")


def grants(stack):
    """Return who has what on the schema, as PostgreSQL keeps it."""
    with psycopg.connect(postgres.dsn(stack, REDSHIFT_DATABASE)) as server:
        return server.execute("SELECT nspacl FROM pg_namespace WHERE nspname = 'public'").fetchall()


def test_a_role_of_analysts_that_does_not_exist_is_named(stack, warehouse):
    advice = (
        'role "sparkify_analysts" does not exist. Trigger sparkify_create_roles, which creates the role of'
        " the Airflow variable sparkify_analysts_role, or delete the variable"
    )
    with pytest.raises(SetupError, match=advice):
        setup_check.check_privileges("redshift", "public", "sparkify_analysts")
    warehouse.run("CREATE ROLE sparkify_analysts")
    before = grants(stack)
    found = setup_check.check_privileges("redshift", "public", "sparkify_analysts")["found"]
    assert found.endswith(", and may let the role sparkify_analysts use schema public")
    assert grants(stack) == before  # tried, and rolled back
    with pytest.raises(SetupError, match="Set the Airflow variable sparkify_schema to the schema that holds"):
        setup_check.check_privileges("redshift", "elsewhere", "sparkify_analysts")
    warehouse.run("DROP ROLE sparkify_analysts")


def test_a_run_with_a_role_of_analysts_that_does_not_exist_says_what_to_do(warehouse):
    warehouse.run("DROP TABLE etl_batches")
    said = "does not exist. Trigger sparkify_create_roles, which creates the role"
    with pytest.raises(AirflowFailException, match=said):
        Pipeline().run(
            "run",
            variables={"sparkify_analysts_role": "sparkify_analysts", "sparkify_schema": "public"},
            to_task="create_tables",
        )
    Pipeline().run("run", to_task="create_tables")


# --- COPY ---


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"iam_role": "arn:aws:iam::210987654321:role/other"},
            "Attach arn:aws:iam::210987654321:role/other to the cluster, .* trust policy",
        ),
        ({"iam_role": ""}, "is not the ARN of an IAM role"),
        ({"url": "s3://no-such-bucket/a.json"}, "no such bucket: correct the Airflow variable"),
    ],
)
def test_a_copy_that_is_refused_is_named(stack, changes, problem):
    given = {"conn_id": "redshift", "url": f"{INPUT}2018", "iam_role": REDSHIFT_ROLE, "region": REGION}
    with pytest.raises((SetupError, ValueError), match=problem):
        setup_check.copy_input(**given | changes)


def test_a_copy_that_reads_something_else_is_named(s3):
    s3.load_string('{"setup_check": "other"}', "tests/line.json", "sparkify-etl", replace=True)
    with pytest.raises(SetupError, match=r"COPY read \['other'\] of s3://sparkify-etl/tests/line.json"):
        setup_check.copy_file("redshift", "s3://sparkify-etl/tests/line.json", "mine", REDSHIFT_ROLE, REGION)


ROLE = "arn:aws:iam::123456789012:role/copy"


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (
            "User arn:aws:redshift:us-west-2:123456789012:dbuser:c/u is not authorized to assume"
            f" IAM Role {ROLE}.",
            f"Attach {ROLE} to the cluster",
        ),
        (
            "exception name : UnauthorizedException, error type : 135, message: Not authorized to get"
            f" credentials of role {ROLE}, should retry : 0",
            f"Attach {ROLE} to the cluster",
        ),
        (
            "S3ServiceException:Access Denied,Status 403,Error AccessDenied,Rid 1,ExtRid 2,CanRetry 1."
            " Listing bucket=big prefix=log_data/2018",
            "Grant s3:ListBucket on arn:aws:s3:::big with the prefix log_data/2018 to the IAM role",
        ),
        (
            "S3ServiceException:Access Denied,Status 403,Error AccessDenied,Rid 1,ExtRid 2,CanRetry 1."
            " S3 key being read : s3://big/a.json",
            "Grant s3:GetObject on arn:aws:s3:::big/a.json to the IAM role",
        ),
        ("COPY with MANIFEST parameter requires full path of an S3 object.", "s3:GetObject"),
        (
            "Problem reading manifest file - S3ServiceException:The bucket you are attempting to access must"
            " be addressed using the specified endpoint.,Status 301,Error PermanentRedirect",
            "Set the Airflow variable sparkify_s3_region",
        ),
        ('password authentication failed for user "IAM:etl"', "The database user of IAM:etl must exist"),
        (
            f'User etl does not have ASSUMEROLE permission on IAM role "{ROLE}" for COPY',
            f"GRANT ASSUMEROLE ON '{ROLE}' to the",
        ),
        ("permission denied for schema sparkify", "GRANT USAGE, CREATE ON SCHEMA sparkify to the connection"),
        ('permission denied to create temporary tables in database "dev"', 'GRANT TEMP ON DATABASE "dev"'),
        ("permission denied for relation dim_users", "GRANT SELECT, INSERT, DELETE ON dim_users"),
        ('no pg_hba.conf entry for host "::1", user "u", database "d", SSL off', 'remove "ssl" from'),
        ('role "readers" does not exist', "Trigger sparkify_create_roles, which creates the role"),
        ("division by zero", None),
    ],
)
def test_what_redshift_says_leads_to_what_to_change(message, advice):
    """As users report these texts of Redshift's."""
    found = warehouse_advice(message)
    assert found is None if advice is None else advice in (found or "")


# --- tables ---

BATCHES = (SQL_FOLDER / "ddl" / "etl_batches.sql").read_text()


@pytest.fixture
def batches(warehouse):
    """Change the definition of etl_batches, until the end of the test."""

    def change(pattern, replacement):
        changed, count = re.subn(pattern, replacement, BATCHES)
        assert count == 1
        migrated = [f"INSERT INTO etl_migrations VALUES ('{name}', 'run 1', SYSDATE)" for name in MIGRATIONS]
        warehouse.run([*migrated, "DROP TABLE etl_batches", changed])

    yield change
    warehouse.run(["DROP TABLE IF EXISTS etl_batches", BATCHES])


@pytest.mark.parametrize(
    ("pattern", "replacement", "problem"),
    [
        ("    files .*\n", "", "etl_batches lacks the column files bigint NOT NULL"),
        ("(files BIGINT NOT NULL)", r"\1, rows INTEGER", "has a column of its own, rows integer"),
        ("files BIGINT", "files INTEGER", "has files integer NOT NULL, not files bigint NOT NULL"),
        ("(files BIGINT) NOT NULL", r"\1", "has files bigint, not files bigint NOT NULL"),
        (
            r"VARCHAR\(256\)",
            "VARCHAR(64)",
            r"run_id character varying\(64\) NOT NULL, not run_id character varying\(256\) NOT NULL",
        ),
        (
            "( +run_id.*\n)( +files.*\n)",
            r"\2\1",
            "in another order, dataset, files, run_id, staged_at, not dataset, run_id, files, staged_at",
        ),
    ],
)
def test_a_table_that_is_not_as_defined_is_named(batches, pattern, replacement, problem):
    batches(pattern, replacement)
    with pytest.raises(SetupError, match=f"^In schema public, [^;]*{problem}. ALTER TABLE, or trigger"):
        setup_check.compare_tables("redshift")


def test_a_column_that_was_dropped_is_named(warehouse, batches):
    batches("files BIGINT", "files BIGINT")
    warehouse.run("ALTER TABLE etl_batches DROP COLUMN files")
    with pytest.raises(SetupError, match="etl_batches lacks the column files bigint NOT NULL"):
        setup_check.compare_tables("redshift")


def test_a_table_that_is_not_there_yet_is_no_problem(warehouse, batches):
    warehouse.run("DROP TABLE etl_batches")
    found = setup_check.compare_tables("redshift")["found"]
    assert f"{len(TABLES) - 1} of {len(TABLES)} tables are in schema public" in found
    assert "as defined, the next run creates etl_batches" in found


def test_a_difference_that_a_migration_may_mend_is_no_problem(warehouse, batches):
    batches("files BIGINT", "files INTEGER")
    warehouse.run("DELETE FROM etl_migrations")
    found = setup_check.compare_tables("redshift")["found"]
    assert "the next run applies 0001" in found
    assert "until then etl_batches has files integer" in found


def test_tables_of_a_newer_release_are_named(warehouse):
    warehouse.run("INSERT INTO etl_migrations VALUES ('9999_of_tomorrow', 'run 1', SYSDATE)")
    with pytest.raises(AirflowFailException, match=r"newer release, .* 9999_of_tomorrow. Deploy that"):
        setup_check.compare_tables("redshift")


def test_every_line_of_a_definition_is_a_column_or_a_key():
    for table in TABLES:
        definition = (SQL_FOLDER / "ddl" / f"{table}.sql").read_text()
        body = definition[definition.index("(\n") : definition.index("\n)")]
        lines = [line for line in body.splitlines()[1:] if not line.startswith("    PRIMARY KEY")]
        assert len(defined_columns(definition)) == len(lines)
    with pytest.raises(ValueError, match="is no column whose type is one of"):
        defined_columns("    shape GEOMETRY,\n")
