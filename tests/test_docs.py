"""What the documentation points to, and what the files for deployments must agree on."""

import re
from importlib.metadata import version

import pytest
import yaml

from tests.conftest import REPOSITORY

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "infra/*.md", "include/**/*.md")
    for page in REPOSITORY.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_links_to_is_there(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_each_assumption_about_redshift_names_a_page_of_amazons_guide_and_a_file():
    guide = re.compile(r"https://docs\.aws\.amazon\.com/redshift/latest/dg/[\w-]+\.html")
    page = (REPOSITORY / "docs" / "redshift.md").read_text()
    assert [url for url in re.findall(r"https?:[^)\s]*", page) if not guide.fullmatch(url)] == []
    rows = [line for line in page.splitlines() if line.startswith("| ") and line.count("|") == 4]
    assumptions = [row for row in rows if not row.startswith("| assumption |")]
    assert assumptions
    assert [row for row in assumptions if not guide.search(row) or "](../" not in row] == []


@pytest.mark.skipif(not version("apache-airflow").startswith("3.3."), reason="they name the newest Airflow")
def test_images_and_chart_are_of_the_airflow_that_is_locked():
    locked = version("apache-airflow")
    assert f"FROM apache/airflow:{locked} " in (REPOSITORY / "Dockerfile").read_text()
    assert yaml.safe_load((REPOSITORY / "deploy/helm/values.yaml").read_text())["airflowVersion"] == locked
    astro = (REPOSITORY / "deploy/astronomer/Dockerfile").read_text()
    assert f"runtime:{locked.rpartition('.')[0]}-" in astro
