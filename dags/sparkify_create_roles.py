"""
# Sparkify: create the database user and role

Once, as an administrator of the warehouse: creates the user that the pipeline logs in as, with a schema of
its own, and the role of those who read the tables. Needs the connection `redshift_admin`, a superuser's,
which no other DAG uses. It may be triggered again at any time: who is there stays, and all is granted again.
"""

from datetime import datetime

from airflow.sdk import Param, dag

from sparkify.operators import CreateRolesOperator
from sparkify.sql import identifier, quoted
from sparkify.tables import ANALYSTS_GRANTS, SQL_FOLDER

USER = "params.pipeline_user or conn.redshift.login or ''"
SCHEMA = "var.value.get('sparkify_schema', 'sparkify')"
PIPELINE_GRANTS = (
    f"{{% set user = quoted({USER}) %}}"
    f"{{% set schema = identifier({SCHEMA}) %}}"
    "{% set database = quoted(conn.redshift_admin.schema) %}"
    "{% include 'grants/pipeline.sql' %}"
)


@dag(
    schedule=None,
    start_date=datetime(2018, 11, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": "data-eng"},
    params={
        "pipeline_user": Param(
            None,
            type=["null", "string"],
            title="Database user of the pipeline",
            description="If not the login of the connection redshift, as IAMR:<role> on Redshift Serverless.",
        )
    },
    user_defined_macros={"identifier": identifier, "quoted": quoted},
    template_searchpath=str(SQL_FOLDER),
    doc_md=__doc__,
    tags=["sparkify"],
)
def sparkify_create_roles():
    CreateRolesOperator(
        task_id="create_roles",
        user=f"{{{{ {USER} }}}}",
        schema=f"{{{{ {SCHEMA} }}}}",
        analysts_role="{{ var.value.get('sparkify_analysts_role', '') }}",
        iam_role="{{ var.value.sparkify_iam_role }}",
        grants=[PIPELINE_GRANTS],
        table_grants=[ANALYSTS_GRANTS],
    )


sparkify_create_roles()
