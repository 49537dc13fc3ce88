"""The pipeline with the permissions that the stack gives it: all of them, and all but one."""

import copy
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
import redshift_connector
import yaml
from botocore.loaders import JSONFileLoader
from redshift_connector.iam_helper import IamHelper

from local.redshift import postgres
from local.settings import ACCOUNT, INPUT_BUCKET, REDSHIFT_ROLE, REGION, Settings
from sparkify import setup_check
from sparkify.tables import TABLES
from tests import pipeline
from tests.conftest import REPOSITORY, free_port
from tests.infra.aws import Aws, Stack, permits
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


@pytest.fixture(scope="module")
def warehouse(cloud: Aws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A local Redshift that reads S3 where IAM decides."""
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=INPUT_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for key, lines in OBJECTS.items():
        s3.put_object(Bucket=INPUT_BUCKET, Key=key, Body="\n".join(map(json.dumps, lines)))
    settings = Settings(home=tmp_path_factory.mktemp("redshift"), redshift_port=free_port(), s3_url=cloud.url)
    with subprocess.Popen(
        [sys.executable, "-um", "local", "serve", "redshift"],
        cwd=REPOSITORY,
        env=os.environ | settings.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout
        assert "Redshift" in server.stdout.readline()
        yield settings
        server.terminate()
    postgres.remove_data(settings)


@contextmanager
def worker_of(stack: Stack, cloud: Aws, warehouse: Settings) -> Iterator[None]:
    """Be an Airflow worker with the stack's environment and policies, whose warehouse is on this machine."""
    connect = redshift_connector.Connection

    def connect_here(*arguments: Any, **options: Any) -> Any:
        assert options["host"] == json.loads(stack.environment["AIRFLOW_CONN_REDSHIFT"])["host"]
        return connect(*arguments, **{**options, "host": "127.0.0.1", "port": warehouse.redshift_port})

    # Every task logs in, which makes clients of AWS's API, whose large descriptions take long to read.
    read = functools.cache(JSONFileLoader().load_file)
    here = {"SSL_CERT_FILE": str(warehouse.redshift_ca), "AIRFLOW_VAR_SPARKIFY_IAM_ROLE": REDSHIFT_ROLE}
    pipeline._s3_client.cache_clear()
    IamHelper.credentials_cache.clear()  # the driver asks for a login once in 15 minutes
    with (
        cloud.enforced(stack) as environment,
        patch.dict(os.environ, environment | here),
        patch.object(redshift_connector, "Connection", connect_here),
        patch.object(JSONFileLoader, "load_file", lambda loader, path: read(path)),
    ):
        yield
    pipeline._s3_client.cache_clear()


def first_run(stack: Stack, cloud: Aws, warehouse: Settings) -> Pipeline:
    """Run the pipeline for the first time, into a warehouse without tables."""
    with psycopg.connect(warehouse.redshift_dsn, autocommit=True) as connection:
        for table in TABLES:
            connection.execute(f"DROP TABLE IF EXISTS {table}".encode())
    runner = Pipeline()
    with worker_of(stack, cloud, warehouse):
        runner.run("run 1")
    return runner


@pytest.fixture(scope="module")
def cluster_run(cluster: Stack, cloud: Aws, warehouse: Settings) -> Pipeline:
    """A run with the cluster's stack."""
    return first_run(cluster, cloud, warehouse)


@pytest.fixture(scope="module")
def serverless_run(serverless: Stack, cloud: Aws, warehouse: Settings) -> Pipeline:
    """A run with the Serverless stack."""
    return first_run(serverless, cloud, warehouse)


def continued(run: Pipeline) -> Pipeline:
    """Return a pipeline that knows what the tasks of another one's run have returned."""
    again = Pipeline()
    again.results = copy.deepcopy(run.results)
    return again


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


@pytest.mark.parametrize("variant", ["cluster", "serverless"])
def test_the_policies_are_enough(variant: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(f"{variant}_run")
    account = run.results["run 1"]["record_files"]
    assert account["staging_events"] == {"files": 1, "bytes": 333, "staged": 2, "rejected": 1}
    assert account["load_fact_songplays"]["inserted"] == account["load_fact_songplays"]["rejected"] == 1


def test_a_retried_run_passes_too(
    cluster: Stack, cluster_run: Pipeline, cloud: Aws, warehouse: Settings
) -> None:
    with worker_of(cluster, cloud, warehouse):
        account = continued(cluster_run).run("run 1", params=AGAIN)["record_files"]
    assert account["staging_events"]["staged"] == 2


@pytest.mark.parametrize("variant", ["cluster", "serverless"])
def test_the_setup_check_needs_no_other_permission(
    variant: str, request: pytest.FixtureRequest, cloud: Aws, warehouse: Settings
) -> None:
    request.getfixturevalue(f"{variant}_run")  # creates the tables
    s3, copied = (
        {"region": REGION, "aws_conn_id": "aws_default"},
        {"iam_role": REDSHIFT_ROLE, "region": REGION},
    )
    with worker_of(request.getfixturevalue(variant), cloud, warehouse):
        for name in ("LOG_DATA", "SONG_DATA"):
            listed = setup_check.list_input(name, os.environ[f"AIRFLOW_VAR_SPARKIFY_{name}"], **s3)
            setup_check.copy_input("redshift", listed["smallest"], **copied)
        url = setup_check.write_file(os.environ["AIRFLOW_VAR_SPARKIFY_WORK_PREFIX"], "check", "run", **s3)[
            "url"
        ]
        setup_check.copy_file("redshift", url, "run", **copied)
        assert "stays: AccessDenied" in setup_check.delete_file(url, "aws_default")["found"]
        assert "TLSv1.3 (verify-full)" in setup_check.log_in("redshift")["found"]
        setup_check.check_privileges("redshift")
        setup_check.compare_tables("redshift")


@pytest.mark.parametrize(
    ("policy", "sid"),
    [(policy, sid) for policy, sids in EXPLAINED.items() for sid, why in sids.items() if why["step"]],
)
def test_without_a_statement_its_step_fails(
    policy: str, sid: str, request: pytest.FixtureRequest, cloud: Aws, warehouse: Settings
) -> None:
    variant = "serverless" if policy.startswith("Serverless") else "cluster"
    stack, run = request.getfixturevalue(variant), continued(request.getfixturevalue(f"{variant}_run"))
    step = EXPLAINED[policy][sid]["step"]
    owner = "copy" if policy == "CopyRole" else "airflow"
    with worker_of(stack, cloud, warehouse), patch.object(cloud, "withdrawn", (owner, sid)):
        with pytest.raises(Exception, match=DENIED):
            run.run("run 1", params=AGAIN, from_task=step)
        assert run.current_task == step


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
        redshift=f"arn:aws:redshift:{REGION}:{ACCOUNT}:",
        serverless=f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:",
        workgroup=serverless.outputs["WorkgroupArn"],
    )
    assert not permits(policies(serverless, cluster)[policy], action, arn, context)
