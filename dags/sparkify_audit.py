"""
# Sparkify: audit

Every day: checks that all tables exist, and checks all of their rows, where `sparkify_etl` checks those that
it has just loaded; compares the ledger with S3, and the plays of some files with those in the warehouse. It
fails while a file has been quarantined for more than a day. It changes only `etl_quality_results`, which
stores its results.

**If a task fails:** its log says what is wrong, which rows or files, and what to do. If a check fails while
`sparkify_etl` is loading, the task is retried.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.python import PythonOperator, ShortCircuitOperator
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import chain, dag

from sparkify.alerts import ALERTS
from sparkify.audit import (
    CheckTablesOperator,
    compare_ledger,
    compare_plays,
    no_load_is_running,
    require_tables,
)
from sparkify.declarations import checks_of
from sparkify.run_notes import DAG_ID
from sparkify.settings import DEFAULT_ARGS, PREFIXES
from sparkify.state import WAREHOUSE
from sparkify.tables import BOOKKEEPING, STAR

CONNECTIONS = {"conn_id": "redshift", "aws_conn_id": "aws_default"}
# Loads lock etl_batches, and would wait for whoever reads it: sparkify_etl checks it, in its turn.
CHECKED = [table for table in (*STAR, *BOOKKEEPING) if table not in ("etl_batches", "etl_quality_results")]


@dag(
    schedule="30 0 * * *",  # when the run of the full hour is done
    start_date=datetime(2018, 11, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    # Two hours of tries: a load that starts meanwhile makes checks fail, and has ended by then.
    default_args={**DEFAULT_ARGS, "retries": 8, "retry_delay": timedelta(minutes=15)},
    doc_md=__doc__,
    tags=["sparkify"],
    **ALERTS,
)
def sparkify_audit():
    wait_for_load = PythonSensor(
        task_id="wait_for_load",
        python_callable=no_load_is_running,
        op_kwargs={"dag_id": DAG_ID},
        mode="reschedule",
        poke_interval=60,
        timeout=timedelta(hours=3),
        doc_md="Waits until no run of `sparkify_etl` is running: between its tasks, tables do not agree.",
    )
    find_tables = ShortCircuitOperator(
        task_id="find_tables",
        python_callable=require_tables,
        op_kwargs={"prefixes": PREFIXES, "conn_id": "redshift"},
        inlets=[WAREHOUSE],
        doc_md="Checks that no table or column is missing. Skips the rest before the first run.",
    )
    check_tables = CheckTablesOperator(
        task_id="check_tables",
        checks=checks_of(*CHECKED, scope="table"),
        doc_md="Checks all of the tables, as `include/checks` declares it. Loads go on meanwhile.",
    )
    compare_files = PythonOperator(
        task_id="compare_files",
        python_callable=compare_ledger,
        op_kwargs={"prefixes": PREFIXES, **CONNECTIONS},
        inlets=[WAREHOUSE],
        doc_md="Finds loaded files that vanished from S3, and files that were not loaded, or stayed in"
        " quarantine, for more than a day.",
    )
    count_plays = PythonOperator(
        task_id="count_plays",
        python_callable=compare_plays,
        op_kwargs={"prefix": PREFIXES["staging_events"], **CONNECTIONS},
        doc_md="Reads some files, and compares their plays of each day with those of the warehouse.",
    )

    chain(wait_for_load, find_tables, [check_tables, compare_files, count_plays])


sparkify_audit()
