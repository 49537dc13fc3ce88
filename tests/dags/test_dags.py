import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
import sqlalchemy.engine
from airflow.models import DagBag

from sparkify.batches import BATCHES
from sparkify.checks import count_broken
from sparkify.tables import ANALYSTS_GRANTS
from tests.conftest import REPOSITORY, context

TASK_INSTANCE = SimpleNamespace(
    xcom_pull=lambda task_ids: {
        **{"within": "1 = 1", "indexed": "1 = 1", "rejected": 0, "manifest": None, "staged": 0},
        **{"smallest": "s3://in/log_data/a.json", "url": "s3://work/line.json"},
        **{"staging_events": {}, "staging_songs": {}, "messages": None},
    }
)


@pytest.fixture(scope="module")
def dagbag():
    return DagBag(dag_folder=str(REPOSITORY / "dags"))


def test_all_dags_import_without_errors(dagbag):
    assert dagbag.import_errors == {}
    assert set(dagbag.dags) == {
        *("sparkify_etl", "sparkify_audit"),
        *("sparkify_create_tables", "sparkify_create_roles", "sparkify_check_setup"),
    }


def test_parsing_opens_no_connection_and_no_database(monkeypatch):
    def refuse(self, *address):
        raise AssertionError(f"parsing connected to {address or self}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(sqlalchemy.engine.Engine, "connect", refuse)
    assert DagBag(dag_folder=str(REPOSITORY / "dags")).import_errors == {}


def test_parsing_does_not_import_boto3():
    # In a process that has not run a task, as that of Airflow's DAG processor.
    code = (
        "import sys; from airflow.models import DagBag; before = set(sys.modules);"
        " assert DagBag(dag_folder='dags').import_errors == {};"
        " print({'boto3', 'sparkify.files'} & (sys.modules.keys() - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "{'sparkify.files'}"


def test_the_run_has_exactly_these_edges(dagbag):
    tasks = dagbag.dags["sparkify_etl"].task_dict
    dimensions = {"load_dim_users", "load_dim_songs", "load_dim_artists"}
    assert {task_id: task.downstream_task_ids for task_id, task in tasks.items()} == {
        "find_new_files": {"create_tables"},
        "create_tables": {"stage_events"},
        "stage_events": {"stage_songs"},
        "stage_songs": dimensions,
        **{task_id: {"load_fact_songplays"} for task_id in dimensions},
        "load_fact_songplays": {"load_dim_time", "relink_songplays"},
        "load_dim_time": {"check_star"},
        "relink_songplays": {"check_star"},
        "check_star": {"record_files"},
        "record_files": set(),
    }


def test_the_run_explains_itself(dagbag):
    dag = dagbag.dags["sparkify_etl"]
    assert [task.task_id for task in dag.tasks if not task.doc_md] == []
    assert {group: sorted(dag.task_group_dict[group].children) for group in dag.task_group_dict if group} == {
        "stage_files": ["stage_events", "stage_songs"],
        "load_dimensions": ["load_dim_artists", "load_dim_songs", "load_dim_users"],
        "load_plays": ["load_dim_time", "load_fact_songplays", "relink_songplays"],
    }


def test_whoever_waits_for_a_table_waits_for_the_task_that_loads_it(dagbag):
    tasks = dagbag.dags["sparkify_etl"].tasks
    made: dict[str, list[str]] = {asset.name: [] for task in tasks for asset in task.outlets}
    for task in tasks:
        for asset in task.outlets:
            made[asset.name].append(task.task_id)
    assert made == {
        "sparkify_staging_events": ["stage_events"],
        "sparkify_staging_songs": ["stage_songs"],
        **{f"sparkify_{table}": [f"load_{table}"] for table in ("dim_users", "dim_songs", "dim_artists")},
        "sparkify_fact_songplays": ["load_fact_songplays", "relink_songplays"],
        "sparkify_dim_time": ["load_dim_time"],
        "sparkify_etl_quality_results": ["stage_events", "stage_songs", "check_star"],
        "sparkify_warehouse": ["record_files"],
    }
    read = {asset.name for task in tasks for asset in task.inlets}
    ledgers = {
        f"sparkify_{table}" for table in ("etl_batches", "etl_files", "etl_sessions", "etl_rejected_rows")
    }
    assert read - set(made) == {"sparkify_log_data", "sparkify_song_data"} | ledgers


def test_loads_wait_for_no_audit(dagbag):
    audit = dagbag.dags["sparkify_audit"].task_dict["check_tables"]
    assert "fact_songplays" in count_broken(audit.checks)
    assert BATCHES not in count_broken(audit.checks)  # which each load locks first


def test_the_run_is_hourly_without_catch_up_one_at_a_time_and_retried(dagbag):
    dag = dagbag.dags["sparkify_etl"]
    assert (dag.schedule, dag.catchup, dag.max_active_runs) == ("@hourly", False, 1)
    assert dag.dagrun_timeout
    assert {task.retries for task in dag.tasks} == {3}


def test_bad_data_is_not_retried(dagbag):
    checks = [task for task in dagbag.dags["sparkify_etl"].tasks if task.task_id.startswith("check_")]
    assert [task.retry_on_failure for task in checks] == [False]


@pytest.mark.parametrize(
    "dag_id",
    [
        *("sparkify_etl", "sparkify_audit"),
        *("sparkify_create_tables", "sparkify_create_roles", "sparkify_check_setup"),
    ],
)
def test_every_template_renders(dagbag, dag_id, monkeypatch):
    dag = dagbag.dags[dag_id]
    variables = {
        "sparkify_log_data": "s3://in/log_data/",
        "sparkify_song_data": "s3://in/song_data/",
        "sparkify_work_prefix": "s3://work/",
        "sparkify_iam_role": "arn:aws:iam::123456789012:role/copy",
        "sparkify_s3_region": "us-west-2",
        "sparkify_analysts_role": "analysts",
    }
    conn = SimpleNamespace(
        redshift=SimpleNamespace(login="etl"), redshift_admin=SimpleNamespace(schema="dev")
    )
    dag.template_undefined = jinja2.StrictUndefined
    for task in dag.tasks:
        task.render_template_fields(
            context(
                dag=dag, ti=TASK_INSTANCE, var={"value": variables}, conn=conn, params={"pipeline_user": None}
            )
        )
        for field in (
            "sql",
            "rejected_sql",
            "ddl",
            "migrations",
            "prefix",
            "iam_role",
            "op_kwargs",
            "grants",
            "afterwards",
            "checks",
        ):
            rendered = getattr(task, field, None)
            assert "{{" not in str(rendered)
            assert "{%" not in str(rendered)
            assert ".sql'" not in str(rendered)
            assert not str(rendered).endswith(".sql")


def test_each_step_of_the_setup_check_waits_for_what_it_needs_alone(dagbag):
    tasks = dagbag.dags["sparkify_check_setup"].task_dict
    upstream = {task_id: task.upstream_task_ids for task_id, task in tasks.items()}
    assert upstream == {
        **{task_id: set() for task_id in ("check_settings", "show_versions", "identify_to_aws")},
        **{task_id: set() for task_id in ("list_log_data", "list_song_data", "use_queue", "write_file")},
        "reach_warehouse": set(),
        "log_in": {"reach_warehouse"},
        "copy_log_data": {"list_log_data", "log_in"},
        "copy_song_data": {"list_song_data", "log_in"},
        "copy_file": {"write_file", "log_in"},
        "delete_file": {"copy_file"},
        "check_privileges": {"log_in"},
        "compare_tables": {"log_in"},
        "summarize": set(tasks) - {"summarize"},
    }
    assert {task_id for task_id, task in tasks.items() if task.trigger_rule == "all_done"} == {
        "delete_file",
        "summarize",
    }


def test_recreating_drops_and_creates_every_table(dagbag):
    dag = dagbag.dags["sparkify_create_tables"]
    assert dag.schedule is None
    assert {task_id: task.downstream_task_ids for task_id, task in dag.task_dict.items()} == {
        "confirm": {"drop_tables"},
        "drop_tables": {"forget_listing"},
        "forget_listing": {"create_tables"},
        "create_tables": set(),
    }
    files = [file.stem for file in (REPOSITORY / "include" / "sql" / "ddl").glob("*.sql")]
    dropped = [statement.split()[-1] for statement in dag.task_dict["drop_tables"].sql]
    created = dag.task_dict["create_tables"].ddl
    assert sorted(dropped) == sorted(created) == sorted(files)
    assert created == dagbag.dags["sparkify_etl"].task_dict["create_tables"].ddl


def test_whatever_creates_tables_grants_them_to_analysts():
    dags: Any = DagBag(dag_folder=str(REPOSITORY / "dags")).dags  # nothing of it is rendered
    for dag_id in ("sparkify_etl", "sparkify_create_tables"):
        assert dags[dag_id].task_dict["create_tables"].afterwards == [ANALYSTS_GRANTS]
    assert dags["sparkify_create_roles"].task_dict["create_roles"].table_grants == [ANALYSTS_GRANTS]
