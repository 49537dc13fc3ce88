"""The stack of ``infra/sparkify.yaml``, deployed to an AWS on this machine."""

from collections.abc import Iterator

import pytest

from tests.infra import aws
from tests.infra.aws import Aws, Stack


@pytest.fixture(scope="package")
def cloud() -> Iterator[Aws]:
    """An AWS, which no request has to prove itself to until a test says so."""
    with aws.running() as running:
        yield running


@pytest.fixture(scope="package")
def cluster(cloud: Aws) -> Stack:
    """The stack with a cluster, and a queue of new objects."""
    return cloud.deploy("sparkify-cluster", Warehouse="cluster", NewObjectsQueue="true")


@pytest.fixture(scope="package")
def serverless(cloud: Aws) -> Stack:
    """The stack with a Serverless workgroup."""
    return cloud.deploy("sparkify-serverless")
