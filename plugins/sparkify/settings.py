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


def _variable(name: str, default: str = "") -> str:
    return f"{{{{ var.value.get('{name}', '{default}') }}}}"


def _folder(name: str) -> str:
    """Add the slash that ends a folder's name. Without it, …/log_data also finds …/log_data_old/1.json."""
    return f"{{{{ var.value.get('{name}', '') and var.value.{name}.rstrip('/') ~ '/' }}}}"


#: The Airflow variables, for :func:`sparkify.validation.check_settings`; empty if one does not exist.
SETTINGS = {
    "sparkify_log_data": _folder("sparkify_log_data"),
    "sparkify_song_data": _folder("sparkify_song_data"),
    "sparkify_work_prefix": _folder("sparkify_work_prefix"),
    "sparkify_iam_role": _variable("sparkify_iam_role"),
    "sparkify_s3_region": _variable("sparkify_s3_region"),
    "sparkify_max_rejected_rows": _variable("sparkify_max_rejected_rows", "100"),
    "sparkify_schema": _variable("sparkify_schema", "sparkify"),
    "sparkify_analysts_role": _variable("sparkify_analysts_role"),
    "sparkify_alerts": _variable("sparkify_alerts"),
    "sparkify_queue_url": _variable("sparkify_queue_url"),
}

#: ``s3://bucket/prefix/`` of each staging table's files, and the asset that stands for them.
PREFIXES = {
    "staging_events": SETTINGS["sparkify_log_data"],
    "staging_songs": SETTINGS["sparkify_song_data"],
}
SOURCES = {"staging_events": Asset("sparkify_log_data"), "staging_songs": Asset("sparkify_song_data")}

#: Where a run looks for new files, after it has checked the settings.
LOOK = {
    "prefixes": PREFIXES,
    "work_prefix": SETTINGS["sparkify_work_prefix"],
    "queue_url": SETTINGS["sparkify_queue_url"],
    "settings": SETTINGS,
}

#: How COPY reads S3.
COPY = {"iam_role": SETTINGS["sparkify_iam_role"], "region": SETTINGS["sparkify_s3_region"]}

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
        "work_prefix": SETTINGS["sparkify_work_prefix"],
        "checks": checks_of(staging_table, scope="batch"),
        "max_rejected_rows": SETTINGS["sparkify_max_rejected_rows"],
        **COPY,
    }
