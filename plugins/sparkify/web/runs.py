"""What Airflow itself knows of the pipeline's runs; the warehouse is not asked."""

from datetime import datetime
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sparkify.run_notes import DAG_ID, TASK_ID

SHOWN = 25


def last_end(session: Session) -> datetime | None:
    """
    Return when a run of the pipeline last ended.

    :param session: of Airflow's database
    """
    return session.scalar(select(func.max(DagRun.end_date)).where(DagRun.dag_id == DAG_ID))


def last_runs(session: Session) -> list[dict[str, Any]]:
    """
    Return the last runs of the pipeline, the latest first.

    :param session: of Airflow's database
    :return: of each its ``run_id``, ``run_type``, ``state``, ``start``, ``end``, ``seconds`` and ``note``,
        and its ``account`` as the task ``record_files`` returned it, None if the run loaded nothing
    """
    runs = session.scalars(
        select(DagRun).where(DagRun.dag_id == DAG_ID).order_by(DagRun.id.desc()).limit(SHOWN)
    ).all()
    accounts = session.scalars(
        select(XComModel).where(
            XComModel.dag_id == DAG_ID,
            XComModel.run_id.in_([run.run_id for run in runs]),
            XComModel.task_id == TASK_ID,
            XComModel.key == XCOM_RETURN_KEY,
        )
    )
    by_run = {account.run_id: XComModel.deserialize_value(account) for account in accounts}
    return [
        {
            "run_id": run.run_id,
            "run_type": run.run_type,
            "state": run.state,
            "start": run.start_date,
            "end": run.end_date,
            "seconds": run.duration,
            "note": run.note,
            "account": by_run.get(run.run_id),
        }
        for run in runs
    ]
