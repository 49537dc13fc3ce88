"""What can be told of the compose files without Docker."""

from itertools import chain
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY

FILES = sorted(REPOSITORY.glob("docker-compose*.yaml"))


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / name).read_text().replace("!override", ""))  # a tag of compose


def services(name: str) -> dict[str, Any]:
    return read(name)["services"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_can_be_reached_from_other_machines(path: Any) -> None:
    ports = chain.from_iterable(service.get("ports", ()) for service in services(path.name).values())
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_each_of_airflows_services_has_the_settings_of_the_local_stack() -> None:
    airflow = {
        name: service
        for name, service in services("docker-compose.yaml").items()
        if service["image"] == "sparkify-airflow"
    }
    assert len(airflow) == 6
    assert {service["env_file"] for service in airflow.values()} == {"local/airflow.env"}
    text = (REPOSITORY / "docker-compose.yaml").read_text()
    assert "AIRFLOW_CONN" not in text
    assert "AIRFLOW_VAR" not in text


def test_none_of_airflows_services_has_them_on_aws() -> None:
    local, aws = services("docker-compose.yaml"), services("docker-compose.aws.yaml")
    for name, service in local.items():
        if service["image"] == "sparkify-airflow":
            assert aws[name]["env_file"] == [".env"], name
        elif name != "metadata":
            assert aws[name]["profiles"] == ["local"], name


def test_what_servers_store_is_in_volumes_that_survive_them() -> None:
    declared = read("docker-compose.yaml")["volumes"]
    stores = {
        name: [volume.split(":") for volume in service["volumes"] if not volume.endswith(":ro")]
        for name, service in services("docker-compose.yaml").items()
        if name in ("metadata", "s3", "redshift")
    }
    assert [[volume in declared for volume, *_ in volumes] for volumes in stores.values()] == [[True]] * 3
    assert len({volume for volumes in stores.values() for volume, *_ in volumes}) == 3
