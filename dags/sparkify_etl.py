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
from airflow.sdk import Asset, Param, TaskGroup, chain, dag

from sparkify.checks import Check, not_empty, not_null, references, unique
from sparkify.lineage import table_assets
from sparkify.new_files import anything_to_load
from sparkify.operators import (
    CreateTablesOperator,
    DataQualityOperator,
    LoadDimensionOperator,
    LoadFactOperator,
    RecordFilesOperator,
    StageToRedshiftOperator,
)
from sparkify.ranges import Index
from sparkify.retries import RETRY_POLICY
from sparkify.sql import identifier
from sparkify.state import WAREHOUSE
from sparkify.tables import ANALYSTS_GRANTS, DDL, MIGRATIONS, SQL_FOLDER, STAGING, STAR

PREFIXES = {
    "staging_events": "{{ var.value.sparkify_log_data }}",
    "staging_songs": "{{ var.value.sparkify_song_data }}",
}
COPY = {
    "iam_role": "{{ var.value.sparkify_iam_role }}",
    "region": "{{ var.value.sparkify_s3_region }}",
}
STAGE = {
    **COPY,
    "json": "auto ignorecase",
    "work_prefix": "{{ var.value.sparkify_work_prefix }}",
    "max_rejected_rows": "{{ var.value.get('sparkify_max_rejected_rows', 100) }}",
}

STAGE_DOC = (
    "COPYs the files that `etl_files` lacks, in one transaction. Lines that do not fit are kept in"
    " `etl_rejected_rows` with file, line and reason; with `sparkify_max_rejected_rows` of them it fails."
)
SOURCES = {"staging_events": Asset("sparkify_log_data"), "staging_songs": Asset("sparkify_song_data")}

DIMENSIONS = (
    ("dim_users", "user_id", "staging_events"),
    ("dim_songs", "song_id", "staging_songs"),
    ("dim_artists", "artist_id", "staging_songs"),
)

STAGING_CHECKS = (
    Check(
        "staging_events: every play has a user",
        "SELECT * FROM staging_events WHERE page = 'NextSong' AND (userid IS NULL OR userid = '')",
        severity="warn",
    ),
    Check(
        "staging_events: every play has a song, an artist and a length",
        "SELECT * FROM staging_events"
        " WHERE page = 'NextSong' AND (song IS NULL OR artist IS NULL OR length IS NULL)",
        severity="warn",
    ),
    Check(
        "staging_songs: every song has an artist",
        "SELECT * FROM staging_songs WHERE artist_id IS NULL OR artist_id = ''",
        severity="warn",
    ),
)
# What this run has loaded: checking more would cost more with every hour.
PLAYS = "{{ loaded_plays(ti) }}"
SESSIONS = "{{ loaded_sessions(ti) }}"
TIMES = "{{ loaded_times(ti) }}"
STAR_CHECKS = (
    *(not_empty(table) for table in ("dim_users", "dim_songs", "dim_artists")),
    unique("dim_users", "user_id"),
    unique("dim_songs", "song_id"),
    unique("dim_artists", "artist_id"),
    not_null("dim_users", "level"),
    unique("fact_songplays", "songplay_id", where=PLAYS),
    unique("dim_time", "start_time", where=TIMES),
    unique("etl_sessions", "session_id", "start_hour", where=SESSIONS),
    unique(
        "etl_files",
        "dataset",
        "s3_key",
        "etag",
        "last_modified",
        where="last_modified >= DATEADD(DAY, -8, SYSDATE)",
    ),
    not_null("fact_songplays", "songplay_id", "start_time", "user_id", where=PLAYS),
    references("fact_songplays", "user_id", to="dim_users", where=PLAYS),
    references("fact_songplays", "song_id", to="dim_songs", where=PLAYS),
    references("fact_songplays", "artist_id", to="dim_artists", where=PLAYS),
    references("fact_songplays", "start_time", to="dim_time", where=PLAYS, to_where=TIMES),
    Check(
        "fact_songplays: every staged play of a user is there",
        "SELECT staged.* FROM staging_events AS staged"
        f" LEFT JOIN (SELECT session_id, item_in_session FROM fact_songplays WHERE {PLAYS}) AS loaded"
        " ON staged.sessionid = loaded.session_id AND staged.iteminsession = loaded.item_in_session"
        " WHERE staged.page = 'NextSong' AND staged.userid <> '' AND loaded.session_id IS NULL",
    ),
    Check(
        "etl_sessions: every play is there",
        f"SELECT plays.* FROM (SELECT * FROM fact_songplays WHERE {PLAYS} AND {SESSIONS}) AS plays"
        f" LEFT JOIN (SELECT session_id, start_hour FROM etl_sessions WHERE {SESSIONS}) AS known"
        " ON plays.session_id = known.session_id AND DATE_TRUNC('hour', plays.start_time) = known.start_hour"
        " WHERE known.session_id IS NULL",
    ),
    Check(
        "etl_rejected_rows: every staged play without a user is there",
        "SELECT COUNT(*) AS plays FROM staging_events"
        " WHERE page = 'NextSong' AND (userid IS NULL OR userid = '')"
        " HAVING COUNT(*) <> {{ ti.xcom_pull(task_ids='load_fact_songplays')['rejected'] }}",
    ),
    Check(
        "fact_songplays: every song is known",
        f"SELECT * FROM fact_songplays WHERE song_id IS NULL AND {PLAYS}",
        severity="warn",
    ),
)


def loaded_plays(ti):
    """Return a condition that holds for every play that this run has loaded."""
    return ti.xcom_pull(task_ids="load_fact_songplays")["within"]


def loaded_sessions(ti):
    """Return a condition that holds for the session of every such play."""
    return ti.xcom_pull(task_ids="load_fact_songplays")["indexed"]


def loaded_times(ti):
    """Return a condition that holds for the time of every such play."""
    return ti.xcom_pull(task_ids="load_dim_time")["within"]


@dag(
    schedule="@hourly",
    start_date=datetime(2018, 11, 1),
    catchup=False,
    max_active_runs=1,
    # Airflow takes a run whose "airflow dags test" was killed for running, and would hold back all others.
    dagrun_timeout=timedelta(hours=6),
    default_args={
        "owner": "data-eng",
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        **RETRY_POLICY,
    },
    params={
        "check_ledger": Param(
            False,
            type="boolean",
            title="Check the ledger",
            description="Ask the warehouse which files it has, even if S3 looks as the last run left it.",
        ),
        "reload_prefix": Param(
            None,
            type=["null", "string"],
            pattern="^s3://[^'\\\\]+$",
            title="Reload files below",
            description="Load all files whose address begins so again, such as s3://bucket/log_data/2018/11/.",
        ),
        "replace_from": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="Replace plays from",
            description="Delete the plays from this time on before loading; for files that lost lines.",
        ),
        "replace_to": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="Replace plays to",
            description="… up to and without this time. The files to reload must hold all plays in between.",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Only show, in the log of find_new_files, what would be loaded.",
        ),
    },
    user_defined_macros={
        "identifier": identifier,
        "loaded_plays": loaded_plays,
        "loaded_sessions": loaded_sessions,
        "loaded_times": loaded_times,
    },
    template_searchpath=str(SQL_FOLDER),
    doc_md=__doc__,
    tags=["sparkify"],
)
def sparkify_etl():
    find_new_files = ShortCircuitOperator(
        task_id="find_new_files",
        python_callable=anything_to_load,
        op_kwargs={"prefixes": PREFIXES, "conn_id": "redshift", "aws_conn_id": "aws_default"},
        inlets=[WAREHOUSE, *SOURCES.values()],
        doc_md="Lists both prefixes. If they look as the last complete run left them, all else is skipped,"
        " and the warehouse is not even connected to.",
    )
    create_tables = CreateTablesOperator(
        task_id="create_tables",
        ddl=DDL,
        migrations=MIGRATIONS,
        afterwards=[ANALYSTS_GRANTS],
        doc_md="Creates the tables that are missing, and brings those of an older release up to date.",
    )
    with TaskGroup("stage_files", prefix_group_id=False, tooltip="New files into the staging tables"):
        stage_events = StageToRedshiftOperator(
            task_id="stage_events",
            table="staging_events",
            prefix=PREFIXES["staging_events"],
            copy_options=["TIMEFORMAT 'epochmillisecs'"],
            inlets=[SOURCES["staging_events"]],
            outlets=table_assets("staging_events"),
            doc_md=STAGE_DOC,
            **STAGE,
        )
        stage_songs = StageToRedshiftOperator(
            task_id="stage_songs",
            table="staging_songs",
            prefix=PREFIXES["staging_songs"],
            inlets=[SOURCES["staging_songs"]],
            outlets=table_assets("staging_songs"),
            doc_md=STAGE_DOC,
            **STAGE,
        )
        check_staging = DataQualityOperator(
            task_id="check_staging",
            checks=STAGING_CHECKS,
            reads=STAGING,
            retry_on_failure=False,
            inlets=table_assets(*STAGING),
            outlets=table_assets("etl_quality_results"),
            doc_md="Looks for what is odd in the files, but can be loaded: it warns.",
        )
    with TaskGroup("load_dimensions", prefix_group_id=False, tooltip="Users, songs and artists"):
        load_dimensions = [
            LoadDimensionOperator(
                task_id=f"load_{table}",
                table=table,
                key=[key],
                sql=f"transform/{table}.sql",
                reads=[staging],
                inlets=table_assets(staging),
                outlets=table_assets(table),
                doc_md=f"Replaces the rows of `{table}` that the staged files change;"
                f" `transform/{table}.sql` says which row wins.",
            )
            for table, key, staging in DIMENSIONS
        ]
    with TaskGroup("load_plays", prefix_group_id=False, tooltip="Plays, their times and their songs"):
        load_fact_songplays = LoadFactOperator(
            task_id="load_fact_songplays",
            table="fact_songplays",
            key=["songplay_id"],
            sql="transform/fact_songplays.sql",
            time_column="start_time",
            index=Index("etl_sessions", "session_id"),
            rejected_sql="transform/etl_rejected_rows.sql",
            manifest="{{ ti.xcom_pull(task_ids='stage_events')['manifest'] or '' }}",
            replace_from="{{ params.replace_from or '' }}",
            replace_to="{{ params.replace_to or '' }}",
            dependents={"dim_time": "start_time"},
            reads=["staging_events"],
            inlets=table_assets("staging_events", "dim_songs"),
            outlets=table_assets("fact_songplays"),
            doc_md="Replaces the plays that the staged files hold, each known by its session and its place in"
            " it, and keeps those without a user in `etl_rejected_rows`.",
        )
        load_dim_time = LoadDimensionOperator(
            task_id="load_dim_time",
            table="dim_time",
            key=["start_time"],
            sql="transform/dim_time.sql",
            within="start_time",
            reads=["staging_events"],
            inlets=table_assets("fact_songplays"),
            outlets=table_assets("dim_time"),
            doc_md="Adds the times at which the loaded plays began.",
        )
        relink_songplays = LoadFactOperator(
            task_id="relink_songplays",
            table="fact_songplays",
            key=["songplay_id"],
            sql="transform/fact_songplays_relinked.sql",
            time_column="start_time",
            reads=["staging_songs"],
            inlets=table_assets("dim_songs", "staging_songs"),
            outlets=table_assets("fact_songplays"),
            doc_md="Links older plays to songs that came later than they did.",
        )
    check_star = DataQualityOperator(
        task_id="check_star",
        checks=STAR_CHECKS,
        reads=STAGING,
        retry_on_failure=False,
        inlets=table_assets(*STAR),
        outlets=table_assets("etl_quality_results"),
        doc_md="Checks what was loaded: keys, references, and that no play is lost. The log lists each check,"
        " `etl_quality_results` keeps the results.",
    )
    record_files = RecordFilesOperator(
        task_id="record_files",
        staging_task_ids=["stage_events", "stage_songs"],
        fact_task_ids=["load_fact_songplays", "relink_songplays"],
        doc_md="Writes the loaded files to `etl_files`. Until then they count as new, and the next run loads"
        " them.",
        **COPY,
    )

    chain(
        find_new_files,
        create_tables,
        [stage_events, stage_songs],
        check_staging,
        load_dimensions,
        load_fact_songplays,
        [load_dim_time, relink_songplays],
        check_star,
        record_files,
    )


sparkify_etl()
