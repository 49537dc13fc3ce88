"""Airflow's own metadata database on this machine, without which no ``airflow`` command runs a DAG."""

import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from local.redshift import postgres
from local.settings import LocalError, Settings

AIRFLOW = str(Path(sys.executable).with_name("airflow"))
DATABASE = "airflow"


def database_url(settings: Settings, database: str = DATABASE) -> str:
    """
    Return the SQLAlchemy URL of the metadata database, which is in the local Redshift's PostgreSQL.

    It is not Airflow's default, SQLite: there, two changes at the same time may hold each other up in the API
    server, until one of them fails, since it waits for a lock where the other's commit has to run.

    :param settings: where the stack keeps its files
    :param database: the database's name
    """
    address = conninfo_to_dict(postgres.dsn(settings, database))
    del address["dbname"]
    return f"postgresql+psycopg2:///{database}?{urlencode(address)}"


def migrate(settings: Settings, environment: Mapping[str, str]) -> None:
    """
    Bring the metadata database to the installed Airflow's schema, unless that was done before.

    ``airflow db migrate`` takes seconds also where there is nothing to do, so a table of the database says
    for which version it was last done.

    :param settings: where the stack, which must be up, keeps its files
    :param environment: all variables that Airflow is to have
    :raises LocalError: if it fails
    """
    with psycopg.connect(postgres.dsn(settings, "postgres"), autocommit=True) as server:
        found = server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if not found:
            server.execute(f"CREATE DATABASE {DATABASE}".encode())
    installed = version("apache-airflow")
    with psycopg.connect(postgres.dsn(settings, DATABASE), autocommit=True) as database:
        database.execute("CREATE TABLE IF NOT EXISTS migrated_to (version TEXT)")
        if database.execute("SELECT version FROM migrated_to").fetchone() == (installed,):
            return
        log_folder = settings.home / "log"
        log_folder.mkdir(parents=True, exist_ok=True)
        log_file = log_folder / "airflow-migrate.log"
        commands = ["airflow db migrate"]
        if installed.startswith("3.0."):
            # There, `airflow dags test` refuses the assets of a DAG that no DAG processor has stored.
            commands.append("airflow dags reserialize")
        with log_file.open("w") as log:
            for command in commands:
                done = subprocess.run(
                    [AIRFLOW, *command.split()[1:]], env=environment, stdout=log, stderr=log
                )
                if done.returncode:
                    raise LocalError(f"`{command}` failed; see {log_file}")
        database.execute("DELETE FROM migrated_to")
        database.execute("INSERT INTO migrated_to VALUES (%s)", [installed])
