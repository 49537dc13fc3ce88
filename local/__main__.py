"""``python -m local``: the local stack's command line."""

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import psycopg

from local import demo, s3, stack, web
from local.airflow import AIRFLOW, database_url, migrate
from local.redshift import postgres
from local.redshift.errors import SqlError
from local.settings import (
    AIRFLOW_SETTINGS,
    REDSHIFT_DATABASE,
    REDSHIFT_PASSWORD,
    REDSHIFT_USER,
    REGION,
    REPOSITORY,
    LocalError,
    Settings,
)

NOT_ALL_UP = 3  # the exit code of `status`, as systemd's
REPORTED_TABLES = (
    "fact_songplays",
    "dim_users",
    "dim_songs",
    "dim_artists",
    "dim_time",
    "staging_events",
    "staging_songs",
    "etl_files",
)
NEXT = """\
What to try next:
  make web                           the pipeline in Airflow's web UI, and a page with charts of all this
  .venv/bin/python -m local psql     the warehouse, for questions of your own
  make demo DATA=folder              the same with your own log_data/ and song_data/
  make down                          stops the local stack"""
EVER = {"range_start": date.min, "range_end": date.max}
LEFT_OUT = """
SELECT status, s3_key, LEFT(reason, 120)
FROM etl_files
WHERE status <> 'loaded'
ORDER BY status DESC, s3_key
LIMIT 20
"""
TOP_SONGS = REPOSITORY / "include" / "sql" / "analytics" / "top_songs.sql"


def airflow_environment(settings: Settings) -> dict[str, str]:
    """
    Return the variables that make an Airflow run this project against the local stack.

    :param settings: addresses and folder of the stack
    """
    addresses = {
        "AIRFLOW_CONN_REDSHIFT": {"host": "127.0.0.1", "port": settings.redshift_port},
        "AIRFLOW_CONN_REDSHIFT_ADMIN": {"host": "127.0.0.1", "port": settings.redshift_port},
        "AIRFLOW_CONN_AWS_DEFAULT": {"extra": {"endpoint_url": settings.s3_url, "region_name": REGION}},
    }
    return {
        **AIRFLOW_SETTINGS,
        **{name: json.dumps(json.loads(AIRFLOW_SETTINGS[name]) | own) for name, own in addresses.items()},
        "AIRFLOW_HOME": str(settings.airflow_home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url(settings),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
    }


def _up(settings: Settings, arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    started = stack.up(settings, arguments.data, fresh=arguments.fresh)
    rows = [
        (each.name, each.address, "started" if each.name in started else "already running")
        for each in stack.status(settings)
        if each.address
    ]
    if "s3" in started:
        folder = stack.served_data(settings)
        sizes = [path.stat().st_size for path in s3.seed_files(folder)]
        rows.append(("data", str(folder), f"{len(sizes):,} objects, {sum(sizes):,} bytes"))
    if arguments.airflow:
        migrate(settings, os.environ | airflow_environment(settings))
        rows.append(("airflow", str(settings.airflow_home), "its database is ready"))
    print(_aligned(rows))
    print(f"The local stack is up ({time.monotonic() - began:.1f} s).")
    return 0


def _down(settings: Settings, _: argparse.Namespace) -> int:
    stopped = stack.down(settings)
    print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")
    return 0


def _clean(settings: Settings, arguments: argparse.Namespace) -> int:
    _down(settings, arguments)
    postgres.remove_data(settings)
    shutil.rmtree(settings.home)
    return 0


def _status(settings: Settings, _: argparse.Namespace) -> int:
    states = stack.status(settings)
    print(_aligned([(each.name, each.state, each.pid or "-", each.address or "-") for each in states]))
    return 0 if all(each.state == "up" for each in states) else NOT_ALL_UP


def _demo(settings: Settings, arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    arguments.fresh, arguments.data = True, arguments.data or stack.sample_data(settings)
    arguments.airflow = True
    _up(settings, arguments)
    seconds = demo.run_pipeline(settings.home / "log" / "demo.log", airflow_environment(settings))
    print()
    _report(settings, arguments)
    print(f"\nThe run took {seconds:.1f} s, all of it {time.monotonic() - began:.1f} s.")
    print(NEXT)
    return 0


def _web(settings: Settings, _: argparse.Namespace) -> int:
    stack.up(settings)
    stack.refuse_a_taken_port("airflow", settings.web_port, "SPARKIFY_WEB_PORT")
    stack.register(settings, "airflow")
    web.serve(settings, airflow_environment(settings))
    return 0


def _airflow(settings: Settings, arguments: argparse.Namespace) -> int:
    stack.up(settings)
    variables = os.environ | airflow_environment(settings)
    migrate(settings, variables)
    os.execve(AIRFLOW, ["airflow", *arguments.passed_on], variables)


def _env(settings: Settings, _: argparse.Namespace) -> int:
    for name, value in airflow_environment(settings).items():
        quoted = value.replace("'", "'\\''")
        print(f"{name}='{quoted}'")
    return 0


def _psql(settings: Settings, arguments: argparse.Namespace) -> int:
    connection = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(settings.redshift_port),
        "PGUSER": REDSHIFT_USER,
        "PGPASSWORD": REDSHIFT_PASSWORD,
        "PGDATABASE": REDSHIFT_DATABASE,
    }
    try:
        os.execvpe("psql", ["psql", *arguments.passed_on], os.environ | connection)
    except FileNotFoundError:
        raise LocalError(
            "psql is not installed. Install PostgreSQL's client, or connect another client to "
            + settings.redshift_dsn
        ) from None


def _serve(settings: Settings, arguments: argparse.Namespace) -> int:
    try:
        if arguments.server == "s3":
            s3.main(settings, arguments.data or stack.served_data(settings))
        else:
            # Its SQL parser is slow to import, and no other command needs it.
            from local.redshift import server

            server.main(settings)
    except OSError as error:
        raise LocalError(f"The local {arguments.server} server could not start: {error}") from error
    return 0


def _report(settings: Settings, _: argparse.Namespace) -> int:
    try:
        with psycopg.connect(settings.redshift_dsn, connect_timeout=10) as connection:
            counts = [
                row
                for table in REPORTED_TABLES
                for row in connection.execute(f"SELECT '{table}', COUNT(*) FROM {table}".encode())
            ]
            top_songs = connection.execute(re.sub(rb":(\w+)", rb"%(\1)s", TOP_SONGS.read_bytes()), EVER)
            left_out = connection.execute(LEFT_OUT).fetchall()
            header = [column.name for column in top_songs.description or ()]
            songs = top_songs.fetchmany(10)
    except psycopg.Error as error:
        raise LocalError(
            f"No report from {settings.redshift_dsn}: {str(error).strip()}\n"
            "`python -m local status` tells whether the warehouse is up; `make demo` fills it."
        ) from error
    print(_aligned([("table", "rows"), *counts]))
    print()
    if left_out:
        print(_aligned([("not loaded", "file", "reason"), *left_out]))
        print()
    print(_aligned([header, *songs]))
    return 0


def _aligned(rows: Sequence[Sequence[object]]) -> str:
    """Return rows as lines of columns, those that end in a number aligned to the right."""
    columns = []
    for cells in zip(*rows, strict=True):
        texts = ["" if cell is None else str(cell) for cell in cells]
        width = max(map(len, texts))
        align = str.rjust if isinstance(cells[-1], int | float | Decimal) else str.ljust
        columns.append([align(text, width) for text in texts])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _folder(text: str) -> Path:
    return Path(text).resolve()


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=_folder,
        metavar="DIR",
        help="what S3 holds: a folder with log_data/ and song_data/; what was written to S3 since then"
        " is forgotten (default: the last, with what was written to it, or generated data)",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description="S3 and Redshift on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="start what doesn't run yet, in the background")
    _add_data(up)
    up.add_argument(
        "--fresh", action="store_true", help="stop everything and start with an empty warehouse, and no runs"
    )
    up.add_argument(
        "--airflow",
        action="store_true",
        help="also make Airflow's metadata database, for the airflow command",
    )
    up.set_defaults(run=_up)

    demonstration = commands.add_parser("demo", help="run the whole pipeline once, on an empty warehouse")
    _add_data(demonstration)
    demonstration.set_defaults(run=_demo)

    commands.add_parser("web", help="run Airflow's web UI and scheduler on the stack").set_defaults(run=_web)

    airflow = commands.add_parser(
        "airflow", help="run an airflow command on the stack, which is started first", add_help=False
    )
    airflow.set_defaults(run=_airflow)

    commands.add_parser("down", help="stop everything that was started").set_defaults(run=_down)

    clean = commands.add_parser("clean", help="stop everything, and remove all that the stack stored")
    clean.set_defaults(run=_clean)

    status = commands.add_parser("status", help=f"show what runs; exit code {NOT_ALL_UP} unless all is up")
    status.set_defaults(run=_status)

    env = commands.add_parser("env", help="print the variables that Airflow needs, for a shell to evaluate")
    env.set_defaults(run=_env)

    psql = commands.add_parser("psql", help="run psql on the warehouse, with any arguments", add_help=False)
    psql.set_defaults(run=_psql)

    report = commands.add_parser("report", help="print the warehouse's row counts and the top songs")
    report.set_defaults(run=_report)

    serve = commands.add_parser("serve", help="run one server in the foreground")
    serve.set_defaults(run=_serve)
    serving = serve.add_subparsers(required=True, metavar="SERVER", dest="server")
    _add_data(serving.add_parser("s3", help="the local S3"))
    serving.add_parser("redshift", help="the local Redshift")
    return parser


def main(argv: list[str]) -> int:
    """
    Run one command.

    :param argv: the command and its arguments
    :return: the exit code
    """
    parser = _parser()
    # argparse can't hand options on to another program: that program's arguments are those it doesn't know.
    arguments, unknown = parser.parse_known_args(argv)
    if unknown and arguments.run not in (_psql, _airflow):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.passed_on = unknown
    try:
        return arguments.run(Settings(), arguments)
    except LocalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except SqlError as error:
        print(f"error: {error}\n{error.hint}".rstrip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
