"""What OpenLineage's provider tells of a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook

from local.settings import Settings
from sparkify.tables import STAR
from tests.conftest import REPOSITORY

pytest.importorskip("airflow.providers.openlineage", reason="OpenLineage's provider is not installed")


def test_the_tables_of_a_run_are_linked_from_the_files_to_the_star(
    warehouse: RedshiftSQLHook, metadata: psycopg.Connection, stack: Settings, tmp_path: Path
) -> None:
    events = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    subprocess.run(
        [sys.executable, "-m", "local", "airflow", "dags", "test", "sparkify_etl"],
        cwd=REPOSITORY,
        env=os.environ | {"AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)},
        stdout=subprocess.PIPE,
        check=True,
    )
    warehouse_name = f"redshift://127.0.0.1:{stack.redshift_port} sparkify.public."
    completed = [
        event
        for event in map(json.loads, events.read_text().splitlines())
        if event["eventType"] == "COMPLETE" and ".query." not in event["job"]["name"]
    ]
    edges = {
        f"{source['namespace']} {source['name']} -> {target['name']}".replace(warehouse_name, "")
        for event in completed
        for source in event["inputs"]
        for target in event["outputs"]
    }
    files = ("s3://udacity-dend log_data/", "s3://udacity-dend song_data/")  # which staging checks
    checked = (*files, *STAR, "etl_batches", "etl_sessions", "etl_files", "etl_rejected_rows")
    results = {f"{source} -> sparkify.public.etl_quality_results" for source in checked}
    assert edges == results | {
        "s3://udacity-dend log_data/ -> sparkify.public.staging_events",
        "s3://udacity-dend song_data/ -> sparkify.public.staging_songs",
        "staging_events -> sparkify.public.dim_users",
        "staging_songs -> sparkify.public.dim_songs",
        "staging_songs -> sparkify.public.dim_artists",
        "staging_events -> sparkify.public.fact_songplays",
        "staging_songs -> sparkify.public.fact_songplays",
        "dim_songs -> sparkify.public.fact_songplays",
        "fact_songplays -> sparkify.public.dim_time",
    }
    assertions = {
        (source["name"].rpartition(".")[2], assertion["assertion"], assertion["name"]): assertion["success"]
        for event in completed
        for source in (*event["inputs"], *event["outputs"])
        for assertion in source["facets"].get("dataQualityAssertions", {}).get("assertions", [])
    }
    unique = ("fact_songplays", "unique", "fact_songplays: one row per songplay_id")
    assert assertions[unique] is True
    assert ("staging_events", "accepted_values", "staging_events: every page is known") in assertions
