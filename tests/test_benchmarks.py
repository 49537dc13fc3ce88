"""What benchmarks find: the comparison without which ``make bench-peers`` tells no time, and kept tables."""

import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import psycopg
import pytest

from benchmarks import airflow_cost, results, scale
from benchmarks.peers.plain_sql import STAR, create_table
from benchmarks.peers.report import OURS, parts, plot, task_seconds
from benchmarks.peers.star import StarsDiffer, require_same, star_of, summary
from local.redshift import postgres
from local.settings import REDSHIFT_DATABASE
from tests.conftest import REPOSITORY

STARS = {name: {table: (3, 77) for table in STAR} for name in ("one", "another")}
MOMENT = "TIMESTAMP '2018-11-01 21:01:46.796'"
PLAYS = (
    f"('a', {MOMENT}, '8', 'free', NULL, NULL, 1, 0, 'Setanta', 'Elena', 200, NULL, NULL)",
    f"('b', {MOMENT}, '8', 'paid', 'SO1', 'AR1', 1, 1, 'Setanta', 'Elena', 269.5, NULL, NULL)",
)


def test_stars_that_are_the_same_pass():
    require_same(STARS)


@pytest.mark.parametrize("other", [(2, 77), (3, 78)], ids=["rows", "checksum"])
@pytest.mark.parametrize("table", STAR)
def test_a_star_that_differs_in_one_table_fails(table, other):
    with pytest.raises(StarsDiffer, match=rf"^{table} .*one \(3, 77\), another \({other[0]}, {other[1]}\)$"):
        require_same({**STARS, "another": {**STARS["another"], table: other}})


def test_empty_stars_fail():
    with pytest.raises(StarsDiffer, match="dim_songs is empty"):
        require_same({name: {table: (0, 0) for table in STAR} for name in STARS})


def checksum_of(connection, plays):
    """Return what a summary of the fact table says of these rows."""
    with connection.transaction(force_rollback=True):
        connection.execute(create_table("fact_songplays"))
        connection.execute(f"INSERT INTO fact_songplays VALUES {', '.join(plays)}")
        return connection.execute(summary("fact_songplays")).fetchone()


@pytest.fixture
def database(stack):
    with psycopg.connect(postgres.dsn(stack, "postgres"), autocommit=True) as connection:
        yield connection


def test_the_order_of_rows_does_not_count(database):
    assert checksum_of(database, PLAYS) == checksum_of(database, PLAYS[::-1])


@pytest.mark.parametrize(
    ("old", "new"),
    [("'free'", "'paid'"), ("'free', NULL", "NULL, 'free'"), ("200", "200.00001"), (".796", ".797")],
)
def test_each_value_counts(database, old, new):
    changed = (PLAYS[0].replace(old, new), PLAYS[1])
    assert changed != PLAYS
    assert checksum_of(database, changed) != checksum_of(database, PLAYS)


def test_two_differences_do_not_cancel_each_other(database):
    assert checksum_of(database, [*PLAYS, PLAYS[0], PLAYS[0]]) != checksum_of(
        database, [*PLAYS, PLAYS[1], PLAYS[1]]
    )


def test_a_star_has_every_table():
    with pytest.raises(ValueError, match="shorter"):
        star_of([(1, "2")])


def test_the_time_of_a_task_is_read_from_the_log():
    log = (
        "2026-11-27T18:18:43.095Z [info     ] [DAG TEST] starting task_id=load_dim_songs map_index=-1 [x]\n"
        "2026-11-27T18:18:43.096Z [info     ] [DAG TEST] running task <TaskInstance: load_dim_songs> [x]\n"
        "2026-11-27T18:18:45.595Z [info     ] [DAG TEST] end task task_id=load_dim_songs map_index=-1 [x]\n"
    )
    assert task_seconds(log) == {"load_dim_songs": 2.5}


def test_the_bar_of_this_project_shows_what_its_seconds_were_made_of():
    tasks = {"find_new_files": 5.0, "stage_events": 7.0, "check_staging": 1.0, "check_star": 2.0}
    made_of = parts({"seconds": {OURS: [17.0, 20.0]}, "ours": {"tasks": tasks}})
    assert made_of == {"Airflow, listing": 10.0, "loading": 7.0, "checks": 3.0}
    drawn = ElementTree.fromstring(plot({OURS: [20.0], "psql": [5.0]}, made_of))
    _, psql, *ours = (float(bar.attrib["width"]) for bar in drawn.iter("{http://www.w3.org/2000/svg}rect"))
    assert [bar / psql for bar in ours] == pytest.approx([2.0, 1.4, 0.6], rel=0.01)


@pytest.mark.skipif(
    not (REPOSITORY / ".venv-bench" / "ready").exists(), reason="make .venv-bench/ready was not run"
)
@pytest.mark.skipif(
    sys.prefix != str(REPOSITORY / ".venv"), reason="the benchmarks run with the newest Airflow"
)
def test_every_competitor_comes_to_the_same_star():
    command = [sys.executable, "-m", "benchmarks.peers", "500", "30", "1", "--compare"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert "All 5 stars are the same" in done.stdout, done.stdout + done.stderr


def test_the_ledger_is_filled_by_the_hour_with_late_and_corrected_files(created, stack):
    with psycopg.connect(postgres.dsn(stack, REDSHIFT_DATABASE)) as connection:
        connection.execute("DELETE FROM etl_files")
        connection.execute(scale.FILL, {"hours": 400, "files": 10})
        counts = connection.execute(
            "SELECT COUNT(*), COUNT(DISTINCT s3_key), COUNT(DISTINCT loaded_at), COUNT(DISTINCT etag),"
            " SUM(CASE WHEN last_modified < loaded_at - INTERVAL '1 day' THEN 1 ELSE 0 END) FROM etl_files"
        ).fetchone()
        connection.rollback()
    late = [number for number in range(10, 4010) if number % 50 == 0]
    corrected = [number for number in range(1690, 4010) if number % 50 == 1]  # from the second week on
    assert counts == (4000, 4000 - len(corrected), 400, 4000, len(late))


def test_each_file_is_parsed_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(airflow_cost, "ROUNDS", 1)
    (tmp_path / "module_of_ours.py").write_text("")
    for name in ("first.py", "second.py"):
        (tmp_path / name).write_text(f"import module_of_ours\n{airflow_cost.IDLE_TASKS}")
    (tmp_path / "without.py").write_text(airflow_cost.IDLE_TASKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    costs = airflow_cost.measure_parsing([tmp_path / f"{name}.py" for name in ("without", "first", "second")])
    without, first, second = (cost["modules"] for cost in costs.values())
    assert first == second == without + 1


def test_a_broken_file_of_dags_fails_the_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(airflow_cost, "ROUNDS", 1)
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(subprocess.CalledProcessError):
        airflow_cost.measure_parsing([tmp_path / "broken.py"])


def test_tables_are_printed_kept_and_written_to_their_place(tmp_path, monkeypatch, capsys):
    page = tmp_path / "benchmarks.md"
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(results, "PAGE", page)
    place = "<!-- scale: written by make bench -->{}<!-- end of scale -->\nAfter"
    page.write_text(f"Before\n{place.format('old')}")
    rows: list[list[str | float]] = [["1 year", 175200, 17.62], ["3 years", 2, 204.6]]
    results.keep("scale", [results.Table("Listing", ["after", "keys", "s"], rows)])
    printed = capsys.readouterr().out.strip()
    assert printed.splitlines()[2:6] == [
        "| after | keys | s |",
        "| --- | ---: | ---: |",
        "| 1 year | 175,200 | 17.6 |",
        "| 3 years | 2 | 205 |",
    ]
    assert page.read_text() == "Before\n" + place.format(f"\n\n{printed}\n\n")
    kept = json.loads((tmp_path / "results" / "scale.json").read_text())
    assert kept["tables"] == [{"title": "Listing", "columns": ["after", "keys", "s"], "rows": rows}]
    assert {"date", "machine", "versions"} < kept.keys()


def test_a_benchmark_that_has_no_place_in_the_page_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    with pytest.raises(ValueError, match="has no lines <!-- nowhere: written by make bench -->"):
        results.keep("nowhere", [])


def test_every_benchmark_has_a_place_in_the_page():
    run = re.findall(r"-m benchmarks\.(\w+)", (REPOSITORY / "Makefile").read_text())
    places = re.findall(r"<!-- (\w+): written by make bench -->", results.PAGE.read_text())
    assert sorted(name.removesuffix("_cost") for name in run) == sorted(places)


@pytest.mark.parametrize(("busy", "warned"), [(20.0, False), (21.0, True)])
def test_figures_of_a_busy_machine_say_so(busy, warned, monkeypatch):
    monkeypatch.setattr(results, "BUSY_BEFORE", busy)
    told = results.measured(results.circumstances())
    assert told.startswith("**Other programs kept the machine busy") == warned
    assert f", {busy:.0f} % busy before." in told
