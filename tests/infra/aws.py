"""
An AWS on this machine: moto's server, and what the tests of the stack need beyond it.

CloudFormation knows the types of resources that moto does not know, or not well, and keeps the properties of
all of them, with references resolved. IAM decides about each request as AWS does, by actions, resources and
conditions of the statements of its sender's policies; moto leaves out conditions, and resources but for S3.
"""

import json
import logging
import os
import shlex
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import boto3
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto.cloudformation import parsing
from moto.core.authorization import ActionAuthenticatorMixin, enable_iam_authentication
from moto.core.common_models import CloudFormationModel
from moto.iam import access_control
from moto.iam.access_control import IAMPolicy, IAMRequestBase
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.redshift.models import Cluster, RedshiftBackend, redshift_backends
from moto.s3.exceptions import S3AccessDeniedError

from local import temporary_password
from local.settings import ACCOUNT, REGION
from tests.conftest import REPOSITORY

TEMPLATE = REPOSITORY / "infra" / "sparkify.yaml"
WORKERS = "airflow-workers"  # their role

# --- CloudFormation -----------------------------------------------------------------------------------------


class Kept:
    """A resource that is a name, and attributes made from it."""

    type_name: ClassVar[str]
    name_property: ClassVar[str] = ""
    attributes: ClassVar[Mapping[str, str]] = {}
    existing: ClassVar[set[tuple[str, str]]] = set()

    def __init__(self, name: str) -> None:
        self.physical_resource_id = name

    @classmethod
    def cloudformation_type(cls) -> str:
        return cls.type_name

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return any(attribute.startswith(attr) for attribute in cls.attributes)  # moto asks for the first part

    def get_cfn_attribute(self, attribute_name: str) -> str:
        name = self.physical_resource_id
        return self.attributes[attribute_name].format(name=name, id=uuid.uuid5(uuid.NAMESPACE_DNS, name))

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, *where: str, **kwargs: Any
    ) -> Any:
        name = cloudformation_json["Properties"].get(cls.name_property, resource_name)
        cls.existing.add((cls.type_name, name))
        return cls(name)

    @classmethod
    def delete_from_cloudformation_json(cls, resource_name: str, *where: Any) -> None:
        cls.existing.remove((cls.type_name, resource_name))


class _BucketPolicy(Kept, CloudFormationModel):
    type_name = "AWS::S3::BucketPolicy"


class _QueuePolicy(Kept, CloudFormationModel):
    type_name = "AWS::SQS::QueuePolicy"


class _LogGroup(Kept, CloudFormationModel):
    type_name = "AWS::Logs::LogGroup"
    name_property = "LogGroupName"


class _Namespace(Kept, CloudFormationModel):
    type_name = "AWS::RedshiftServerless::Namespace"
    name_property = "NamespaceName"


class _Workgroup(Kept, CloudFormationModel):
    type_name = "AWS::RedshiftServerless::Workgroup"
    name_property = "WorkgroupName"
    attributes: ClassVar[Mapping[str, str]] = {
        "Workgroup.Endpoint.Address": f"{{name}}.{ACCOUNT}.{REGION}.redshift-serverless.amazonaws.com",
        "Workgroup.WorkgroupArn": f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:workgroup/{{id}}",
    }


class _SubnetGroup(Kept, CloudFormationModel):
    type_name = "AWS::Redshift::ClusterSubnetGroup"


class _ParameterGroup(Kept, CloudFormationModel):
    type_name = "AWS::Redshift::ClusterParameterGroup"


class _Cluster(Kept, CloudFormationModel):
    """A cluster that moto's Redshift API knows by the name that the template gives it."""

    type_name = "AWS::Redshift::Cluster"
    name_property = "ClusterIdentifier"
    attributes: ClassVar[Mapping[str, str]] = {
        "Endpoint.Address": f"{{name}}.cq1example2ab.{REGION}.redshift.amazonaws.com"
    }

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, *where: str, **kwargs: Any
    ) -> Any:
        kept = super().create_from_cloudformation_json(resource_name, cloudformation_json)
        described = {"ClusterType", "DBName", "MasterUsername", "NodeType"}
        properties = {name: cloudformation_json["Properties"][name] for name in described}
        Cluster.create_from_cloudformation_json(
            kept.physical_resource_id, {"Properties": properties}, ACCOUNT, REGION
        )
        return kept

    @classmethod
    def delete_from_cloudformation_json(cls, resource_name: str, *where: Any) -> None:
        super().delete_from_cloudformation_json(resource_name)
        del redshift_backends[ACCOUNT][REGION].clusters[resource_name]


_clean_json, _parse_resource = parsing.clean_json, parsing.parse_resource_and_generate_name


def _with_whole_attributes(value: Any, resources: Any) -> Any:
    """Resolve references; moto takes ``Endpoint`` for the attribute in ``Cluster.Endpoint.Address``."""
    if isinstance(value, dict) and "Fn::GetAtt" in value:
        resource, *attribute = value["Fn::GetAtt"]
        value = {"Fn::GetAtt": [resource, ".".join(attribute)]}
    return _clean_json(value, resources)


# --- IAM ----------------------------------------------------------------------------------------------------


def permits(
    statements: list[dict[str, Any]], action: str, resource: str, context: Mapping[str, str] | None = None
) -> bool:
    """
    Tell whether one of the statements allows a request, and none denies it.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html

    :param statements: of all policies that apply to the request
    :param action: such as ``s3:GetObject``
    :param resource: the ARN of what it is done to
    :param context: the request's condition keys and their values
    """
    effects = {
        statement["Effect"]
        for statement in statements
        if any(fnmatchcase(action, pattern) for pattern in _list(statement["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in _list(statement["Resource"]))
        and _holds(statement.get("Condition", {}), context or {})
    }
    return effects == {"Allow"}


def _holds(conditions: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    assert set(conditions) <= {"StringLike", "Bool"}, "an operator that this evaluation does not know"
    return all(
        any(fnmatchcase(context.get(key, ""), pattern) for pattern in _list(patterns))
        for operands in conditions.values()
        for key, patterns in operands.items()
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _needs(sent: IAMRequestBase, resource: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield what a request needs to be allowed: an action, the resource, and the values of condition keys."""
    if sent._action.startswith("sqs:"):
        name = json.loads(sent._body)["QueueUrl"].rpartition("/")[2]
        yield sent._action.removesuffix("Batch"), f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}", {}
        return
    if sent._action != "redshift:GetClusterCredentials":
        query = parse_qs(urlsplit(sent._path).query)
        yield sent._action, resource, {"s3:prefix": query["prefix"][0]} if "prefix" in query else {}
        return
    # https://docs.aws.amazon.com/redshift/latest/APIReference/API_GetClusterCredentials.html
    asked = {name: value[0] for name, value in sent._data.items()}
    arn = f"arn:aws:redshift:{REGION}:{ACCOUNT}:{{}}:{asked['ClusterIdentifier']}/{{}}"
    yield sent._action, arn.format("dbuser", asked["DbUser"]), {}
    yield sent._action, arn.format("dbname", asked["DbName"]), {}
    if asked.get("AutoCreate") == "true":
        yield "redshift:CreateClusterUser", arn.format("dbuser", asked["DbUser"]), {}


# --- The whole ----------------------------------------------------------------------------------------------


@dataclass
class Stack:
    """
    A stack that was created.

    :param name: its name
    :param outputs: its outputs, by name
    :param properties: of its resources, by logical id
    :param types: of its resources, by logical id
    """

    name: str
    outputs: dict[str, str]
    properties: dict[str, dict[str, Any]]
    types: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """What a shell makes of the output that is meant for a ``.env`` file."""
        words = shlex.split(self.outputs["AirflowEnvironment"])
        return dict(word.split("=", 1) for word in words)


@dataclass
class Aws:
    """
    The running server.

    :param url: the endpoint of all its services
    :param created: the type and properties of every resource that was created, by stack and logical id
    :param withdrawn: a statement that IAM passes over: of ``airflow`` or ``copy``, and its Sid
    """

    url: str
    created: dict[str, dict[str, tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    withdrawn: tuple[str, str] | None = None

    def client(self, service: str) -> Any:
        """Return a client of an administrator."""
        keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "admin"}
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **keys)

    def deploy(self, name: str, **parameters: str) -> Stack:
        """
        Create the stack in a new VPC with three subnets.

        :param name: its name
        :param parameters: the template's parameters, but for the network and the workers' role
        """
        ec2, iam, cloudformation = map(self.client, ("ec2", "iam", "cloudformation"))
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")[
                "Subnet"
            ]["SubnetId"]
            for number, zone in enumerate("abc")
        ]
        workers = ec2.create_security_group(GroupName="airflow", Description="Airflow", VpcId=vpc)["GroupId"]
        if WORKERS not in [role["RoleName"] for role in iam.list_roles()["Roles"]]:
            iam.create_role(RoleName=WORKERS, AssumeRolePolicyDocument="{}")
        values = {
            **{"VpcId": vpc, "SubnetIds": ",".join(subnets), "AirflowSecurityGroupId": workers},
            **{"AirflowRoleName": WORKERS, **parameters},
        }
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=TEMPLATE.read_text(),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
        )
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        created = self.created[name].items()
        return Stack(
            name,
            outputs,
            properties={logical_id: properties for logical_id, (_, properties) in created},
            types={logical_id: type_name for logical_id, (type_name, _) in created},
        )

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Let programs that name no endpoint and no keys be an administrator's here."""
        keys = {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "admin", "AWS_DEFAULT_REGION": REGION}
        with patch.dict(os.environ, {"AWS_ENDPOINT_URL": self.url, **keys}):
            yield

    @contextmanager
    def enforced(self, stack: Stack, create_user: Callable[[str], None]) -> Iterator[dict[str, str]]:
        """
        Let IAM decide about all requests, and yield the environment of an Airflow worker of a stack.

        A request with the local Redshift's keys is COPY's, which AWS would make with the role of the stack.

        :param stack: the stack
        :param create_user: makes a user of the warehouse, unless it is there, as the first login does on AWS
        """
        session = self.client("sts").assume_role(
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{WORKERS}", RoleSessionName="worker"
        )["Credentials"]
        copying = [
            json.dumps(policy["PolicyDocument"]) for policy in stack.properties["CopyRole"]["Policies"]
        ]
        identify = access_control.create_access_key
        authorize = ActionAuthenticatorMixin._authenticate_and_authorize_action

        def identified(**request: Any) -> Any:
            if request["access_key_id"] != "local":
                return identify(**request)
            return SimpleNamespace(arn="the role of COPY", collect_policies=lambda: copying)

        def authorized(response: Any, *arguments: Any) -> None:
            if "Authorization" not in response.headers:
                raise S3AccessDeniedError
            authorize(response, *arguments)

        def decide(request: IAMRequestBase, resource: str) -> None:
            if request._action == "sts:GetCallerIdentity":
                return  # needs no permission
            key = request._access_key
            owner = "copy" if isinstance(key, SimpleNamespace) else "airflow"
            policies = [IAMPolicy(policy)._policy_json for policy in key.collect_policies()]
            if not all(permits(self._left(owner, policies), *need) for need in _needs(request, resource)):
                request._raise_access_denied()

        call = BaseClient._make_api_call

        def called(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
            if operation != "GetCredentials":  # of Redshift Serverless, whose API moto does not have
                return call(client, operation, arguments)
            assert client._request_signer._credentials.access_key == session["AccessKeyId"]
            assert arguments["workgroupName"] == stack.properties["Workgroup"]["WorkgroupName"]
            assert arguments["dbName"] == stack.properties["Namespace"]["DbName"]
            policies = [stack.properties["ServerlessLogInPolicy"]["PolicyDocument"]]
            action, arn = "redshift-serverless:GetCredentials", stack.outputs["WorkgroupArn"]
            if not permits(self._left("airflow", policies), action, arn):
                raise ClientError({"Error": {"Code": "AccessDeniedException"}}, operation)
            create_user(f"IAMR:{WORKERS}")
            user, password, expires = _login(f"IAMR:{WORKERS}")
            return {"dbUser": user, "dbPassword": password, "expiration": expires}

        def credentials(
            backend: Any, cluster: str, db_user: str, auto_create: bool, seconds: int
        ) -> dict[str, Any]:
            if auto_create:
                create_user(db_user)
            user, password, expires = _login(db_user)
            return {"DbUser": user, "DbPassword": password, "Expiration": expires}

        with ExitStack() as patches:
            for replaced, name, by in (
                (access_control, "create_access_key", identified),
                (ActionAuthenticatorMixin, "_authenticate_and_authorize_action", authorized),
                (IAMRequestBase, "check_signature", lambda request: None),
                (IAMRequestBase, "check_action_permitted", decide),
                (BaseClient, "_make_api_call", called),
                (RedshiftBackend, "get_cluster_credentials", credentials),
            ):
                patches.enter_context(patch.object(replaced, name, by))
            patches.enter_context(enable_iam_authentication())
            yield {
                **stack.environment,
                "AWS_ENDPOINT_URL": self.url,
                "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
                "AWS_SESSION_TOKEN": session["SessionToken"],
            }

    def _left(self, owner: str, policies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            statement
            for policy in policies
            for statement in policy["Statement"]
            if (owner, statement["Sid"]) != self.withdrawn
        ]


def _login(user: str) -> tuple[str, str, datetime]:
    """Return a login to the local Redshift; its users with temporary passwords are all called IAM:."""
    login, expires = f"IAM:{user}", datetime.now(UTC) + timedelta(minutes=15)
    return login, temporary_password.sign(login, expires), expires


@contextmanager
def running() -> Iterator[Aws]:
    """An AWS, empty, for as long as the context lasts."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line for every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    aws = Aws(f"http://{host}:{port}")

    def parsed(logical_id: str, resource_json: Any, resources: Any) -> Any:
        result = _parse_resource(logical_id, resource_json, resources)
        resource = result[1]
        created = aws.created.setdefault(resources["AWS::StackName"], {})
        created[logical_id] = resource["Type"], resource["Properties"]
        return result

    for cached in (parsing.get_model_list, parsing.get_model_map, parsing.get_name_type_map):
        cached.cache_clear()
    with (
        patch.object(parsing, "clean_json", _with_whole_attributes),
        patch.object(parsing, "parse_resource_and_generate_name", parsed),
    ):
        yield aws
    # moto's memory is the process's: the next AWS in it would have this one's stacks and buckets.
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    server.stop()
