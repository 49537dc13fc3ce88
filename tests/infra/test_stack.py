"""What the stack creates, tells and leaves behind."""

import json
import os
import re
import shlex
from fnmatch import fnmatchcase
from typing import Any
from unittest.mock import patch

import pytest
from airflow.sdk import Connection
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from local.settings import ACCOUNT, REGION
from tests.conftest import REPOSITORY
from tests.infra.aws import TEMPLATE, WORKERS, Aws, Kept, Stack, permits

EXAMPLE = (REPOSITORY / ".env.example").read_text()
README = (REPOSITORY / "infra" / "README.md").read_text()
QUEUE_URL = "AIRFLOW_VAR_SPARKIFY_QUEUE_URL"
STACKS = pytest.mark.parametrize("stack", ["cluster", "serverless"], indirect=True)


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Stack:
    return request.getfixturevalue(request.param)


def connection(stack: Stack, name: str) -> Connection:
    with patch.dict(os.environ, stack.environment):
        return Connection.get(name.lower())


@STACKS
def test_the_environment_is_what_the_example_asks_for(stack: Stack) -> None:
    asked = set(re.findall(r"^(AIRFLOW_\w+)=", EXAMPLE, re.MULTILINE))
    optional = {f"AIRFLOW_VAR_SPARKIFY_{name}" for name in ("MAX_REJECTED_ROWS", "SCHEMA")}
    assert asked - set(stack.environment) == optional
    assert set(stack.environment) - {QUEUE_URL} <= asked
    assert (QUEUE_URL in stack.environment) == ("Queue" in stack.properties)
    assert f"\n# {QUEUE_URL}=https://sqs." in EXAMPLE
    assert stack.environment["AIRFLOW_VAR_SPARKIFY_LOG_DATA"] == "s3://udacity-dend/log_data/"
    assert stack.environment["AIRFLOW_VAR_SPARKIFY_SONG_DATA"] == "s3://udacity-dend/song_data/"
    assert stack.environment["AIRFLOW_VAR_SPARKIFY_S3_REGION"] == REGION


@pytest.mark.parametrize(("stack", "number"), [("cluster", 0), ("serverless", 1)], indirect=["stack"])
def test_the_connection_to_the_warehouse_is_one_of_the_examples(stack: Stack, number: int) -> None:
    example = json.loads(re.findall(r"AIRFLOW_CONN_REDSHIFT='(.*)'", EXAMPLE)[number])
    found = json.loads(stack.environment["AIRFLOW_CONN_REDSHIFT"])
    found["extra"].pop("auto_create", None)  # the example's user is there already
    assert found == {
        **example,
        "host": example["host"]
        .replace("<cluster>.<id>", f"{stack.name}.cq1example2ab")
        .replace("<workgroup>.<account>", f"{stack.name}.{ACCOUNT}"),
        "extra": {
            name: stack.name if value in ("<cluster>", "<workgroup>") else value
            for name, value in example["extra"].items()
        },
    }
    assert connection(stack, "REDSHIFT").schema == "sparkify"


@STACKS
def test_no_output_holds_a_secret(stack: Stack) -> None:
    for name in ("REDSHIFT", "AWS_DEFAULT"):
        assert connection(stack, name).password is None
    assert connection(stack, "AWS_DEFAULT").extra_dejson == {"region_name": REGION}
    assert not re.search("password|secret|token|key", json.dumps(stack.outputs), re.IGNORECASE)


@STACKS
def test_the_warehouse_is_private_and_encrypted(stack: Stack, cloud: Aws) -> None:
    warehouse = stack.properties.get("Cluster") or stack.properties["Workgroup"]
    assert warehouse["PubliclyAccessible"] is False
    assert warehouse["EnhancedVpcRouting"] == "true"
    group = stack.properties["WarehouseSecurityGroup"]
    (described,) = cloud.client("ec2").describe_security_groups(
        Filters=[
            {"Name": "vpc-id", "Values": [group["VpcId"]]},
            {"Name": "description", "Values": ["The Sp*"]},
        ]
    )["SecurityGroups"]
    (rule,) = described["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (5439, 5439)
    assert rule["IpRanges"] == []
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [
        group["SecurityGroupIngress"][0]["SourceSecurityGroupId"]
    ]


def test_the_cluster_is_as_safe_as_it_can_be(cluster: Stack) -> None:
    cluster_properties = cluster.properties["Cluster"]
    assert cluster_properties["Encrypted"] is cluster_properties["ManageMasterPassword"] is True
    assert "MasterUserPassword" not in cluster_properties
    assert (cluster_properties["ClusterType"], cluster_properties["NodeType"]) == ("single-node", "ra3.large")
    assert "NumberOfNodes" not in cluster_properties
    assert cluster.properties["ClusterParameterGroup"]["Parameters"] == [
        {"ParameterName": "require_ssl", "ParameterValue": "true"}
    ]


def test_the_workgroup_is_as_safe_and_as_small_as_it_can_be(serverless: Stack) -> None:
    assert serverless.properties["Namespace"]["ManageAdminPassword"] is True
    assert "AdminUserPassword" not in serverless.properties["Namespace"]
    workgroup = serverless.properties["Workgroup"]
    assert {"ParameterKey": "require_ssl", "ParameterValue": "true"} in workgroup["ConfigParameters"]
    assert (int(workgroup["BaseCapacity"]), int(workgroup["MaxCapacity"])) == (4, 8)


@STACKS
def test_the_manifests_are_encrypted_versioned_private_and_expire(stack: Stack, cloud: Aws) -> None:
    encryption = cloud.client("s3").get_bucket_encryption(Bucket=stack.outputs["ManifestBucketName"])
    (rule,) = encryption["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    bucket = stack.properties["ManifestBucket"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    (expiry,) = bucket["LifecycleConfiguration"]["Rules"]
    assert expiry["ExpirationInDays"] > expiry["NoncurrentVersionExpiration"]["NoncurrentDays"] > 0
    assert expiry["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


@STACKS
def test_the_manifests_are_refused_without_tls(stack: Stack) -> None:
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    statements = [allow, *stack.properties["ManifestBucketPolicy"]["PolicyDocument"]["Statement"]]
    bucket = f"arn:aws:s3:::{stack.outputs['ManifestBucketName']}"
    for action, resource in (("s3:ListBucket", bucket), ("s3:GetObject", f"{bucket}/runs/x")):
        assert permits(statements, action, resource, {"aws:SecureTransport": "true"})
        assert not permits(statements, action, resource, {"aws:SecureTransport": "false"})


def test_the_queue_is_encrypted_and_takes_messages_of_the_input_bucket_alone(cluster: Stack) -> None:
    arn = cluster.outputs["QueueArn"]
    send, plain = cluster.properties["QueueAccess"]["PolicyDocument"]["Statement"]
    assert send["Principal"] == {"Service": "s3.amazonaws.com"}
    assert (send["Effect"], send["Action"], send["Resource"]) == ("Allow", "sqs:SendMessage", arn)
    assert send["Condition"] == {
        "ArnEquals": {"aws:SourceArn": "arn:aws:s3:::udacity-dend"},
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
    }
    assert (plain["Effect"], plain["Action"], plain["Resource"]) == ("Deny", "sqs:*", arn)
    for name in ("Queue", "DeadLetterQueue"):
        assert cluster.properties[name]["SqsManagedSseEnabled"] in (True, "true")
    assert cluster.environment[QUEUE_URL].rpartition("/")[2] == arn.rpartition(":")[2]


def test_without_being_asked_for_there_is_no_queue(serverless: Stack) -> None:
    assert not [name for name in serverless.properties if "Queue" in name]


# What Redshift gives as external ID when a user of a warehouse runs COPY:
# https://docs.aws.amazon.com/redshift/latest/mgmt/authorizing-redshift-service-database-users.html
USER = f"arn:aws:redshift:{REGION}:{ACCOUNT}:dbuser:"


@pytest.mark.parametrize(
    ("stack", "users", "others"),
    [
        (
            "cluster",
            ["sparkify-cluster/sparkify_etl", "sparkify-cluster/IAMA:sparkify_etl"],
            ["another/sparkify_etl", f"serverless-{ACCOUNT}-4b0577a2/IAMR:airflow"],
        ),
        (
            "serverless",
            [f"serverless-{ACCOUNT}-4b0577a2-6f30-4d9c-b069-b6bd1b6ab010/IAMR:airflow"],
            ["sparkify-serverless/sparkify_etl", "serverless-999999999999-4b0577a2/IAMR:airflow"],
        ),
    ],
    indirect=["stack"],
)
def test_redshift_takes_the_role_of_copy_for_no_other_warehouse(
    stack: Stack, users: list[str], others: list[str]
) -> None:
    (trust,) = stack.properties["CopyRole"]["AssumeRolePolicyDocument"]["Statement"]
    assert set(trust["Principal"]) == {"Service"}
    services = {"redshift.amazonaws.com"} | (
        {"redshift-serverless.amazonaws.com"} if "Workgroup" in stack.properties else set()
    )
    assert set(trust["Principal"]["Service"]) == services
    pattern = trust["Condition"]["StringLike"]["sts:ExternalId"]
    assert all(fnmatchcase(USER + user, pattern) for user in users)
    assert not any(fnmatchcase(USER + user, pattern) for user in others)
    assert not fnmatchcase((USER + users[0]).replace(ACCOUNT, "999999999999"), pattern)
    warehouse = stack.properties.get("Cluster") or stack.properties["Namespace"]
    assert warehouse["IamRoles"] == [stack.environment["AIRFLOW_VAR_SPARKIFY_IAM_ROLE"]]


@STACKS
def test_the_workers_get_their_policies(stack: Stack, cloud: Aws) -> None:
    attached = cloud.client("iam").list_attached_role_policies(RoleName=WORKERS)["AttachedPolicies"]
    arns = {policy["PolicyArn"] for policy in attached}
    assert set(stack.outputs["AirflowPolicyArns"].split()) <= arns


def test_the_workers_policies_can_be_attached_by_hand(cloud: Aws) -> None:
    by_hand = cloud.deploy("sparkify-by-hand", AirflowRoleName="")
    iam = cloud.client("iam")
    for arn in by_hand.outputs["AirflowPolicyArns"].split():
        assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 0


def test_an_endpoint_for_s3_is_added_where_it_is_asked_for(cloud: Aws, serverless: Stack) -> None:
    assert "S3Endpoint" not in serverless.properties
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    routed = cloud.deploy("sparkify-routed", VpcId=vpc, S3EndpointRouteTableIds=table)
    endpoint = routed.properties["S3Endpoint"]
    assert (endpoint["VpcEndpointType"], endpoint["ServiceName"]) == (
        "Gateway",
        f"com.amazonaws.{REGION}.s3",
    )
    assert endpoint["RouteTableIds"] == [table]


@STACKS
def test_everything_is_tagged(stack: Stack) -> None:
    for name, properties in stack.properties.items():
        if PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, stack.types[name]).schema["tagging"][
            "taggable"
        ]:
            assert {"Key": "Project", "Value": "sparkify-etl"} in properties["Tags"], name


def test_nothing_is_left_of_a_deleted_stack(cloud: Aws) -> None:
    def what_exists() -> list[Any]:  # but for managed policies, which moto's CloudFormation cannot delete
        s3, iam, ec2, redshift = map(cloud.client, ("s3", "iam", "ec2", "redshift"))
        return [
            sorted(bucket["Name"] for bucket in s3.list_buckets()["Buckets"]),
            sorted(role["RoleName"] for role in iam.list_roles()["Roles"]),
            sorted(
                group["GroupId"]
                for group in ec2.describe_security_groups()["SecurityGroups"]
                if group["GroupName"] not in ("airflow", "default")  # the test's own
            ),
            sorted(cluster["ClusterIdentifier"] for cluster in redshift.describe_clusters()["Clusters"]),
            sorted(Kept.existing),
        ]

    cloud.deploy("sparkify-before", Warehouse="cluster")  # makes the workers' role, if it is the first
    before = what_exists()
    stack = cloud.deploy("sparkify-gone", Warehouse="cluster")
    assert what_exists() != before
    bucket = stack.outputs["ManifestBucketName"]
    s3 = cloud.client("s3")
    s3.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )  # as the stack asks
    for body in (b"first try", b"second try"):
        s3.put_object(Bucket=bucket, Key="runs/a.manifest", Body=body)
    s3.delete_object(Bucket=bucket, Key="runs/a.manifest")  # as the lifecycle does
    command = re.search(r'python -c "(import boto3.*?)"', README, re.DOTALL)
    assert command
    with cloud.as_default():
        exec(command[1].replace("<output ManifestBucketName>", bucket))
    cloud.client("cloudformation").delete_stack(StackName=stack.name)
    assert what_exists() == before


def test_the_readme_tells_of_every_parameter() -> None:
    section = TEMPLATE.read_text().split("\nParameters:")[1].split("\nConditions:")[0]
    parameters = set(re.findall(r"^  (\w+):$", section, re.MULTILINE))
    rows = re.findall(r"^\| (`[\w`, ]+) \|", README, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"\w+", row)} == parameters
    command = re.search(r"--parameter-overrides((?:[^\n]*\\\n)*[^\n]*)", README)
    assert command
    given = {word.split("=")[0] for word in shlex.split(command[1].replace("\\\n", " ")) if "=" in word}
    assert given <= parameters
