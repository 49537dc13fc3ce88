"""``python -m local web``, as a user starts it, and what a user may ask of it."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook

from sparkify.tables import TABLES
from tests.conftest import REPOSITORY, SETTINGS, free_port


@dataclass
class Web:
    """
    Airflow, up.

    :param process: that of the command
    :param url: its address
    :param user: who may log in
    :param password: that user's
    """

    process: subprocess.Popen[str]
    url: str
    user: str
    password: str
    _token: str | None = None

    def ask(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """
        Return the answer of its REST API.

        :param path: below ``/api/v2/``
        :param body: what to send; None only reads
        :param method: how to send it
        :raises AssertionError: if there is no good answer, with the ends of its logs
        """
        if not self._token:
            login = {"username": self.user, "password": self.password}
            self._token = self._request("auth/token", login, "POST")["access_token"]
        return self._request(f"api/v2/{path}", body, method)

    def _request(self, path: str, body: Any, method: str) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/{path}", data, headers, method="GET" if data is None else method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except OSError as error:  # no answer in time, or one that it is refused
            logs = sorted((SETTINGS.home / "log").glob("airflow-*.log"))
            ends = "\n".join(f"{path}:\n{path.read_text()[-10_000:]}" for path in logs)
            raise AssertionError(f"{path}: {error}\n{ends}") from error


@contextmanager
def running_web(warehouse: RedshiftSQLHook) -> Iterator[Web]:
    """
    Start it on a free port, and stop it at the end.

    :param warehouse: is emptied before, for the scheduler begins with a run at once
    """
    warehouse.run([f"DELETE FROM {table}" for table in TABLES])
    with subprocess.Popen(
        [sys.executable, "-m", "local", "web"],
        cwd=REPOSITORY,
        env=os.environ | {"SPARKIFY_WEB_PORT": str(free_port())},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(2)]
        found = re.findall(r"up: (\S+), user (\S+), password (\S+)", "".join(lines))
        yield Web(process, *found[0])
        process.terminate()
