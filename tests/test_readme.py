"""The README's commands, as it shows them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, rows

README = (REPOSITORY / "README.md").read_text()
PYTHON, AIRFLOW = ".venv/bin/python", ".venv/bin/airflow"
COMMANDS = re.findall(r"^    (.+?)(?:  +#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:`|^    )make ([a-z-]+)", README, re.MULTILINE)))
)
def test_every_target_exists(target):
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)


def shell(command):
    """Run a command as a user who has set no variable of Airflow does, by the Python that runs the tests."""
    airflow = str(Path(sys.executable).with_name("airflow"))
    return subprocess.run(
        command.replace(PYTHON, sys.executable).replace(AIRFLOW, airflow),
        shell=True,
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith(PYTHON)])
def test_commands_of_the_local_stack_do_what_they_say(command, warehouse, metadata):
    done = shell(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(warehouse, "SELECT COUNT(*) FROM fact_songplays")[0] > (6000,)


def test_after_make_up_a_shell_that_reads_the_environment_runs_airflow(metadata):
    up = shell(f"{PYTHON} -m local up --airflow")  # what `make up` runs
    assert up.returncode == 0, up.stdout + up.stderr
    # "dags list" shows what Airflow's database has, which is nothing yet if no other test has run a DAG.
    done = shell(
        f'set -a; eval "$({PYTHON} -m local env)"; {AIRFLOW} dags reserialize && {AIRFLOW} dags list'
    )
    assert "sparkify_etl" in done.stdout, done.stdout + done.stderr
