"""Whose files the staging tables hold, so that two runs at once cannot mix theirs."""

from collections.abc import Sequence

from sparkify.compat import AirflowFailException
from sparkify.sql import Transaction

BATCHES = "etl_batches"


def take_staging(dataset: str, run_id: str, files: int) -> Transaction[None]:
    """
    Note which run fills a staging table, as the first thing in the transaction that does so.

    The lock makes such transactions wait for each other, and for those that read staging tables. Without it,
    Redshift would end one of two that write to this table at once, unless its isolation is SNAPSHOT; it must
    come first, before the transaction's snapshot is taken
    (https://docs.aws.amazon.com/redshift/latest/dg/r_LOCK.html,
    https://repost.aws/knowledge-center/redshift-serializable-isolation).

    :param dataset: the staging table
    :param run_id: the run
    :param files: how many files it stages
    """
    yield f"LOCK {BATCHES}"
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
