"""
The note of a run in Airflow's web UI: one line of what it loaded, and how long that took.

A task cannot write it, for the API that tasks use has no call for notes; so whoever ends the run does, which
is the scheduler or ``airflow dags test``
(https://airflow.apache.org/docs/apache-airflow/3.3.0/howto/listener-plugin.html).
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from sqlalchemy.orm import Session

DAG_ID = "sparkify_etl"
TASK_ID = "record_files"
BEGINS_WITH = "Loaded "


@hookimpl
def on_dag_run_success(dag_run: "DagRun") -> None:
    """
    Note what a run has loaded, unless it loaded nothing or a person has written a note.

    :param dag_run: the run; the scheduler holds it locked, so that its own session must write the note
    """
    # Every process of Airflow loads its plugins, and the models are slow to import.
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy.orm import object_session

    if dag_run.dag_id != DAG_ID:
        return
    session = object_session(dag_run)
    if session:
        _write_note(dag_run, session)
        return
    with create_session() as session:  # of ``airflow dags test``, whose run is in no session
        if stored := session.get(DagRun, dag_run.id):
            _write_note(stored, session)


def _write_note(dag_run: "DagRun", session: "Session") -> None:
    from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
    from sqlalchemy import select

    if dag_run.note and not dag_run.note.startswith(BEGINS_WITH):
        return
    # XComModel.get_many would end the scheduler's transaction in Airflow 3.0, and so the scheduler itself.
    of_this_run = {"dag_id": DAG_ID, "run_id": dag_run.run_id, "task_id": TASK_ID, "key": XCOM_RETURN_KEY}
    account = session.scalars(select(XComModel).filter_by(**of_this_run)).first()
    if account:
        dag_run.note = BEGINS_WITH + XComModel.deserialize_value(account)["summary"]
        if dag_run.start_date:  # its end is now; ``airflow dags test`` has not stored it yet
            dag_run.note += f"; in {(datetime.now(UTC) - dag_run.start_date).total_seconds():,.0f} s"
