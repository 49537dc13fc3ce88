"""
What the last complete run found on S3, kept in Airflow's asset state store: a shortcut, never the truth.

It lets an hour without news end before the warehouse is asked anything, and lets the ledger be asked only for
recent files. Only a run that has loaded everything writes it, and nobody believes it for longer than a day.
"""

import hashlib
from collections.abc import Iterable, Mapping
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
BELIEVED_FOR = timedelta(days=1)
# An object may show up late under an old date: a multipart upload has the date on which it began
# (https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html).
OVERLAP = timedelta(days=7)


def describe_listing(prefix: str, objects: Iterable[S3Object]) -> dict[str, Any]:
    """
    Return what is remembered of a listing.

    :param prefix: ``s3://bucket/prefix`` that was listed
    :param objects: what lies below it, in key order
    """
    digest, newest = hashlib.sha256(prefix.encode()), datetime.min
    for item in objects:
        digest.update(f"\n{item.key}\n{item.etag}".encode())
        newest = max(newest, item.last_modified)
    return {"prefix": prefix, "fingerprint": digest.hexdigest(), "newest": newest.isoformat()}


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


def remember(context: "Context", datasets: Mapping[str, dict[str, Any]]) -> None:
    """
    Record the listings of a run all of whose files are loaded and in the ledger.

    :param context: the context of a task that has the warehouse among its outlets
    :param datasets: what :func:`describe_listing` returned, by dataset
    """
    state: dict[str, Any] = {"recorded_at": datetime.now(UTC).isoformat(), "datasets": dict(datasets)}
    asset_state(context, WAREHOUSE).set(KEY, state)


def forget(context: "Context") -> None:
    """
    Forget what was recorded, before the tables are dropped.

    :param context: the context of a task that has the warehouse among its inlets
    """
    asset_state(context, WAREHOUSE).delete(KEY)


def recorded_before(known: Mapping[str, Any] | None, prefix: str) -> datetime:
    """
    Return the date before which every object of a prefix is known to be in the ledger.

    :param known: what the last complete run recorded of the dataset, if it did
    :param prefix: the prefix, which may have changed since
    """
    if not known or known["prefix"] != prefix:
        return datetime.min
    newest = datetime.fromisoformat(known["newest"])
    return newest - OVERLAP if newest > datetime.min + OVERLAP else datetime.min
