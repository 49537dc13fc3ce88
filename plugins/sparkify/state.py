"""
What the last complete run found on S3, kept in Airflow's asset state store: a shortcut, never the truth.

It lets an hour without news end before the warehouse is asked anything, and lets the ledger be asked only for
recent files. Only a run that has loaded everything writes it, and nobody believes it for longer than a day.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import Asset

from sparkify.compat import asset_state
from sparkify.files import S3Object

if TYPE_CHECKING:
    from airflow.sdk import Context

#: The warehouse, as other DAGs may wait for it; the state is kept under it. Tasks that use the state name it
#: among their inlets or outlets.
WAREHOUSE = Asset("sparkify_warehouse")

KEY = "listings"
OPEN = "open_run"
BELIEVED_FOR = timedelta(days=1)
# An object may show up late under an old date: a multipart upload has the date on which it began
# (https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html).
OVERLAP = timedelta(days=7)


def describe_listing(prefix: str, objects: Sequence[S3Object]) -> dict[str, Any]:
    """
    Return what is remembered of a listing: of all of it, and of its older part, which later runs may skip.

    :param prefix: ``s3://bucket/prefix`` that was listed
    :param objects: all that lies below it, in an order that only the keys decide
    """
    newest = max((item.last_modified for item in objects), default=datetime.min)
    before = newest - OVERLAP if newest > datetime.min + OVERLAP else datetime.min
    return {
        "prefix": prefix,
        "fingerprint": fingerprint(objects),
        "before": before.isoformat(),
        "older": fingerprint(item for item in objects if item.last_modified < before),
    }


def fingerprint(objects: Iterable[S3Object]) -> str:
    """
    Return a digest of the keys, versions and dates of objects.

    A file that is uploaded again as it was has a new date alone, and is tried again if it is quarantined.

    :param objects: the objects
    """
    digest = hashlib.sha256()
    for item in objects:
        digest.update(f"{item.key}\n{item.etag}\n{item.last_modified}\n".encode())
    return digest.hexdigest()


def recall(context: "Context") -> dict[str, dict[str, Any]]:
    """
    Return the listings that the last complete run recorded, by dataset; none if that was a day ago or longer.

    :param context: the context of a task that has the warehouse among its inlets
    """
    state = asset_state(context, WAREHOUSE).get(KEY)
    if not isinstance(state, dict) or not isinstance(state.get("datasets"), dict):
        return {}
    if datetime.now(UTC) - datetime.fromisoformat(str(state["recorded_at"])) > BELIEVED_FOR:
        return {}
    return cast("dict[str, dict[str, Any]]", state["datasets"])


def last_complete_run(context: "Context") -> str:
    """
    Return which run recorded the listings, and when.

    :param context: the context of a task that has the warehouse among its inlets
    """
    state = asset_state(context, WAREHOUSE).get(KEY)
    recorded_at = datetime.fromisoformat(state["recorded_at"])
    return f"{state.get('run_id', 'the last run')} at {recorded_at:%Y-%m-%d %H:%M} UTC"


def leave_open(context: "Context") -> None:
    """
    Note that a run holds messages of the queue, which nobody else receives until it has ended.

    :param context: the context of a task that has the warehouse among its inlets
    """
    asset_state(context, WAREHOUSE).set(OPEN, context["run_id"])


def left_open(context: "Context") -> bool:
    """
    Tell whether a run that holds messages has not recorded its files.

    :param context: the context of a task that has the warehouse among its inlets
    """
    return asset_state(context, WAREHOUSE).get(OPEN) is not None


def close(context: "Context") -> None:
    """
    Note that no run holds messages: all files that they announced are in the ledger.

    :param context: the context of a task that has the warehouse among its outlets
    """
    asset_state(context, WAREHOUSE).delete(OPEN)


def remember(context: "Context", datasets: Mapping[str, dict[str, Any]]) -> None:
    """
    Record the listings of a run all of whose files are in the ledger.

    :param context: the context of a task that has the warehouse among its outlets
    :param datasets: what :func:`describe_listing` returned, by dataset
    """
    state: dict[str, Any] = {
        "recorded_at": datetime.now(UTC).isoformat(),
        "run_id": context["run_id"],
        "datasets": dict(datasets),
    }
    asset_state(context, WAREHOUSE).set(KEY, state)


def forget(context: "Context") -> None:
    """
    Forget what was recorded, after the tables are dropped.

    :param context: the context of a task that has the warehouse among its inlets
    """
    asset_state(context, WAREHOUSE).delete(KEY)


def recorded_before(known: Mapping[str, Any] | None, prefix: str, objects: Sequence[S3Object]) -> datetime:
    """
    Return the date before which every object of a listing is known to be in the ledger.

    An object may arrive under an old date: replication keeps the source's, and a version that is rolled back
    has its own. So the older part of the listing must be as the last complete run found it.

    :param known: what the last complete run recorded of the dataset, if it did
    :param prefix: the prefix, which may have changed since
    :param objects: the listing, ordered as for :func:`describe_listing`
    """
    before = remembered_before(known, prefix)
    older = fingerprint(item for item in objects if item.last_modified < before)
    return before if known and older == known["older"] else datetime.min


def remembered_before(known: Mapping[str, Any] | None, prefix: str) -> datetime:
    """
    Return where the older part of the listing ends that the last complete run recorded.

    :param known: what it recorded of the dataset, if it did
    :param prefix: the prefix, which may have changed since
    """
    if not known or known["prefix"] != prefix or "older" not in known:
        return datetime.min
    return datetime.fromisoformat(known["before"])
