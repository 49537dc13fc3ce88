"""Airflow's web UI and the page in it, as a person uses them, in a real browser."""

import csv
import re
import shutil
from collections.abc import Iterator
from datetime import date
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from sparkify.compat import HAS_PAGES

if not HAS_PAGES:
    pytest.skip("Airflow 3.0 has no place for a page", allow_module_level=True)

from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FrameLocator, Page, Route, expect, sync_playwright

from sparkify.tables import SQL_FOLDER
from tests.conftest import bound, rows
from tests.web import Web, running_web

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")

# Chromium looks for Google's hosts at every start, and root may not have its sandbox.
FLAGS = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync")
WAIT = 120_000  # milliseconds; a busy machine is slow
NOVEMBER = {"range_start": "'2018-11-01'", "range_end": "'2018-12-01'"}


@pytest.fixture(scope="module")
def web(metadata: psycopg.Connection, created: RedshiftSQLHook) -> Iterator[Web]:
    """Airflow, as before its first run."""
    with running_web(created) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture(scope="module")
def ui(web: Web, browser: Browser) -> Iterator[Page]:
    """Airflow's web UI, after a login; nothing may be asked of other hosts."""
    page = browser.new_context(base_url=web.url, viewport={"width": 1280, "height": 1000}).new_page()
    page.set_default_timeout(WAIT)
    expect.set_options(timeout=WAIT)
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url))
    page.goto("/")
    page.locator("input[name=username]").fill(web.user)
    page.locator("input[name=password]").fill(web.password)
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Sparkify", exact=True)).to_be_visible()
    yield page
    assert {url for url in elsewhere if not url.startswith((web.url, "blob:", "data:"))} == set()


@pytest.fixture(scope="module")
def loaded(ui: Page) -> str:
    """Trigger a run through the form, wait until it is green, and return its note."""
    ui.goto("/dags/sparkify_etl")
    ui.get_by_role("button", name="Trigger").first.click()
    form = ui.get_by_role("dialog")
    form.locator("input[name=element_reload_prefix]").fill("s3://udacity-dend/log_data/")
    form.get_by_role("button", name="Trigger", exact=True).click()
    ui.wait_for_url("**/runs/manual__*")
    expect(ui.get_by_test_id("state-badge").first).to_have_text("Success")
    ui.reload()  # the run's note is shown as it was when the run was opened
    return ui.get_by_text("Loaded staging_events: ").first.inner_text()


@pytest.fixture
def page(ui: Page, loaded: str) -> FrameLocator:
    """The page, opened from Airflow's navigation."""
    ui.goto("/")
    ui.get_by_role("link", name="Sparkify", exact=True).click()
    frame = ui.frame_locator("iframe[title=Sparkify]")
    expect(frame.locator("#card-plays_by_day svg")).to_be_visible()
    return frame


def texts(page: FrameLocator | Page, card: str) -> list[list[str]]:
    """Return the cells of a card's table, by row."""
    table = page.locator(f"#card-{card} tbody tr")
    expect(table.first).to_be_visible()
    return [row.locator("td").all_inner_texts() for row in table.all()]


def tiles(page: FrameLocator) -> dict[str, str]:
    expect(page.locator(".tile").first).to_be_visible()
    return {
        tile.locator("dt").inner_text(): tile.locator("dd").inner_text().split("\n")[0]
        for tile in page.locator(".tile").all()
    }


def asked(created: RedshiftSQLHook, question: str, values: dict[str, str]) -> list[tuple[Any, ...]]:
    return rows(created, bound(SQL_FOLDER / "analytics" / f"{question}.sql", values))


def test_who_is_not_logged_in_sees_neither_page_nor_answers(web: Web, browser: Browser) -> None:
    stranger = browser.new_context(base_url=web.url).new_page()
    stranger.goto("/sparkify/")
    expect(stranger.locator("input[name=password]")).to_be_visible()
    for path in ("/sparkify/api/totals", "/sparkify/api/runs", "/sparkify/api/top_songs.csv"):
        assert stranger.request.get(path).status == 401


def test_a_run_tells_what_it_loaded(loaded: str) -> None:
    assert re.match(r"Loaded staging_events: 30 files, .* staged, 0 rejected, 0 quarantined, ", loaded)


def test_the_form_leads_to_quarantined_files_and_refuses_what_no_run_could_take(
    ui: Page, loaded: str
) -> None:
    ui.goto("/dags/sparkify_etl")
    ui.get_by_role("button", name="Trigger").first.click()
    form = ui.get_by_role("dialog")
    link = form.get_by_role("link", name="quarantined files")
    expect(link).to_have_attribute("href", re.compile("/plugin/sparkify/sparkify/#pipeline$"))
    form.locator("input[name=element_reload_prefix]").fill("log_data/")
    form.get_by_role("button", name="Trigger", exact=True).click()
    expect(form.get_by_text("reload_prefix: 'log_data/' does not match")).to_be_visible()


def test_the_page_shows_what_the_warehouse_answers(page: FrameLocator, created: RedshiftSQLHook) -> None:
    page.get_by_role("button", name="All").click()
    expect(page.locator("button[aria-pressed=true]")).to_have_text(["All"])
    ((plays, listeners, paying, _, hours, _),) = asked(created, "totals", NOVEMBER)
    expect(page.locator(".tile dd").first).to_have_text(f"{plays:,}")
    assert tiles(page) | {"Plays of known songs": ""} == {
        "Plays": f"{plays:,}",
        "Listeners": f"{listeners:,}",
        "Of them paying": f"{paying:,}",
        "Hours of music": f"{hours:,}",
        "Plays of known songs": "",
    }
    songs = [[title, artist, str(count)] for title, artist, count, _ in asked(created, "top_songs", NOVEMBER)]
    assert texts(page, "top_songs") == [[text.strip() for text in song] for song in songs]


def test_a_shorter_range_shows_less(page: FrameLocator, created: RedshiftSQLHook) -> None:
    page.get_by_label("From", exact=True).fill("2018-11-10")
    page.get_by_label("To", exact=True).fill("2018-11-12")
    values = {"range_start": "'2018-11-10'", "range_end": "'2018-11-13'"}
    ((plays, *_),) = asked(created, "totals", values)
    expect(page.locator(".tile dd").first).to_contain_text(f"{plays:,}")
    places = [
        [place, str(users), str(count)] for place, count, users, _ in asked(created, "top_locations", values)
    ]
    assert texts(page, "top_locations") == places


def test_a_chart_comes_with_its_sql_and_as_csv(
    ui: Page, page: FrameLocator, created: RedshiftSQLHook
) -> None:
    page.get_by_role("button", name="All").click()
    card = page.locator("#card-plays_by_day")
    card.get_by_text("SQL").click()
    expect(card.locator("pre")).to_contain_text("start_time >= :range_start AND start_time < :range_end")
    with ui.expect_download() as download:
        card.get_by_role("link", name="CSV").click()
    with download.value.path().open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["listening_day", "paid_plays", "free_plays"]
    expected = asked(created, "plays_by_day", NOVEMBER)
    assert [(date.fromisoformat(day), int(paid), int(free)) for day, paid, free in found] == expected


def test_the_pipelines_view_shows_runs_files_checks_and_rejected_rows(
    page: FrameLocator, created: RedshiftSQLHook
) -> None:
    created.run(
        [
            "INSERT INTO etl_rejected_rows"
            " (dataset, s3_key, line_number, column_name, reason, raw_line, run_id, rejected_at)"
            " VALUES ('staging_events', 's3://b/x.json', 7, 'ts', 'Overflow', '<b>{}</b>', 'r', SYSDATE),"
            " ('staging_events', 'log_data/bad.json', 3, 'ts', 'Too long', '{}', 'bad run', SYSDATE)",
            "INSERT INTO etl_files (dataset, s3_key, etag, size_bytes, last_modified, run_id, loaded_at,"
            " status, reason, rows_read, rows_rejected) VALUES"
            " ('staging_events', 'log_data/bad.json', 'a', 1000, '2018-11-01', 'bad run',"
            " '2018-11-02 10:20:00', 'quarantined', '<b>150</b> of its 200 rows were rejected', 200, 150),"
            " ('staging_events', 'log_data/a.csv', 'b', 10, '2018-11-01', 'r', '2018-11-02', 'ignored',"
            " 'its suffix is .csv', NULL, NULL)",
        ]
    )
    page.get_by_role("link", name="Pipeline").click()
    ((since, file, reason, read, rejected, dataset),) = texts(page, "quarantined_files")
    assert (since, file, dataset) == ("2018-11-02 10:20", "log_data/bad.json", "staging_events")
    assert (reason, read, rejected) == ("<b>150</b> of its 200 rows were rejected", "200", "150")
    expect(page.locator(".view > :first-child")).to_have_id("card-quarantined_files")
    expect(page.locator("#card-quarantined_files p").first).to_contain_text(
        "trigger the DAG sparkify_etl with the file's address, such as s3://…/log_data/bad.json, as"
        " reload_prefix"
    )
    ignored = texts(page, "ignored_files")
    assert ignored == [["staging_events", "its suffix is .csv", "1", "log_data/a.csv", "2018-11-01 00:00"]]
    # If an hour has begun meanwhile, its scheduled run comes first.
    triggered = next(run for run in texts(page, "runs") if run[1] == "manual")
    assert triggered[2] == "success"
    assert triggered[4] == "30"
    files = [row[:4] for row in texts(page, "files_by_dataset")]
    assert files == [["staging_events", "30", "1", "1"], ["staging_songs", "303", "0", "0"]]
    page.get_by_text(re.compile("checks passed in the last runs")).click()
    checks = {name: found for name, _, found in texts(page, "check_results")}
    assert checks["fact_songplays: one row per songplay_id"] == "0"
    page.get_by_role("searchbox", name="Reason").fill("overflow")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#card-rejected_rows tbody tr")).to_have_count(1)
    ((_, file, line, column, reason, _),) = texts(page, "rejected_rows")
    assert (file, line, column, reason) == ("s3://b/x.json", "7", "ts", "Overflow")
    page.locator("#card-rejected_rows tbody summary").click()
    expect(page.locator("#card-rejected_rows tbody pre")).to_have_text("<b>{}</b>")  # text, no HTML
    page.locator("#card-quarantined_files").get_by_role("link", name="150").click()
    expect(page.get_by_role("searchbox", name="File")).to_have_value("log_data/bad.json")
    expect(page.locator("#card-rejected_rows tbody tr")).to_have_count(1)
    assert [row[1:5] for row in texts(page, "rejected_rows")] == [
        ["log_data/bad.json", "3", "ts", "Too long"]
    ]


def test_a_check_tells_what_its_last_run_found_and_whether_it_is_tolerated(ui: Page, loaded: str) -> None:
    columns = ["table_name", "check_name", "severity", "run_id", "failed_rows", "checked_at"]
    results = [
        ["dim_users", "dim_users: of both", "error", "hour", 0, "2018-11-30T02:00:00"],
        ["dim_users", "dim_users: of both", "error", "audit", 2, "2018-11-30T01:00:00"],
        ["dim_users", "dim_users: of the audit", "error", "audit", 3, "2018-11-30T01:00:00"],
        ["dim_users", "dim_users: tolerated", "pass", "audit", 4, "2018-11-30T01:00:00"],
    ]

    def answer(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "columns": columns, "rows": results})

    ui.route("**/sparkify/api/check_results*", answer)
    ui.goto("/sparkify/#pipeline")
    card = ui.locator("#card-check_results")
    card.get_by_text("1 checks passed").click()
    assert [(name, now) for name, _, now in texts(ui, "check_results")] == [
        ("dim_users: of the audit", "3"),
        ("dim_users: of both", "0"),
        ("dim_users: tolerated", "4"),
    ]
    expect(card.get_by_role("row", name="dim_users: tolerated").locator(".passed")).to_have_attribute(
        "aria-label", re.compile("^4 rows are tolerated, ")
    )
    ui.unroute_all()


def test_a_staging_task_leads_to_its_manifest_and_to_the_rows_that_it_rejected(
    ui: Page, loaded: str, created: RedshiftSQLHook
) -> None:
    ((run_id,),) = rows(created, "SELECT run_id FROM etl_batches WHERE dataset = 'staging_events'")
    created.run(
        [
            "DELETE FROM etl_rejected_rows",
            "INSERT INTO etl_rejected_rows"
            " (dataset, s3_key, line_number, column_name, reason, raw_line, run_id, rejected_at)"
            f" VALUES ('staging_events', 's3://b/x.json', 7, 'ts', 'Of this run', '', '{run_id}', SYSDATE),"
            " ('staging_events', 's3://b/x.json', 7, 'ts', 'Of another', '', 'another', SYSDATE)",
        ]
    )
    ui.goto(f"/dags/sparkify_etl/runs/{quote(run_id)}/tasks/stage_events/details")
    manifest, rejected = [
        str(ui.get_by_role("link", name=name).get_attribute("href")) for name in ("Manifest", "Rejected rows")
    ]
    assert len(ui.request.get(manifest).json()["entries"]) == 30
    ui.goto(rejected)
    frame = ui.frame_locator("iframe[title=Sparkify]")
    assert [row[4] for row in texts(frame, "rejected_rows")] == ["Of this run"]
    expect(frame.get_by_role("searchbox", name="Run")).to_have_value(run_id)
    expect(frame.get_by_role("combobox", name="Dataset")).to_have_value("staging_events")


@pytest.mark.parametrize("view", ["Listening", "Pipeline"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_anybody_can_read_it_in_either_theme_and_at_either_width(
    ui: Page, page: FrameLocator, theme: str, width: int, view: str
) -> None:
    ui.evaluate(f"document.documentElement.className = '{theme}'")
    ui.set_viewport_size({"width": width, "height": 1000})
    page.get_by_role("link", name=view).click()
    expect(page.locator("table").first).to_be_visible()
    expect(page.locator("[aria-busy]")).to_have_count(0)
    frame = ui.locator("iframe[title=Sparkify]").element_handle().content_frame()
    found = Axe().run(frame).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    body = page.locator("body")
    assert body.evaluate("body => document.documentElement.scrollWidth <= innerWidth")
    assert body.evaluate("() => document.documentElement.dataset.theme") == theme
    ui.set_viewport_size({"width": 1280, "height": 1000})


def test_without_a_quarantined_file_there_is_no_such_list(ui: Page, loaded: str) -> None:
    ui.route(
        "**/sparkify/api/quarantined_files*",
        lambda route: route.fulfill(
            json={"columns": [], "rows": [], "sql": "", "as_of": "2018-11-30T00:00:00"}
        ),
    )
    ui.goto("/")  # else only the part after # may change, and nothing is asked again
    ui.goto("/sparkify/#pipeline")
    expect(ui.locator("#card-rejected_rows")).to_be_visible()
    expect(ui.locator("[aria-busy]")).to_have_count(0)
    expect(ui.locator("#card-quarantined_files")).to_be_hidden()
    ui.unroute_all()


def test_a_warehouse_without_plays_says_what_to_do(ui: Page, loaded: str) -> None:
    nothing = {"columns": ["plays", "oldest_play", "newest_play"], "rows": [[0, None, None]]}
    ui.route("**/sparkify/api/span_of_plays", lambda route: route.fulfill(json=nothing))
    ui.goto("/sparkify/")
    expect(ui.get_by_text("The warehouse is empty. Trigger the DAG sparkify_etl")).to_be_visible()
    ui.unroute_all()


def test_a_warehouse_that_does_not_answer_says_so_in_each_card(ui: Page, loaded: str) -> None:
    refused = "Connection refused. Is it up?"
    ui.route("**/sparkify/api/*", lambda route: route.fulfill(status=503, body=refused))
    ui.goto("/sparkify/#pipeline")
    expect(ui.get_by_role("alert")).to_have_text([refused] * 7)
    ui.unroute_all()
