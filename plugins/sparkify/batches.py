"""Whose files the staging tables hold, so that two runs at once cannot mix theirs."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparkify.compat import AirflowFailException
from sparkify.sql import Transaction, identifier

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

BATCHES = "etl_batches"

#: What each transaction begins with that changes tables, so that they take turns, whatever the isolation: a
#: first try that is still at work where Airflow has given it up, a run beside another, tasks side by side.
#: Under SERIALIZABLE isolation, Redshift would end one of two with error 1023. Under SNAPSHOT, its default,
#: both would insert what neither finds there yet. Nobody else waits for this lock, since the questions of
#: analysts do not read the table. It comes before all else: the first statement that reads or writes a table
#: takes the transaction's snapshot (https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html,
#: https://docs.aws.amazon.com/redshift/latest/dg/r_LOCK.html).
TURN = f"LOCK {BATCHES}"


def take_staging(dataset: str, run_id: str, files: int) -> Transaction[None]:
    """
    Note which run fills a staging table, in the transaction that does so, after its turn has come.

    :param dataset: the staging table
    :param run_id: the run
    :param files: how many files it stages
    """
    yield f"DELETE FROM {BATCHES} WHERE dataset = %s", [dataset]
    yield f"INSERT INTO {BATCHES} VALUES (%s, %s, %s, SYSDATE)", [dataset, run_id, files]


class StagingLostError(AirflowFailException):
    """The staging tables do not hold this run's files any more."""


def require_staging(datasets: Sequence[str], run_id: str) -> Transaction[bool]:
    """
    Check, in the transaction that reads staging tables, that they still hold this run's files.

    :param datasets: the staging tables
    :param run_id: the run
    :return: whether there is anything to read: False if the run staged no file in any of them
    :raises StagingLostError: if another run has staged its own since, or the tables were dropped or emptied
    """
    if not datasets:
        return True
    names = ", ".join(["%s"] * len(datasets))
    owners = (
        yield (
            f"SELECT dataset, run_id, files FROM {BATCHES} WHERE dataset IN ({names}) ORDER BY dataset",
            datasets,
        )
    ).rows
    if missing := sorted(set(datasets) - {dataset for dataset, *_ in owners}):
        raise StagingLostError(
            f"{BATCHES} has no row of {', '.join(missing)}: the tables were dropped or emptied after this run"
            f" ({run_id}) had staged its files. Nothing is recorded as loaded. Trigger a new run"
        )
    for dataset, owner, _ in owners:
        if owner != run_id:
            raise StagingLostError(
                f"{dataset} holds the files of run {owner}, which staged them after this run ({run_id}) had"
                " staged its own. Nothing is lost: the next run loads what this one did not record. To load"
                " its files now, clear it from its staging tasks on"
            )
    return any(files for _, _, files in owners)


def loaded_plays(ti: "RuntimeTaskInstanceProtocol") -> str:
    """
    Return a condition on ``start_time`` that holds for every play that this run has loaded.

    :param ti: a task after ``load_fact_songplays``
    """
    return ti.xcom_pull(task_ids="load_fact_songplays")["within"]


def loaded_sessions(ti: "RuntimeTaskInstanceProtocol") -> str:
    """
    Return a condition on ``session_id`` that holds for every such play.

    :param ti: a task after ``load_fact_songplays``
    """
    return ti.xcom_pull(task_ids="load_fact_songplays")["indexed"]


def handed_over(ti: "RuntimeTaskInstanceProtocol", name: str) -> str:
    """
    Return as JSON what ``find_new_files`` handed over: ``null`` where there was none, or an older release's.

    :param ti: a task after ``find_new_files``
    :param name: a staging table, or ``messages``
    """
    found = ti.xcom_pull(task_ids="find_new_files")
    return json.dumps(found[name] if isinstance(found, dict) else None)


#: What templates may call.
MACROS: dict[str, Any] = {
    "handed_over": handed_over,
    "identifier": identifier,
    "loaded_plays": loaded_plays,
    "loaded_sessions": loaded_sessions,
}
