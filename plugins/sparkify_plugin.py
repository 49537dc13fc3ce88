"""What Airflow itself loads of this project, beside the DAGs."""

from airflow.plugins_manager import AirflowPlugin

from sparkify import run_notes


class SparkifyPlugin(AirflowPlugin):
    """Registers what listens to DAG runs."""

    name = "sparkify"
    listeners: list[object] = [run_notes]  # noqa: RUF012  Airflow declares no class variable
