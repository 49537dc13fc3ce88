"""Whose files the staging tables hold, so that two runs at once cannot mix theirs."""

from collections.abc import Sequence

from airflow.sdk.exceptions import AirflowFailException

from sparkify.sql import Transaction

BATCHES = "etl_batches"


def take_staging(dataset: str, run_id: str, files: int) -> Transaction[None]:
    """
    Note, in the transaction that fills a staging table, which run does so.

    :param dataset: the staging table
    :param run_id: the run
    :param files: how many files it stages
    """
    yield f"DELETE FROM {BATCHES} WHERE dataset = %s", [dataset]
    yield f"INSERT INTO {BATCHES} VALUES (%s, %s, %s, SYSDATE)", [dataset, run_id, files]


def require_staging(datasets: Sequence[str], run_id: str) -> Transaction[bool]:
    """
    Check, in the transaction that reads staging tables, that they still hold this run's files.

    :param datasets: the staging tables
    :param run_id: the run
    :return: whether there is anything to read: False if the run staged no file in any of them
    :raises AirflowFailException: if another run has staged its own since
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
    for dataset, owner, _ in owners:
        if owner != run_id:
            raise AirflowFailException(
                f"{dataset} holds the files of run {owner}, which staged them after this run ({run_id}) had"
                " staged its own. Nothing is lost: what a run did not record, the next one loads. To load"
                " this run's files now, clear it from its staging tasks on"
            )
    return any(files for _, _, files in owners)
