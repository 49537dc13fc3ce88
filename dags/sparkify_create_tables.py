"""
# Sparkify: drop and create the tables

Drops every table of the warehouse, with all its rows, and creates it again, empty. The next run of
`sparkify_etl` loads everything. Trigger it with **Drop all tables** ticked.
"""

from datetime import datetime

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import Param, chain, dag, get_current_context, task

from sparkify.compat import AirflowFailException
from sparkify.operators import CreateTablesOperator
from sparkify.sql import identifier
from sparkify.state import WAREHOUSE, forget
from sparkify.tables import ANALYSTS_GRANTS, DDL, MIGRATIONS, SQL_FOLDER


@dag(
    schedule=None,
    start_date=datetime(2018, 11, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": "data-eng"},
    params={
        "drop_all_tables": Param(
            False,
            type="boolean",
            title="Drop all tables",
            description="Their rows are lost, until the next run of sparkify_etl loads them again from S3.",
        )
    },
    user_defined_macros={"identifier": identifier},
    template_searchpath=str(SQL_FOLDER),
    doc_md=__doc__,
    tags=["sparkify"],
)
def sparkify_create_tables():
    @task
    def confirm():
        if not get_current_context()["params"]["drop_all_tables"]:
            raise AirflowFailException(
                "Nothing was dropped: trigger the DAG again with 'Drop all tables' ticked"
            )

    @task(inlets=[WAREHOUSE], doc_md="Lets the next run of sparkify_etl look at everything on S3.")
    def forget_listing():
        # After the drop: before it, a run that is about to record its files could remember its listing again.
        forget(get_current_context())

    drop_tables = SQLExecuteQueryOperator(
        task_id="drop_tables", conn_id="redshift", sql=[f"DROP TABLE IF EXISTS {table}" for table in DDL]
    )
    create_tables = CreateTablesOperator(
        task_id="create_tables", ddl=DDL, migrations=MIGRATIONS, afterwards=[ANALYSTS_GRANTS]
    )

    chain(confirm(), drop_tables, forget_listing(), create_tables)


sparkify_create_tables()
