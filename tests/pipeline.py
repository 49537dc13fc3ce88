"""The DAGs, run in this process: their own operators in order, without Airflow's scheduler."""

import copy
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from airflow.models import DagBag
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk import DAG, Asset, BaseOperator, Connection, Context
from airflow.sdk.definitions.param import process_params
from airflow.sdk.execution_time.context import OutletEventAccessors, set_current_context

from local.settings import REPOSITORY
from sparkify.tables import STAR
from tests.asset_state import AssetState, AssetStates

try:
    from airflow.sdk.exceptions import DownstreamTasksSkipped  # noqa: TID251
except ImportError:
    from airflow.exceptions import DownstreamTasksSkipped  # type: ignore[no-redef]

VARIABLE_PREFIX = "AIRFLOW_VAR_"


class Variables(dict[str, str]):
    """Airflow's Variables as templates see them: ``var.value.name``, ``var.value.get(name, default)``."""

    def __getattr__(self, name: str) -> str:
        return self[name]


class Connections:
    """Airflow's Connections as templates see them: ``conn.name.login``."""

    def __getattr__(self, name: str) -> Connection:
        return Connection.get(name)


class Pipeline:
    """
    Runs a DAG's tasks one after the other, each prepared and rendered as Airflow does it.

    What Airflow keeps between tasks and runs is kept here: XComs and numbers of tries by run, state by asset.

    :param dag_id: the DAG
    """

    def __init__(self, dag_id: str = "sparkify_etl") -> None:
        self.dag = _dags()[dag_id]
        self.results: dict[str, dict[str, Any]] = {}
        self.tries: dict[str, Counter[str]] = {}
        self.asset_state: dict[str, AssetState] = {}
        self.current_task = ""
        #: How many runs Airflow counts of a DAG, by its states.
        self.count_runs: Callable[..., int] = lambda **_: 0

    def run(
        self,
        run_id: str,
        *,
        variables: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        from_task: str | None = None,
        to_task: str | None = None,
    ) -> dict[str, Any]:
        """
        Run the tasks and return what each returned, by task id; a task that was skipped is not in it.

        An error of a task goes on its way; ``current_task`` then names the task.

        :param run_id: the run
        :param variables: Airflow Variables that differ from the environment's
        :param params: the DAG run's parameters that differ from the DAG's
        :param from_task: the task to begin with, those before it having run under this run_id: a retry
        :param to_task: the task to end with
        """
        tasks = cast("list[BaseOperator]", list(self.dag.topological_sort()))
        names = [task.task_id for task in tasks]
        tasks = tasks[names.index(from_task or names[0]) : names.index(to_task or names[-1]) + 1]
        conf = dict(params or {})
        results = self.results.setdefault(run_id, {})
        run = {
            "dag": self.dag,
            "dag_run": SimpleNamespace(dag_id=self.dag.dag_id, run_id=run_id, conf=conf),
            "run_id": run_id,
            "params": self._params(conf),
            "conn": Connections(),
            "var": {"value": Variables({**_environment_variables(), **(variables or {})})},
        }
        skipped: set[str] = set()
        # Making a client takes 0.1 s, more than most of the tasks.
        with patch.object(S3Hook, "get_conn", lambda hook: s3_client(hook.aws_conn_id)):
            for task in tasks:
                if task.task_id in skipped:
                    continue
                self.current_task = task.task_id
                try:
                    results[task.task_id] = _through_json(self._execute(task, run))
                except DownstreamTasksSkipped as skip:
                    results[task.task_id] = False
                    skipped.update(item if isinstance(item, str) else item[0] for item in skip.tasks)
        return results

    def _params(self, conf: dict[str, Any]) -> dict[str, Any]:
        # process_params writes to the parameters that it is given, and these are the DAG's for all runs.
        own = {name: copy.deepcopy(self.dag.params.get_param(name)) for name in self.dag.params}
        dag, task = SimpleNamespace(params=own), SimpleNamespace(params={})
        return process_params(cast("DAG", dag), cast("BaseOperator", task), conf, suppress_exception=False)

    def _execute(self, task: BaseOperator, run: Mapping[str, Any]) -> Any:
        task = task.prepare_for_execution()
        for field in task.template_fields:  # rendering assigns within nested values, which the copy shares
            setattr(task, field, copy.deepcopy(getattr(task, field)))
        tries = self.tries.setdefault(run["run_id"], Counter())
        tries[task.task_id] += 1
        task_instance = SimpleNamespace(
            dag_id=self.dag.dag_id,
            task_id=task.task_id,
            run_id=run["run_id"],
            map_index=-1,
            get_dr_count=lambda **of: self.count_runs(**of),
            get_first_reschedule_date=lambda _: None,
            try_number=tries[task.task_id],
            xcom_pull=functools.partial(_pull, self.results[run["run_id"]]),
            xcom_push=lambda key, value: None,
        )
        assets = [asset for asset in (*task.inlets, *task.outlets) if isinstance(asset, Asset)]
        context = cast(
            "Context",
            {
                **run,
                "task": task,
                "task_instance": task_instance,
                "ti": task_instance,
                "inlets": task.inlets,
                "outlets": task.outlets,
                "outlet_events": OutletEventAccessors(),
                "asset_state_store": AssetStates(
                    {asset.name: self.asset_state.setdefault(asset.name, AssetState()) for asset in assets}
                ),
            },
        )
        task.render_template_fields(context)
        with set_current_context(context):
            return task.execute(context)


def star(hook: DbApiHook) -> dict[str, list[tuple[Any, ...]]]:
    """Return the sorted rows of each table of the star schema; None is smaller than any value."""
    tables: list[list[tuple[Any, ...]]] = []
    hook.run(
        [f"SELECT * FROM {table}" for table in STAR],
        handler=lambda cursor: tables.append([tuple(row) for row in cursor.fetchall()]),
    )
    return {
        table: sorted(rows, key=lambda row: [(value is not None, value) for value in row])
        for table, rows in zip(STAR, tables, strict=True)
    }


@functools.cache
def _dags() -> dict[str, DAG]:
    dagbag = DagBag(dag_folder=str(REPOSITORY / "dags"))
    assert dagbag.import_errors == {}
    return dagbag.dags


@functools.cache
def s3_client(aws_conn_id: str) -> Any:
    """Return the client that the tasks of all runs share."""
    return S3Hook(aws_conn_id=aws_conn_id).conn


def _environment_variables() -> dict[str, str]:
    return {
        name.removeprefix(VARIABLE_PREFIX).lower(): value
        for name, value in os.environ.items()
        if name.startswith(VARIABLE_PREFIX)
    }


def _pull(results: Mapping[str, Any], task_ids: str | Iterable[str]) -> Any:
    if isinstance(task_ids, str):
        return results.get(task_ids)
    return [results.get(task_id) for task_id in task_ids]


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
