"""The local S3: moto's server, filled from a folder and with what clients changed since."""

import json
import signal
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.s3.models import FakeKey, s3_backends
from werkzeug.serving import make_server

from local import temporary_password
from local.faults import Faults, throttled
from local.listings import is_archived, listings_first
from local.objects import ChangedObjects, asks_for_permission, keeping_changes
from local.settings import (
    ACCOUNT,
    INPUT_BUCKET,
    REDSHIFT_CLUSTER,
    REDSHIFT_DATABASE,
    REDSHIFT_USER,
    REGION,
    WORK_BUCKET,
    LocalError,
    Settings,
)

#: Headers of reads that ask for more than a whole object, or have a body.
_NOT_PLAIN = {
    "range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "content-length",
    "transfer-encoding",
}


def seed_files(seed: Path) -> list[Path]:
    """
    Return the files of a data folder that become objects, in the order of their names.

    :param seed: a folder that holds ``log_data/`` and ``song_data/``, and perhaps ``log_json_path.json``
    :raises LocalError: if it is no such folder
    """
    folders = [seed / "log_data", seed / "song_data"]
    for folder in folders:
        if not folder.is_dir():
            raise LocalError(
                f"There is no folder {folder}: data must be a folder with log_data/ and song_data/."
            )
    files = [seed / "log_json_path.json", *(path for folder in folders for path in folder.rglob("*"))]
    # Hidden files are the desktop's (.DS_Store), not data.
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


class Handler(MotoRequestHandler):
    """
    Answers plain reads of whole objects itself, and leaves the connection open for the next one.

    Moto's routing takes most of the time of small objects, and opening connections most of the rest. Werkzeug
    closes each, since what is left of a request's body would pass for the next request; these have no body.
    """

    #: What tests make fail; None outside of tests.
    faults: Faults | None = None

    protocol_version = "HTTP/1.1"
    # Else the end of a large object would wait until the client has acknowledged the rest.
    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        """Answer a request."""
        stored = self._asked_for()
        if stored is None:
            super().run_wsgi()
            return
        self.send_response(200)
        for name, value in {**stored.response_dict, **stored.metadata, "accept-ranges": "bytes"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(stored.value)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log no line for every request."""

    def _asked_for(self) -> FakeKey | None:
        """Return the object that a plain read asks for; None for any other request, which is moto's."""
        headers = {name.lower() for name in self.headers}
        if self.command != "GET" or "?" in self.path or headers & _NOT_PLAIN or asks_for_permission():
            return None
        if self.faults and self.faults.pending:
            return None
        bucket, _, key = unquote(self.path).lstrip("/").partition("/")
        buckets = s3_backends[ACCOUNT]["aws"].buckets
        stored = buckets[bucket].keys.get(key) if bucket in buckets else None
        asks_for_checksum = "x-amz-checksum-mode" in headers
        if not isinstance(stored, FakeKey) or is_archived(stored):
            return None
        return None if asks_for_checksum and stored.checksum_algorithm else stored


@cache
def _add_cluster() -> None:
    """Let moto know the local Redshift, and hand out passwords that it takes."""
    from moto.redshift.models import Cluster, redshift_backends  # takes a second, and is seldom needed

    described = {"MasterUsername": REDSHIFT_USER, "DBName": REDSHIFT_DATABASE, "ClusterType": "single-node"}
    Cluster.create_from_cloudformation_json(REDSHIFT_CLUSTER, {"Properties": described}, ACCOUNT, REGION)
    backend = redshift_backends[ACCOUNT][REGION]
    give_credentials = backend.get_cluster_credentials

    def give_valid_credentials(*arguments: Any, **options: Any) -> dict[str, Any]:
        credentials = give_credentials(*arguments, **options)
        password = temporary_password.sign(credentials["DbUser"], credentials["Expiration"])
        return {**credentials, "DbPassword": password}

    backend.get_cluster_credentials = give_valid_credentials  # type: ignore[method-assign]


def _serverless_first(moto: WSGIApplication, port: int) -> WSGIApplication:
    """
    Answer what Amazon's driver asks Redshift Serverless, which moto lacks.

    https://docs.aws.amazon.com/redshift-serverless/latest/APIReference/API_GetCredentials.html

    :param moto: answers all other requests
    :param port: where the only workgroup, the local Redshift, listens
    """

    def respond(operation: str, request: dict[str, Any], access_key: str) -> dict[str, Any]:
        if request.get("workgroupName") != REDSHIFT_CLUSTER:
            message = f"There is no workgroup {request.get('workgroupName')}"
            return {"__type": "ResourceNotFoundException", "message": message}
        if operation == "GetWorkgroup":
            endpoint = {"address": "127.0.0.1", "port": port}
            return {"workgroup": {"workgroupName": REDSHIFT_CLUSTER, "endpoint": endpoint}}
        seconds = request.get("durationSeconds", 900)
        if not 900 <= seconds <= 3600:
            return {"__type": "ValidationException", "message": "durationSeconds: from 900 to 3600"}
        user, expires = _database_user(access_key), datetime.now(UTC) + timedelta(seconds=seconds)
        password = temporary_password.sign(user, expires)
        return {"dbUser": user, "dbPassword": password, "expiration": expires.timestamp()}

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        service, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        if service != "RedshiftServerless" or operation not in ("GetCredentials", "GetWorkgroup"):
            return moto(environ, start_response)
        request = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        access_key = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0]
        response = respond(operation, request, access_key)
        status = "400 Bad Request" if "__type" in response else "200 OK"
        start_response(status, [("content-type", "application/x-amz-json-1.1")])
        return [json.dumps(response).encode()]

    return answer


def _database_user(access_key: str) -> str:
    """Return the user that an identity of IAM has on Serverless; an unknown key is the superuser's."""
    from moto.sts.models import sts_backends

    _, arn, _ = sts_backends[ACCOUNT]["aws"].get_caller_identity(access_key, REGION)
    kind, name = arn.rpartition(":")[2].split("/")[:2]
    if kind == "assumed-role":
        return f"IAMR:{name}"
    return f"IAM:{REDSHIFT_USER if name == 'moto' else name}"


class _Services(DomainDispatcherApplication):
    """Moto's services, each built when it is first asked for."""

    @cache  # noqa: B019  # there is one instance; moto would list the folder of its services for each request
    def get_backend_for_host(self, host: str | None) -> Any:
        """
        Return what moto calls a service.

        :param host: the service's host, or moto's name for it
        """
        service = super().get_backend_for_host(host)
        if service == "redshift":
            _add_cluster()
        return service


def main(settings: Settings, seed: Path) -> None:
    """
    Serve what the project uses of AWS until SIGTERM, with both buckets made and the input bucket filled.

    Objects that clients wrote or deleted are as they left them.

    :param settings: address to listen on, and where the changes are
    :param seed: the folder whose files are the input bucket's objects, each key its path in the folder
    :raises LocalError: if the folder holds no data
    """
    # A handler, since the first process of a container ignores signals that it doesn't handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    files = seed_files(seed)
    # Straight into moto's memory: through HTTP, thousands of song files would take minutes.
    backend = s3_backends[ACCOUNT]["aws"]
    for bucket in (INPUT_BUCKET, WORK_BUCKET):
        backend.create_bucket(bucket, REGION)
    for path in files:
        stored = backend.put_object(INPUT_BUCKET, path.relative_to(seed).as_posix(), path.read_bytes())
        _ = stored.etag  # moto computes it when it is first asked for, which would be in a load
        # The file's time, so that a restart doesn't look like a new delivery; moto wants UTC without zone.
        stored.last_modified = datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None)
    changed = ChangedObjects(settings.changed_objects, backend)
    changed.restore()
    services = keeping_changes(_Services(create_backend_app), backend, changed)
    services = listings_first(_serverless_first(services, settings.redshift_port), backend)
    Handler.faults = Faults.from_environment()
    if Handler.faults:
        services = throttled(services, Handler.faults)
    server = make_server(settings.host, settings.s3_port, services, threaded=True, request_handler=Handler)
    print(f"S3 on {settings.host}:{settings.s3_port} with {len(files)} objects of {seed}", flush=True)
    server.serve_forever()
