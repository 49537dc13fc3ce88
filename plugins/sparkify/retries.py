"""How long Airflow waits before it retries a failed task."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sparkify.compat import HAS_RETRY_POLICIES, RetryDecision, RetryPolicy
from sparkify.errors import may_pass

if TYPE_CHECKING:
    from airflow.sdk import Context

FIRST_DELAY = timedelta(seconds=15)
LONGEST_DELAY = timedelta(minutes=15)


class TransientErrorRetryPolicy(RetryPolicy):
    """
    Retry transient errors with exponential backoff, and fail at once if a person has to act.

    Lost connections, conflicts of transactions and throttling are transient. Bad data, missing permissions
    and wrong settings are not. Other errors take the task's own ``retries`` and ``retry_delay``.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: "Context | None" = None
    ) -> RetryDecision:
        """
        Decide about one failure.

        :param exception: what the task raised
        :param try_number: the try that failed, from 1
        :param max_tries: the number of the last retry, counted from 0
        :param context: the task's context
        """
        transient = may_pass(exception)
        if transient is None:
            return RetryDecision.default()
        if not transient:
            return RetryDecision.fail("A retry would fail the same way.")
        if try_number > max_tries:
            return RetryDecision.retry(reason="No tries are left.")
        # Clearing a task leaves its try number, and adds its retries to it for the new max_tries
        # (airflow.models.taskinstance.clear_task_instances).
        before = max_tries - (context["task"].retries or 0) if context else 0
        delay = FIRST_DELAY * 4 ** min(max(try_number - before - 1, 0), 3)
        delay = min(delay, LONGEST_DELAY)
        return RetryDecision.retry(delay, f"The task tries again in {delay.total_seconds():.0f} seconds.")


#: The default argument of tasks that makes them follow the policy, if this release of Airflow has policies.
RETRY_POLICY: dict[str, Any] = {"retry_policy": TransientErrorRetryPolicy()} if HAS_RETRY_POLICIES else {}
