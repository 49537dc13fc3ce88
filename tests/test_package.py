"""The bundle that ``make package`` builds for Amazon MWAA."""

import json
import os
import re
import subprocess
import sys
from zipfile import ZipFile

import pytest

from sparkify.tables import find_sql_folder
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "deploy" / "mwaa" / "package.py"


def package(target):
    subprocess.run([sys.executable, PACKAGE, target], check=True)
    return {path.relative_to(target): path.read_bytes() for path in target.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory):
    """Airflow's folder as MWAA lays it out."""
    bundle, home = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("airflow")
    package(bundle)
    (bundle / "dags").rename(home / "dags")
    with ZipFile(bundle / "plugins.zip") as archive:
        archive.extractall(home / "plugins")
    return home


def parse(home, **variables):
    return subprocess.run(
        [sys.executable, REPOSITORY / "tests" / "parse_bundle.py", home],
        cwd=home,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_same_commit_gives_the_same_bytes(tmp_path):
    first = package(tmp_path / "first")
    (tmp_path / "second" / "dags").mkdir(parents=True)
    (tmp_path / "second" / "dags" / "of_an_older_bundle.py").touch()
    assert package(tmp_path / "second") == first


def test_it_holds_what_runs_and_nothing_else(airflow_home):
    held = {path.relative_to(airflow_home).as_posix() for path in airflow_home.rglob("*") if path.is_file()}
    assert {"plugins/.airflowignore", "plugins/sparkify_plugin.py"} <= held
    held -= {"plugins/.airflowignore", "plugins/sparkify_plugin.py"}
    kinds = (
        r"dags/\w+\.py|plugins/sparkify/[\w/]+\.py|plugins/include/sql/[\w/]+\.sql|plugins/include/checks/\w+\.yaml"
        r"|plugins/sparkify/web/static/[\w/.-]+\.(html|css|js|svg|md)"
    )
    assert [name for name in held if not re.fullmatch(kinds, name)] == []


def test_every_dag_parses_and_renders_from_the_bundle_alone_and_twice_the_same(airflow_home):
    runs = [parse(airflow_home, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stdout
    first, second = [json.loads(run.stdout.splitlines()[-1]) for run in runs]
    assert sorted(first) == sorted(path.stem for path in (REPOSITORY / "dags").glob("*.py"))
    assert first == second


def test_without_the_sql_it_says_what_to_deploy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no include/sql in .*plugins nor beside it: deploy"):
        find_sql_folder(tmp_path / "plugins")


def test_the_requirements_are_constrained_to_the_release_that_is_tested():
    constraint, *requirements = (PACKAGE.parent / "requirements.txt").read_text().splitlines()
    assert re.fullmatch(r'--constraint "https://\S+/constraints-3\.0\.6/constraints-3\.12\.txt"', constraint)
    tested = (REPOSITORY / "requirements-3.0.6.txt").read_text()
    assert all(f"\n{requirement} \\\n" in tested for requirement in requirements)
