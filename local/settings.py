"""Where the local stack listens and keeps its files, each value overridable from the environment."""

import os
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

INPUT_BUCKET = "udacity-dend"
WORK_BUCKET = "sparkify-etl"
REGION = "us-west-2"

# The warehouse's only user. Not a secret: the server listens on this machine alone.
REDSHIFT_USER = "sparkify"
REDSHIFT_PASSWORD = "sparkify"
REDSHIFT_DATABASE = "sparkify"


def _variable(name: str, default: str) -> str:
    return os.environ.get(name) or default


@dataclass(frozen=True)
class Settings:
    """
    The local stack's addresses and folder, read from the environment when an instance is made.

    :param home: folder of everything the stack stores (``SPARKIFY_LOCAL_DIR``)
    :param host: address that both servers bind (``SPARKIFY_HOST``)
    :param redshift_port: TCP port of the local Redshift (``SPARKIFY_REDSHIFT_PORT``)
    :param s3_port: TCP port of the local S3 (``SPARKIFY_S3_PORT``)
    :param s3_url: where the local Redshift reads S3 from (``SPARKIFY_S3_URL``)
    """

    home: Path = field(
        default_factory=lambda: Path(_variable("SPARKIFY_LOCAL_DIR", str(REPOSITORY / ".local"))).resolve()
    )
    host: str = field(default_factory=lambda: _variable("SPARKIFY_HOST", "127.0.0.1"))
    redshift_port: int = field(default_factory=lambda: int(_variable("SPARKIFY_REDSHIFT_PORT", "5439")))
    s3_port: int = field(default_factory=lambda: int(_variable("SPARKIFY_S3_PORT", "4566")))
    s3_url: str = field(
        default_factory=lambda: _variable(
            "SPARKIFY_S3_URL", f"http://127.0.0.1:{_variable('SPARKIFY_S3_PORT', '4566')}"
        )
    )
