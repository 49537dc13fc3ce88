"""
# Sparkify: check the setup

Tries everything that a run of `sparkify_etl` needs, one thing in each task, and changes nothing. The log of a
failed task ends with what to change; `summarize` tells it all. Trigger it before the first run, and when AWS
refuses something.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import chain, dag

from sparkify import setup_check
from sparkify.settings import COPY, SETTINGS
from sparkify.setup_check import step

S3 = {"region": SETTINGS["sparkify_s3_region"], "aws_conn_id": "aws_default"}
COPY_FROM = {"conn_id": "redshift", **COPY}


@dag(
    schedule=None,
    start_date=datetime(2018, 11, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": "data-eng", "retries": 0, "execution_timeout": timedelta(minutes=10)},
    doc_md=__doc__,
    tags=["sparkify"],
)
def sparkify_check_setup():
    check_settings = PythonOperator(
        task_id="check_settings",
        python_callable=step(setup_check.check_settings),
        op_kwargs={"settings": SETTINGS, "conn_id": "redshift"},
    )
    show_versions = PythonOperator(task_id="show_versions", python_callable=step(setup_check.show_versions))
    identify_to_aws = PythonOperator(
        task_id="identify_to_aws",
        python_callable=step(setup_check.identify_to_aws),
        op_kwargs={"aws_conn_id": "aws_default"},
    )
    list_inputs = [
        PythonOperator(
            task_id=f"list_{name}",
            python_callable=step(setup_check.list_input),
            op_kwargs={"variable": f"sparkify_{name}", "prefix": SETTINGS[f"sparkify_{name}"], **S3},
        )
        for name in ("log_data", "song_data")
    ]
    use_queue = PythonOperator(
        task_id="use_queue",
        python_callable=step(setup_check.use_queue),
        op_kwargs={"queue_url": SETTINGS["sparkify_queue_url"], "aws_conn_id": "aws_default"},
    )
    write_file = PythonOperator(
        task_id="write_file",
        python_callable=step(setup_check.write_file),
        op_kwargs={
            "work_prefix": SETTINGS["sparkify_work_prefix"],
            "dag_id": "{{ dag.dag_id }}",
            "line": "{{ run_id }}",
            **S3,
        },
    )
    reach_warehouse = PythonOperator(
        task_id="reach_warehouse",
        python_callable=step(setup_check.reach_warehouse),
        op_kwargs={"conn_id": "redshift"},
    )
    log_in = PythonOperator(
        task_id="log_in", python_callable=step(setup_check.log_in), op_kwargs={"conn_id": "redshift"}
    )
    copy_inputs = [
        PythonOperator(
            task_id=f"copy_{name}",
            python_callable=step(setup_check.copy_input),
            op_kwargs={"url": f"{{{{ ti.xcom_pull(task_ids='list_{name}')['smallest'] }}}}", **COPY_FROM},
        )
        for name in ("log_data", "song_data")
    ]
    copy_file = PythonOperator(
        task_id="copy_file",
        python_callable=step(setup_check.copy_file),
        op_kwargs={
            "url": "{{ ti.xcom_pull(task_ids='write_file')['url'] }}",
            "line": "{{ run_id }}",
            **COPY_FROM,
        },
    )
    delete_file = PythonOperator(
        task_id="delete_file",
        python_callable=step(setup_check.delete_file),
        op_kwargs={
            "url": "{{ (ti.xcom_pull(task_ids='write_file') or {}).get('url', '') }}",
            "aws_conn_id": "aws_default",
        },
        trigger_rule="all_done",
    )
    compare_tables = PythonOperator(
        task_id="compare_tables",
        python_callable=step(setup_check.compare_tables),
        op_kwargs={"conn_id": "redshift"},
    )
    check_privileges = PythonOperator(
        task_id="check_privileges",
        python_callable=step(setup_check.check_privileges),
        op_kwargs={
            "conn_id": "redshift",
            "schema": SETTINGS["sparkify_schema"],
            "analysts_role": SETTINGS["sparkify_analysts_role"],
        },
    )
    steps = [
        *(check_settings, show_versions, identify_to_aws, *list_inputs, use_queue, write_file),
        *(reach_warehouse, log_in, *copy_inputs, copy_file, delete_file, check_privileges, compare_tables),
    ]
    summarize = PythonOperator(
        task_id="summarize",
        python_callable=setup_check.summarize,
        op_kwargs={"steps": [each.task_id for each in steps]},
        trigger_rule="all_done",
    )

    chain(reach_warehouse, log_in, [*copy_inputs, copy_file, check_privileges, compare_tables])
    chain(list_inputs, copy_inputs)
    chain(write_file, copy_file, delete_file)
    steps >> summarize


sparkify_check_setup()
