"""Where the local stack listens and keeps its files, each value overridable from the environment."""

import json
import os
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parents[1]

#: What Airflow needs to run this project, where the stack's servers are called `s3` and `redshift`.
AIRFLOW_SETTINGS = dict(
    line.split("=", 1)
    for line in Path(__file__).with_name("airflow.env").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
)

INPUT_BUCKET = urlsplit(AIRFLOW_SETTINGS["AIRFLOW_VAR_SPARKIFY_LOG_DATA"]).netloc
WORK_BUCKET = urlsplit(AIRFLOW_SETTINGS["AIRFLOW_VAR_SPARKIFY_WORK_PREFIX"]).netloc
REGION = AIRFLOW_SETTINGS["AIRFLOW_VAR_SPARKIFY_S3_REGION"]
# The IAM role that COPY reads S3 with, in moto's account.
REDSHIFT_ROLE = AIRFLOW_SETTINGS["AIRFLOW_VAR_SPARKIFY_IAM_ROLE"]
ACCOUNT = REDSHIFT_ROLE.split(":")[4]

# The cluster that the local AWS knows, with its only user. Not a secret: it is for this machine alone.
REDSHIFT_CLUSTER = "sparkify"
REDSHIFT_USER, REDSHIFT_PASSWORD, REDSHIFT_DATABASE = itemgetter("login", "password", "schema")(
    json.loads(AIRFLOW_SETTINGS["AIRFLOW_CONN_REDSHIFT"])
)


class LocalError(Exception):
    """A failure of the local stack that its user can mend: the message says what, where and how."""


def _variable(name: str, default: str) -> str:
    return os.environ.get(name) or default


def _port(name: str, default: str) -> int:
    value = _variable(name, default)
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise LocalError(f"{name} is {value!r}: set it to a TCP port, a number from 1 to 65535.")
    return int(value)


@dataclass(frozen=True)
class Settings:
    """
    The local stack's addresses and folder, read from the environment when an instance is made.

    :param home: folder of everything the stack stores (``SPARKIFY_LOCAL_DIR``)
    :param host: address that both servers bind (``SPARKIFY_HOST``)
    :param redshift_port: TCP port of the local Redshift (``SPARKIFY_REDSHIFT_PORT``)
    :param s3_port: TCP port of the local S3 (``SPARKIFY_S3_PORT``)
    :param web_port: TCP port of Airflow's web UI (``SPARKIFY_WEB_PORT``)
    :param s3_url: where the local Redshift reads S3 from (``SPARKIFY_S3_URL``)
    """

    home: Path = field(
        default_factory=lambda: Path(_variable("SPARKIFY_LOCAL_DIR", str(REPOSITORY / ".local"))).resolve()
    )
    host: str = field(default_factory=lambda: _variable("SPARKIFY_HOST", "127.0.0.1"))
    redshift_port: int = field(default_factory=lambda: _port("SPARKIFY_REDSHIFT_PORT", "5439"))
    s3_port: int = field(default_factory=lambda: _port("SPARKIFY_S3_PORT", "4566"))
    web_port: int = field(default_factory=lambda: _port("SPARKIFY_WEB_PORT", "8080"))
    s3_url: str = field(
        default_factory=lambda: _variable(
            "SPARKIFY_S3_URL", f"http://127.0.0.1:{_variable('SPARKIFY_S3_PORT', '4566')}"
        )
    )

    @property
    def redshift_dsn(self) -> str:
        """Where a client on this machine finds the local Redshift, as a libpq URL."""
        return f"postgresql://{REDSHIFT_USER}:{REDSHIFT_PASSWORD}@127.0.0.1:{self.redshift_port}/{REDSHIFT_DATABASE}"

    @property
    def redshift_ca(self) -> Path:
        """The certificate of the CA that vouches for the local Redshift, new with each of its starts."""
        return self.home / "redshift-ca.pem"

    @property
    def changed_objects(self) -> Path:
        """The folder of what clients wrote to the local S3, and deleted, since it serves the present data."""
        return self.home / "changed_objects"

    @property
    def airflow_home(self) -> Path:
        """Where an Airflow that runs on the stack keeps its settings and its database."""
        return self.home / "airflow"

    def environment(self) -> dict[str, str]:
        """Return the variables from which another process reads these same settings."""
        return {
            "SPARKIFY_LOCAL_DIR": str(self.home),
            "SPARKIFY_HOST": self.host,
            "SPARKIFY_REDSHIFT_PORT": str(self.redshift_port),
            "SPARKIFY_S3_PORT": str(self.s3_port),
            "SPARKIFY_S3_URL": self.s3_url,
        }
