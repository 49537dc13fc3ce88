"""The page's server, within Airflow's own."""

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import psycopg
import pytest

from sparkify.compat import HAS_PAGES

if not HAS_PAGES:
    pytest.skip("Airflow 3.0 has no place for a page", allow_module_level=True)

from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from fastapi.testclient import TestClient

from local.settings import REGION
from sparkify.web.app import STATIC
from sparkify.web.questions import QUESTIONS, answer

# The key is Airflow's own, made at its first start
pytestmark = pytest.mark.filterwarnings("ignore:The HMAC key is")

Get = Callable[..., Any]


@pytest.fixture(scope="module")
def client(metadata: psycopg.Connection) -> TestClient:
    return TestClient(create_app(), base_url="http://localhost:8080", follow_redirects=False)


@pytest.fixture
def get(client: TestClient) -> Iterator[Get]:
    """Return what asks as a user who is logged in, and may look; answers of other tests are forgotten."""
    answer.cache.clear()
    user = SimpleAuthManagerUser(username="ann", role="viewer")
    client.cookies.set("_token", get_auth_manager().generate_jwt(user))
    yield client.get
    client.cookies.clear()


def test_who_is_not_logged_in_is_led_to_the_login(client: TestClient) -> None:
    response = client.get("/sparkify/")
    assert response.status_code == 307
    assert "/auth/login" in response.headers["location"]
    assert "sparkify" in response.headers["location"]


@pytest.mark.parametrize("path", ["runs", *QUESTIONS, *(f"{name}.csv" for name in QUESTIONS)])
@pytest.mark.parametrize("token", [None, "wrong"])
def test_nobody_asks_without_a_login(client: TestClient, path: str, token: str | None) -> None:
    if token:
        client.cookies.set("_token", token)
    assert client.get(f"/sparkify/api/{path}").status_code in (401, 403)
    client.cookies.clear()


def test_who_may_not_see_the_dag_may_not_see_the_page(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(get_auth_manager()), "is_authorized_dag", lambda *_, **__: False)
    for path in ("", "api/runs", "api/totals", "api/totals.csv"):
        response = get(f"/sparkify/{path}")
        assert response.status_code == 403
        assert "You may not see the DAG sparkify_etl" in response.text


def test_the_page_loads_nothing_from_other_hosts(get: Get) -> None:
    page = get("/sparkify/")
    assert page.status_code == 200
    assert page.headers["content-security-policy"] == "default-src 'self'; frame-ancestors 'self'"
    assert "//" not in page.text.replace("<!doctype", "")
    assert get("/sparkify/static/page.js").status_code == 200


def test_the_library_of_charts_is_what_was_published() -> None:
    (library,) = (STATIC / "vendor").glob("*.js")
    assert sha256(library.read_bytes()).hexdigest() in (STATIC / "vendor" / "README.md").read_text()


def test_an_answer_comes_with_its_question(get: Get, warehouse: RedshiftSQLHook) -> None:
    found = get(
        "/sparkify/api/totals", params={"range_start": "2018-11-01", "range_end": "2018-12-01"}
    ).json()
    assert found["columns"][0] == "plays"
    assert found["rows"] == [[0, 0, 0, 0, None, 0]]
    assert found["sql"].startswith("SELECT\n")
    assert found["description"].startswith("one row ")


def test_rows_are_downloaded_as_csv(get: Get, warehouse: RedshiftSQLHook) -> None:
    warehouse.run(
        "INSERT INTO fact_songplays (songplay_id, start_time, user_id, level, session_id, item_in_session,"
        """ song_title, artist_name) VALUES ('a', '2018-11-01', '1', 'paid', 1, 0, 'Café, "Olé"', 'X')"""
    )
    response = get("/sparkify/api/top_songs.csv")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="top_songs.csv"'
    assert response.text.splitlines() == ["song_title,artist_name,plays,listeners", '"Café, ""Olé""",X,1,1']


def test_a_time_of_another_zone_is_taken_for_the_moment_it_names(
    get: Get, warehouse: RedshiftSQLHook
) -> None:
    warehouse.run(
        "INSERT INTO fact_songplays (songplay_id, start_time, user_id, session_id, item_in_session)"
        " VALUES ('a', '2018-11-01 00:30:00', '1', 1, 0)"
    )
    for start, plays in (("2018-11-01T01:30:00+01:00", 1), ("2018-11-01T01:31:00+01:00", 0)):
        assert get("/sparkify/api/totals", params={"range_start": start}).json()["rows"][0][0] == plays


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("nothing", 404, "There is no question nothing. There are: active_users_by_day, "),
        ("totals?range_start=yesterday", 422, "range_start"),
        ("rejected_rows?page=-1", 422, "page"),
    ],
)
def test_a_request_that_makes_no_sense_says_why(get: Get, path: str, status: int, says: str) -> None:
    response = get(f"/sparkify/api/{path}")
    assert response.status_code == status
    assert says in response.text


def test_a_warehouse_that_cannot_be_reached_is_told_with_what_to_do(
    get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = (
        '{"conn_type": "redshift", "host": "127.0.0.1", "port": 1, "login": "x", "password": "secretive"}'
    )
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT", nowhere)
    response = get("/sparkify/api/totals")
    assert response.status_code == 503
    assert "Connection refused" in response.text
    assert "secretive" not in response.text


def test_a_missing_connection_is_named(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_REDSHIFT")
    response = get("/sparkify/api/totals")
    assert response.status_code == 503
    assert "redshift" in response.text


def test_missing_tables_say_which_dag_makes_them(get: Get, warehouse: RedshiftSQLHook) -> None:
    warehouse.run("ALTER TABLE fact_songplays RENAME TO hidden")
    try:
        response = get("/sparkify/api/totals")
    finally:
        warehouse.run("ALTER TABLE hidden RENAME TO fact_songplays")
    assert response.status_code == 503
    assert 'relation "fact_songplays" does not exist' in response.text
    assert "sparkify_etl" in response.text


def test_a_login_by_iam_that_aws_refuses_is_told_with_what_to_do(
    get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_iam = {"iam": True, "cluster_identifier": "unknown", "region": REGION}
    connection = {
        "conn_type": "redshift",
        "host": "localhost",
        "login": "x",
        "schema": "dev",
        "extra": by_iam,
    }
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT", json.dumps(connection))
    response = get("/sparkify/api/totals")
    assert response.status_code == 503
    assert response.text.startswith("No login by IAM: ")
    assert "unknown" in response.text


def test_before_the_first_run_there_is_none(get: Get) -> None:
    assert get("/sparkify/api/runs").json() == []


def test_an_analyst_is_told_what_is_not_for_analysts(
    get: Get, warehouse: RedshiftSQLHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.run(
        [
            "CREATE USER ann PASSWORD 'Analyst1'",
            "GRANT SELECT ON fact_songplays TO ann",
            "GRANT SELECT (dataset, s3_key, status) ON etl_files TO ann",
        ]
    )
    reader = json.loads(os.environ["AIRFLOW_CONN_REDSHIFT"]) | {"login": "ann", "password": "Analyst1"}
    monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT_READONLY", json.dumps(reader))
    try:
        plays, rejected = get("/sparkify/api/totals"), get("/sparkify/api/rejected_rows")
        quarantined = get("/sparkify/api/quarantined_files")
    finally:
        revoked = [f"REVOKE SELECT ON {table} FROM ann" for table in ("fact_songplays", "etl_files")]
        warehouse.run([*revoked, "DROP USER ann"])
    assert plays.status_code == 200
    assert rejected.status_code == 403
    assert "permission denied for relation etl_rejected_rows. The page asks as the user of" in rejected.text
    assert "GRANT" not in rejected.text
    assert quarantined.status_code == 403
    assert "permission denied for relation etl_files. The page asks as the user of" in quarantined.text
