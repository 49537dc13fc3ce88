"""The pipeline with the permissions that the stack gives it: all of them, and all but one."""

import copy
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
import redshift_connector
import yaml
from botocore.loaders import JSONFileLoader

from local.redshift import postgres
from local.settings import ACCOUNT, INPUT_BUCKET, REDSHIFT_ROLE, REGION, Settings
from sparkify.tables import TABLES
from tests import pipeline
from tests.conftest import REPOSITORY, free_port
from tests.infra.aws import WORKERS, Aws, Stack, permits
from tests.pipeline import Pipeline

pytestmark = pytest.mark.filterwarnings("ignore:ssl:DeprecationWarning")  # of how Amazon's driver sets TLS up

EXPLAINED: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(
    (REPOSITORY / "infra" / "policies.yaml").read_text()
)
EVENT = {
    **{"page": "NextSong", "userId": "8", "level": "free", "ts": 1541106106796},
    **{"sessionId": 1, "itemInSession": 0},
}
OBJECTS: dict[str, list[dict[str, Any]]] = {
    "log_data/2018/11/events.json": [
        EVENT,
        {**EVENT, "itemInSession": 1, "userId": ""},  # a play that load_fact_songplays rejects
        {**EVENT, "itemInSession": 2, "sessionId": "none"},  # a line that COPY rejects
    ],
    "song_data/A/song.json": [{"song_id": "S1", "title": "Tom", "artist_id": "A1", "artist_name": "Zoé"}],
}
AGAIN = {"reload_prefix": f"s3://{INPUT_BUCKET}/"}  # a retried task has as much to do as the first time
DENIED = r"AccessDenied|may not list|\(403\)|not authorized"


@contextmanager
def redshift(home: Path, s3_url: str) -> Iterator[Settings]:
    """A local Redshift of its own, which reads S3 where IAM decides."""
    settings = Settings(home=home, redshift_port=free_port(), s3_url=s3_url)
    with subprocess.Popen(
        [sys.executable, "-um", "local", "serve", "redshift"],
        cwd=REPOSITORY,
        env=os.environ | settings.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout
            assert "Redshift" in server.stdout.readline()
            yield settings
        finally:
            server.terminate()
    postgres.remove_data(settings)


@contextmanager
def worker_of(stack: Stack, cloud: Aws, warehouse: Settings) -> Iterator[None]:
    """Be an Airflow worker with the stack's environment and policies, whose warehouse is on this machine."""
    connect, reach = redshift_connector.Connection, socket.create_connection

    host, here = json.loads(stack.environment["AIRFLOW_CONN_REDSHIFT"])["host"], "127.0.0.1"

    def connect_here(*arguments: Any, **options: Any) -> Any:
        assert (options["host"], options["port"]) == (host, 5439)
        return connect(*arguments, **{**options, "host": here, "port": warehouse.redshift_port})

    def reach_here(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address == (host, 5439)
        return reach((here, warehouse.redshift_port), timeout)

    def create_user(name: str) -> None:
        with psycopg.connect(warehouse.redshift_dsn, autocommit=True) as admin:
            if not admin.execute("SELECT 1 FROM pg_user WHERE usename = %s", [name]).fetchone():
                admin.execute(f'CREATE USER "{name}" PASSWORD DISABLE'.encode())

    # Every task logs in, which makes clients of AWS's API, whose large descriptions take long to read.
    read = functools.cache(JSONFileLoader().load_file)
    local = {"SSL_CERT_FILE": str(warehouse.redshift_ca), "AIRFLOW_VAR_SPARKIFY_IAM_ROLE": REDSHIFT_ROLE}
    pipeline.s3_client.cache_clear()
    with (
        cloud.enforced(stack, create_user) as environment,
        patch.dict(os.environ, environment | local),
        patch.object(redshift_connector, "Connection", connect_here),
        patch.object(socket, "create_connection", reach_here),
        patch.object(JSONFileLoader, "load_file", lambda loader, path: read(path)),
    ):
        yield
    pipeline.s3_client.cache_clear()


@dataclass(frozen=True)
class Runs:
    """
    What ran with a stack.

    :param stack: the stack
    :param warehouse: its warehouse, here
    :param check: the setup check, after a run before there were tables, and one after
    :param etl: the pipeline, after a run
    """

    stack: Stack
    warehouse: Settings
    check: Pipeline
    etl: Pipeline

    def again(self, dag_id: str) -> Pipeline:
        """Return a pipeline that knows what the tasks of that run have returned, and nothing since."""
        pipeline = Pipeline(dag_id)
        first = self.etl if dag_id == "sparkify_etl" else self.check
        pipeline.results = copy.deepcopy(first.results)
        return pipeline


@pytest.fixture(scope="module")
def inputs(cloud: Aws) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=INPUT_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for key, lines in OBJECTS.items():
        s3.put_object(Bucket=INPUT_BUCKET, Key=key, Body="\n".join(map(json.dumps, lines)))


def run_first(cloud: Aws, stack: Stack, home: Path) -> Iterator[Runs]:
    with redshift(home, cloud.url) as warehouse:
        runs = Runs(stack, warehouse, Pipeline("sparkify_check_setup"), Pipeline("sparkify_etl"))
        with worker_of(stack, cloud, warehouse):
            for dag, run_id in ((runs.check, "before"), (runs.etl, "run 1"), (runs.check, "run 1")):
                dag.run(run_id)
        yield runs


@pytest.fixture(scope="module")
def cluster_runs(
    cloud: Aws, cluster: Stack, inputs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    """The setup check and the pipeline with a cluster."""
    yield from run_first(cloud, cluster, tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def serverless_runs(
    cloud: Aws, serverless: Stack, inputs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    """The setup check and the pipeline with a Serverless workgroup."""
    yield from run_first(cloud, serverless, tmp_path_factory.mktemp("serverless"))


@pytest.fixture
def runs(request: pytest.FixtureRequest) -> Runs:
    """Those with the kind of warehouse that the test names."""
    return request.getfixturevalue(f"{request.param}_runs")


def policies(*stacks: Stack) -> dict[str, list[dict[str, Any]]]:
    """Return the statements of each policy, by its logical id."""
    found = {}
    for stack in stacks:
        for name, properties in stack.properties.items():
            if name.endswith("Policy") and name != "ManifestBucketPolicy":
                found[name] = properties["PolicyDocument"]["Statement"]
        (inline,) = stack.properties["CopyRole"]["Policies"]
        found["CopyRole"] = inline["PolicyDocument"]["Statement"]
    return found


def test_every_statement_is_explained_and_every_explanation_has_one(
    cluster: Stack, serverless: Stack
) -> None:
    found = {
        policy: {statement["Sid"]: statement["Action"] for statement in statements}
        for policy, statements in policies(cluster, serverless).items()
    }
    assert found == {
        policy: {sid: why["action"] for sid, why in statements.items()}
        for policy, statements in EXPLAINED.items()
    }


BOTH = pytest.mark.parametrize("runs", ["cluster", "serverless"], indirect=True)
STEPS = [
    ("serverless" if policy.startswith("Serverless") else "cluster", policy, sid, *why["step"].split("."))
    for policy, sids in EXPLAINED.items()
    for sid, why in sids.items()
]


@BOTH
def test_the_policies_are_enough(runs: Runs) -> None:
    account = runs.etl.results["run 1"]["record_files"]
    counts = {"files": 1, "bytes": 333, "staged": 2, "rejected": 1, "quarantined": 0, "ignored": 0}
    assert account["staging_events"] == counts
    assert account["load_fact_songplays"]["inserted"] == account["load_fact_songplays"]["rejected"] == 1


@BOTH
def test_the_setup_check_finds_all_well(runs: Runs) -> None:
    for run_id, tables in (("before", 0), ("run 1", len(TABLES))):
        found = {task_id: step["found"] for task_id, step in runs.check.results[run_id].items() if step}
        assert WORKERS in found["identify_to_aws"]
        assert "TLSv1.3 (verify-full)" in found["log_in"]
        assert "stays: AccessDenied" in found["delete_file"]
        assert f"{tables} of {len(TABLES)} tables" in found["compare_tables"]
        assert len(found) == len(runs.check.dag.tasks) - 1  # all but the summary


@BOTH
def test_the_workers_database_user_is_an_ordinary_one_that_owns_the_tables(
    runs: Runs,
) -> None:
    user = {"sparkify-cluster": "sparkify_etl", "sparkify-serverless": f"IAMR:{WORKERS}"}[runs.stack.name]
    with psycopg.connect(runs.warehouse.redshift_dsn, autocommit=True) as admin:
        owners = admin.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        assert owners.fetchall() == [(user,)]
        powers = admin.execute("SELECT usesuper, usecreatedb FROM pg_user WHERE usename = %s", [user])
        assert powers.fetchall() == [(False, False)]


@pytest.mark.parametrize("runs", ["cluster"], indirect=True)
def test_a_retried_run_passes_too(runs: Runs, cloud: Aws) -> None:
    with worker_of(runs.stack, cloud, runs.warehouse):
        account = runs.again("sparkify_etl").run("run 1", params=AGAIN)["record_files"]
    assert account["staging_events"]["staged"] == 2


@pytest.mark.parametrize(("runs", "policy", "sid", "dag_id", "step"), STEPS, indirect=["runs"])
def test_without_a_statement_its_step_fails(
    runs: Runs, policy: str, sid: str, dag_id: str, step: str, cloud: Aws
) -> None:
    owner = "copy" if policy == "CopyRole" else "airflow"
    dag = runs.again(dag_id)
    params = AGAIN if dag_id == "sparkify_etl" else {}
    with worker_of(runs.stack, cloud, runs.warehouse), patch.object(cloud, "withdrawn", (owner, sid)):
        with pytest.raises(Exception, match=DENIED):
            dag.run("run 1", params=params, from_task=step)
        assert dag.current_task == step


@pytest.mark.parametrize("runs", ["cluster"], indirect=True)
@pytest.mark.parametrize(
    ("owner", "sid", "step", "advice"),
    [
        ("airflow", "ListInput", "list_log_data", "s3:ListBucket on {input} with the prefix log_data/ to"),
        ("airflow", "ReadInput", "list_log_data", r"s3:GetObject on {input}/log_data/\* to"),
        ("airflow", "WriteManifests", "write_file", r"s3:PutObject on {work}/runs/\* to"),
        ("airflow", "ReadManifests", "write_file", r"s3:GetObject on {work}/runs/\* to"),
        ("airflow", "CountMessages", "use_queue", "sqs:GetQueueAttributes"),
        ("airflow", "ReceiveMessages", "use_queue", "sqs:ReceiveMessage"),
        ("airflow", "DeleteMessages", "use_queue", "sqs:DeleteMessage"),
        ("airflow", "LogIn", "log_in", "redshift:GetClusterCredentials"),
        ("copy", "ListInput", "copy_log_data", "s3:ListBucket on {input} with the prefix log_data/2018/11/"),
        ("copy", "ReadInput", "copy_log_data", "s3:GetObject on {input}/log_data/2018/11/events.json to"),
        ("copy", "ListManifests", "copy_file", "s3:ListBucket on {work} with the prefix runs/sparkify_"),
        ("copy", "ReadManifests", "copy_file", "s3:GetObject on {work}/runs/sparkify_check_setup/run-1.json"),
    ],
)
def test_the_setup_check_names_the_permission_that_is_missing(
    runs: Runs, owner: str, sid: str, step: str, advice: str, cloud: Aws
) -> None:
    work = f"arn:aws:s3:::{runs.stack.outputs['ManifestBucketName']}"
    grant = f"(?i)grant {advice.format(input=f'arn:aws:s3:::{INPUT_BUCKET}', work=work)}"
    check = runs.again("sparkify_check_setup")
    with worker_of(runs.stack, cloud, runs.warehouse), patch.object(cloud, "withdrawn", (owner, sid)):
        with pytest.raises(Exception, match=grant):
            check.run("run 1", from_task=step)
        assert check.current_task == step


@pytest.mark.parametrize(
    ("policy", "action", "resource", "context"),
    [
        (policy, action, resource, {})
        for policy in ("AirflowStoragePolicy", "CopyRole")
        for action, resource in (
            ("s3:GetObject", "arn:aws:s3:::udacity-dend/log_json_path.json"),
            ("s3:GetObject", "arn:aws:s3:::another-bucket/log_data/x.json"),
            ("s3:PutObject", "arn:aws:s3:::udacity-dend/log_data/x.json"),
            ("s3:DeleteObject", "arn:aws:s3:::udacity-dend/log_data/x.json"),
            ("s3:ListBucket", "arn:aws:s3:::udacity-dend"),
            ("s3:ListAllMyBuckets", "*"),
        )
    ]
    + [
        ("AirflowStoragePolicy", "s3:ListBucket", "arn:aws:s3:::udacity-dend", {"s3:prefix": "log_json"}),
        ("CopyRole", "s3:ListBucket", "arn:aws:s3:::udacity-dend", {"s3:prefix": ""}),
        ("AirflowStoragePolicy", "s3:ListBucket", "{bucket}", {"s3:prefix": "runs/"}),
        ("AirflowStoragePolicy", "s3:DeleteObject", "{bucket}/runs/x.manifest", {}),
        ("AirflowStoragePolicy", "s3:PutObject", "{bucket}/x.manifest", {}),
        ("CopyRole", "s3:PutObject", "{bucket}/runs/x.manifest", {}),
        ("CopyRole", "s3:ListBucket", "{bucket}", {"s3:prefix": "other/"}),
        (
            "ClusterLogInPolicy",
            "redshift:GetClusterCredentials",
            "{redshift}dbuser:{name}/sparkify_admin",
            {},
        ),
        ("ClusterLogInPolicy", "redshift:GetClusterCredentials", "{redshift}dbuser:other/sparkify_etl", {}),
        ("ClusterLogInPolicy", "redshift:GetClusterCredentials", "{redshift}dbname:{name}/dev", {}),
        ("ClusterLogInPolicy", "redshift:CreateClusterUser", "{redshift}dbuser:{name}/other", {}),
        ("ClusterLogInPolicy", "redshift:JoinGroup", "{redshift}dbgroup:{name}/admins", {}),
        ("AirflowQueuePolicy", "sqs:SendMessage", "{queue}", {}),
        ("AirflowQueuePolicy", "sqs:PurgeQueue", "{queue}", {}),
        ("AirflowQueuePolicy", "sqs:ReceiveMessage", "{queue}-of-others", {}),
        ("ServerlessLogInPolicy", "redshift-serverless:GetCredentials", "{serverless}workgroup/another", {}),
        ("ServerlessLogInPolicy", "redshift-serverless:UpdateWorkgroup", "{workgroup}", {}),
    ],
)
def test_nothing_else_is_permitted(
    policy: str, action: str, resource: str, context: dict[str, str], cluster: Stack, serverless: Stack
) -> None:
    arn = resource.format(
        bucket=f"arn:aws:s3:::{cluster.outputs['ManifestBucketName']}",
        name=cluster.name,
        queue=cluster.outputs["QueueArn"],
        redshift=f"arn:aws:redshift:{REGION}:{ACCOUNT}:",
        serverless=f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:",
        workgroup=serverless.outputs["WorkgroupArn"],
    )
    assert not permits(policies(serverless, cluster)[policy], action, arn, context)
