"""
What Airflow 3.3 has, and older releases lack or keep elsewhere; no other module knows of releases.

The oldest that is supported is 3.0.6 with the providers of its constraints, the one Airflow 3 that Amazon
MWAA offers (https://docs.aws.amazon.com/mwaa/latest/userguide/airflow-versions.html).
"""

import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow import __version__
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import Variable

if TYPE_CHECKING:
    from airflow.providers.common.sql.operators.sql import BaseSQLOperator
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Asset, Context

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException
except ImportError:
    from airflow.exceptions import (  # type: ignore[no-redef]
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
    )

try:
    from airflow.providers.common.sql.operators.sql import SQLCheckResult
except ImportError:  # then nobody reads them
    SQLCheckResult = SimpleNamespace  # type: ignore[misc, assignment]

try:
    from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
except ImportError:
    from airflow.exceptions import AirflowOptionalProviderFeatureException

try:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

    HAS_RETRY_POLICIES = True
except ImportError:
    RetryPolicy, HAS_RETRY_POLICIES = object, False  # type: ignore[misc, assignment]
    RetryDecision = None  # type: ignore[misc, assignment]

try:
    from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference
except ImportError:
    AsyncCallback = DeadlineAlert = DeadlineReference = None  # type: ignore[misc, assignment]

try:
    from airflow.sdk._shared.secrets_masker import redact
except ImportError:
    from airflow.sdk.execution_time.secrets_masker import redact  # type: ignore[no-redef]

#: Whether Airflow's web UI has a place for a page of ours.
HAS_PAGES = hasattr(AirflowPlugin, "external_views")

_RELEASE = tuple(map(int, __version__.split(".")[:2]))

#: Whether what runs a callback, be it of a task or of a run, answers when it asks for XComs.
CALLBACKS_READ_XCOMS = _RELEASE >= (3, 3)

__all__ = [
    "HAS_PAGES",
    "HAS_RETRY_POLICIES",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "RetryDecision",
    "RetryPolicy",
    "SQLCheckResult",
    "asset_state",
    "callbacks_read_xcoms",
    "deadline",
    "redact",
    "with_check_results",
]


def deadline(after: timedelta, callback: Callable[..., Awaitable[None]]) -> dict[str, Any]:
    """
    Return the argument of a DAG that calls back if a run has not ended in time.

    There is none before Airflow 3.1, and none for ``airflow dags test``.

    :param after: how long a run may take, counted from its logical date (before Airflow 3.3: from the time
        it was queued). A run without a logical date has no deadline.
    :param callback: a function of a module; the triggerer runs it, whatever the executor
    """
    # After a good run of a DAG that has a deadline, `airflow dags test` ends with an error
    # (https://github.com/apache/airflow/issues/73428). Nobody waits for a run of it to be late.
    if DeadlineAlert is None or sys.argv[1:3] == ["dags", "test"]:
        return {}
    # From 3.3 on, a task or run whose deadline refers to queued_at cannot be cleared
    # (https://github.com/apache/airflow/issues/70368). Before 3.2, a run without a logical date cannot be
    # triggered if its deadline refers to that (DagRunLogicalDateDeadline adds the interval to None).
    reference = (
        DeadlineReference.DAGRUN_LOGICAL_DATE if _RELEASE >= (3, 3) else DeadlineReference.DAGRUN_QUEUED_AT
    )
    return {"deadline": DeadlineAlert(reference=reference, interval=after, callback=AsyncCallback(callback))}


def callbacks_read_xcoms() -> bool:
    """
    Tell whether the callbacks of tasks and runs may ask for XComs in this process.

    Before 3.3, the DAG processor, which runs those of runs, gives no answer; ``airflow dags test`` has nobody
    to ask once its tasks have ended.
    """
    from airflow.sdk.execution_time import task_runner

    return CALLBACKS_READ_XCOMS and hasattr(task_runner, "SUPERVISOR_COMMS")


def asset_state(context: "Context", asset: "Asset") -> Any:
    """
    Return what keeps an asset's state between runs: ``get(key)``, ``set(key, value)`` and ``delete(key)``.

    :param context: the context of a task that has the asset among its inlets or outlets
    :param asset: the asset
    """
    if "asset_state_store" in context:
        return context["asset_state_store"][asset]
    return VariableState(asset.name)


def with_check_results(operator: "BaseSQLOperator", lineage: "OperatorLineage") -> "OperatorLineage":
    """
    Return OpenLineage's account of a task with the results of its checks, as assertions about their tables.

    :param operator: the task
    :param lineage: what it reads and writes
    :return: the same where the provider or OpenLineage's client is too old for it
    """
    if not getattr(operator, "check_results", None):
        return lineage
    try:
        return operator._attach_check_facets(lineage)
    except AirflowOptionalProviderFeatureException:
        return lineage


class VariableState:
    """
    An asset's state in Airflow Variables, with the calls of the asset state store.

    :param asset_name: the asset's name, with which the variables' names begin
    """

    def __init__(self, asset_name: str) -> None:
        self.asset_name = asset_name

    def get(self, key: str) -> Any:
        """
        Return a value, None if there is none.

        :param key: the value's name
        """
        return Variable.get(f"{self.asset_name}_{key}", default=None, deserialize_json=True)

    def set(self, key: str, value: Any) -> None:
        """
        Keep a value.

        :param key: the value's name
        :param value: anything that JSON can hold
        """
        note = "Written by the DAGs, to be read by their next run. It may be deleted at any time."
        Variable.set(f"{self.asset_name}_{key}", value, description=note, serialize_json=True)

    def delete(self, key: str) -> None:
        """
        Forget a value, if there is one.

        :param key: the value's name
        """
        Variable.delete(f"{self.asset_name}_{key}")
