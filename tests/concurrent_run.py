"""One of several runs that go at the same time, each in a process of its own."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import patch

from airflow.sdk import BaseOperator

from sparkify import staging
from sparkify.compat import HAS_RETRY_POLICIES, AirflowFailException
from sparkify.errors import error_message, is_database_error
from sparkify.operators import data_quality, load_dimension, load_fact, record_files
from tests.pipeline import Pipeline

SOONER = 50  # how many times sooner than the DAG says a task is retried
TAKE_TURNS = (staging, load_dimension, load_fact, data_quality, record_files)


@dataclass
class Outcome:
    """
    What came of a run.

    :param healed: the tasks that failed and were retried, with their errors
    :param failure: why it ended early, empty if it did not
    """

    healed: list[tuple[str, str]] = field(default_factory=list)
    failure: str = ""


def run(run_id: str, variables: Mapping[str, str], start: float, *, turns: bool = True) -> Outcome:
    """
    Run the DAG, and retry its tasks as it says.

    :param run_id: the run
    :param variables: Airflow Variables that differ from the environment's
    :param start: when to start, so that runs do so at the same time
    :param turns: whether transactions that change tables take turns
    """
    pipeline, outcome, tries, task_id = Pipeline(), Outcome(), Counter[str](), None
    time.sleep(max(0, start - time.time()))
    while True:
        try:
            with taking_turns(turns):
                pipeline.run(run_id, variables=variables, from_task=task_id)
            return outcome
        except Exception as error:
            task_id = pipeline.current_task
            tries[task_id] += 1
            message = error_message(error) if is_database_error(error) else str(error)
            delay = _delay(cast("BaseOperator", pipeline.dag.get_task(task_id)), error, tries[task_id])
            if delay is None:
                outcome.failure = f"{task_id}: {message}"
                return outcome
            outcome.healed.append((task_id, message))
            time.sleep(delay / SOONER)


def _delay(task: BaseOperator, error: Exception, try_number: int) -> float | None:
    """Return after how many seconds Airflow retries a task, None if it does not."""
    if isinstance(error, AirflowFailException) or try_number > (task.retries or 0):
        return None
    if not HAS_RETRY_POLICIES:
        return task.retry_delay.total_seconds()
    decision = cast("Any", task.retry_policy).evaluate(error, try_number, task.retries or 0)
    if decision.action.value == "fail":
        return None
    return (decision.retry_delay or task.retry_delay).total_seconds()


@contextmanager
def taking_turns(turns: bool) -> Iterator[None]:
    """Replace the lock that transactions begin with, unless they take turns."""
    with ExitStack() as patches:
        for module in () if turns else TAKE_TURNS:
            patches.enter_context(patch.object(module, "TURN", "SET query_group TO 'at once'"))
        yield
