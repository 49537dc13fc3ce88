"""How long to wait before a failed task is tried again."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sparkify.compat import HAS_RETRY_POLICIES, RetryDecision, RetryPolicy
from sparkify.errors import may_pass

if TYPE_CHECKING:
    from airflow.sdk import Context

FIRST_DELAY = timedelta(seconds=15)


class TransientErrorRetryPolicy(RetryPolicy):
    """
    Retry what may pass by itself, at growing distances; fail at once what only a person can mend.

    Lost connections, conflicts of transactions and throttling pass. Bad data, missing permissions and wrong
    settings do not. What is neither takes the task's own ``retries`` and ``retry_delay``.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: "Context | None" = None
    ) -> RetryDecision:
        """
        Decide about one failure.

        :param exception: what the task raised
        :param try_number: the try that failed, from 1
        :param max_tries: how many tries the task has
        :param context: the task's context
        """
        passes = may_pass(exception)
        if passes is None:
            return RetryDecision.default()
        if not passes:
            return RetryDecision.fail("a retry would fail the same way")
        return RetryDecision.retry(FIRST_DELAY * 4 ** (try_number - 1), "this may pass by itself")


#: The default argument of tasks that makes them follow the policy, if this release of Airflow has policies.
RETRY_POLICY: dict[str, Any] = {"retry_policy": TransientErrorRetryPolicy()} if HAS_RETRY_POLICIES else {}
