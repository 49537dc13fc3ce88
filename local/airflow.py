"""Airflow's own metadata database on this machine, without which no ``airflow`` command runs a DAG."""

import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from local.settings import LocalError

AIRFLOW = str(Path(sys.executable).with_name("airflow"))

_NOTE = "migrated_to"


def migrate(log_folder: Path, environment: Mapping[str, str]) -> None:
    """
    Bring the metadata database to the installed Airflow's schema, unless that was done before.

    ``airflow db migrate`` takes seconds also where there is nothing to do, so a note beside the database says
    for which version it was last done.

    :param log_folder: where its log goes, as ``airflow-migrate.log``
    :param environment: all variables that Airflow is to have, ``AIRFLOW_HOME`` among them
    :raises LocalError: if it fails
    """
    note, installed = Path(environment["AIRFLOW_HOME"], _NOTE), version("apache-airflow")
    if note.exists() and note.read_text() == installed:
        return
    log_folder.mkdir(parents=True, exist_ok=True)
    log_file = log_folder / "airflow-migrate.log"
    commands = ["airflow db migrate"]
    if installed.startswith("3.0."):
        # There, `airflow dags test` refuses the assets of a DAG that no DAG processor has stored.
        commands.append("airflow dags reserialize")
    with log_file.open("w") as log:
        for command in commands:
            done = subprocess.run([AIRFLOW, *command.split()[1:]], env=environment, stdout=log, stderr=log)
            if done.returncode:
                raise LocalError(f"`{command}` failed; see {log_file}")
    note.write_text(installed)
