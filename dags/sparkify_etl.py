"""
# Sparkify: S3 to Redshift

Every hour: stages the JSON files that are new on S3, builds a star schema around `fact_songplays`, checks
it, and records the files. An hour without new files skips all of that.

**If a task fails:** read its log, which says what to do, and clear the task. Every task may be run again at
any time. Rows that could not be loaded are in `etl_rejected_rows`, the checks' results in
`etl_quality_results`.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.sdk import TaskGroup, chain, dag

from sparkify.alerts import ALERTS
from sparkify.batches import MACROS
from sparkify.declarations import checks_of
from sparkify.lineage import table_assets
from sparkify.new_files import look_for_new_files
from sparkify.operators import (
    CreateTablesOperator,
    DataQualityOperator,
    LoadDimensionOperator,
    LoadFactOperator,
    RecordFilesOperator,
    StageToRedshiftOperator,
)
from sparkify.params import PARAMS
from sparkify.ranges import Index
from sparkify.settings import COPY, DEFAULT_ARGS, LOOK, SOURCES, source_of
from sparkify.state import WAREHOUSE
from sparkify.tables import ANALYSTS_GRANTS, DDL, MIGRATIONS, SQL_FOLDER, STAGING, STAR

DIMENSIONS = (
    ("dim_users", "user_id", "staging_events"),
    ("dim_songs", "song_id", "staging_songs"),
    ("dim_artists", "artist_id", "staging_songs"),
)
CHECKED_BESIDES = ("etl_batches", "etl_sessions", "etl_files", "etl_rejected_rows")


@dag(
    schedule="@hourly",
    start_date=datetime(2018, 11, 1),
    catchup=False,
    max_active_runs=1,
    # Airflow takes a run whose "airflow dags test" was killed for running, and would hold back all others.
    dagrun_timeout=timedelta(hours=6),
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    user_defined_macros=MACROS,
    template_searchpath=str(SQL_FOLDER),
    doc_md=__doc__,
    tags=["sparkify"],
    **ALERTS,
)
def sparkify_etl():
    find_new_files = ShortCircuitOperator(
        task_id="find_new_files",
        python_callable=look_for_new_files,
        op_kwargs={**LOOK, "conn_id": "redshift", "aws_conn_id": "aws_default"},
        inlets=[WAREHOUSE, *SOURCES.values()],
        doc_md="Lists both prefixes, once for all tasks, or receives S3's notifications, if"
        " `sparkify_queue_url` is set. If there is nothing new since the last complete run, all else is"
        " skipped, and the warehouse is not even connected to.",
    )
    create_tables = CreateTablesOperator(
        task_id="create_tables", ddl=DDL, migrations=MIGRATIONS, afterwards=[ANALYSTS_GRANTS]
    )
    with TaskGroup(
        "stage_files", prefix_group_id=False, tooltip="New files into the staging tables, checked"
    ):
        stage_events = StageToRedshiftOperator(
            task_id="stage_events",
            copy_options=["TIMEFORMAT 'epochmillisecs'"],
            **source_of("staging_events"),
        )
        # One after the other: of two runs at once, the one that stages events last then has both tables.
        stage_songs = StageToRedshiftOperator(
            task_id="stage_songs", reads=["staging_events"], **source_of("staging_songs")
        )
    with TaskGroup("load_dimensions", prefix_group_id=False, tooltip="Users, songs and artists"):
        load_dimensions = [
            LoadDimensionOperator(task_id=f"load_{table}", table=table, key=[key], reads=[staging])
            for table, key, staging in DIMENSIONS
        ]
    with TaskGroup("load_plays", prefix_group_id=False, tooltip="Plays, their times and their songs"):
        load_fact_songplays = LoadFactOperator(
            task_id="load_fact_songplays",
            table="fact_songplays",
            key=["songplay_id"],
            time_column="start_time",
            index=Index("etl_sessions", "session_id"),
            rejected_sql="transform/etl_rejected_rows.sql",
            manifest="{{ ti.xcom_pull(task_ids='stage_events')['manifest'] or '' }}",
            replace_from="{{ params.replace_from or '' }}",
            replace_to="{{ params.replace_to or '' }}",
            dependents={"dim_time": "start_time"},
            reads=["staging_events"],
            inlets=table_assets("staging_events", "dim_songs"),
        )
        load_dim_time = LoadDimensionOperator(
            task_id="load_dim_time",
            table="dim_time",
            key=["start_time"],
            within="start_time",
            reads=["staging_events"],
            inlets=table_assets("fact_songplays"),
        )
        relink_songplays = LoadFactOperator(
            task_id="relink_songplays",
            table="fact_songplays",
            key=["songplay_id"],
            sql="transform/fact_songplays_relinked.sql",
            time_column="start_time",
            reads=["staging_songs"],
            inlets=table_assets("dim_songs", "staging_songs"),
            doc_md="Links older plays to songs that came later than they did.",
        )
    check_star = DataQualityOperator(
        task_id="check_star",
        checks=checks_of(*STAR, *CHECKED_BESIDES, scope="batch"),
        reads=STAGING,
    )
    record_files = RecordFilesOperator(
        task_id="record_files",
        staging_task_ids=["stage_events", "stage_songs"],
        fact_task_ids=["load_fact_songplays", "relink_songplays"],
        messages="{{ handed_over(ti, 'messages') }}",
        **COPY,
    )

    chain(find_new_files, create_tables, stage_events, stage_songs, load_dimensions)
    chain(load_dimensions, load_fact_songplays, [load_dim_time, relink_songplays], check_star, record_files)


sparkify_etl()
