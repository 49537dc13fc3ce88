"""
What the DAGs share: their Airflow Variables, as templates, and how their tasks are tried.

A template is rendered when its task runs, so that parsing a DAG reads no Variable.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset

from sparkify.alerts import TASK_ALERTS
from sparkify.declarations import checks_of
from sparkify.retries import RETRY_POLICY

#: ``s3://bucket/prefix`` of each staging table's files, and the asset that stands for them.
PREFIXES = {
    "staging_events": "{{ var.value.sparkify_log_data }}",
    "staging_songs": "{{ var.value.sparkify_song_data }}",
}
SOURCES = {"staging_events": Asset("sparkify_log_data"), "staging_songs": Asset("sparkify_song_data")}

#: Where each run keeps files of its own.
WORK_PREFIX = "{{ var.value.sparkify_work_prefix }}"

#: Where a run looks for new files.
LOOK = {
    "prefixes": PREFIXES,
    "work_prefix": WORK_PREFIX,
    "queue_url": "{{ var.value.get('sparkify_queue_url', '') }}",
}

#: How COPY reads S3.
COPY = {
    "iam_role": "{{ var.value.sparkify_iam_role }}",
    "region": "{{ var.value.sparkify_s3_region }}",
}

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "data-eng",
    "retries": 3,
    "retry_delay": timedelta(minutes=5),
    **RETRY_POLICY,
    **TASK_ALERTS,
}


def source_of(staging_table: str) -> dict[str, Any]:
    """
    Return the arguments of a :class:`StageToRedshiftOperator` that say what it stages, and how.

    :param staging_table: the table
    """
    return {
        "table": staging_table,
        "prefix": PREFIXES[staging_table],
        "inlets": [SOURCES[staging_table]],
        "json": "auto ignorecase",
        "found": f"{{{{ handed_over(ti, '{staging_table}') }}}}",
        "work_prefix": WORK_PREFIX,
        "checks": checks_of(staging_table, scope="batch"),
        "max_rejected_rows": "{{ var.value.get('sparkify_max_rejected_rows', 100) }}",
        **COPY,
    }
