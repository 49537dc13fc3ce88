"""Which failures a retry can heal, and how long to wait for it."""

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
from botocore.exceptions import BotoCoreError, ClientError

from sparkify.errors import is_database_error, sqlstate
from sparkify.files import SourceError

if TYPE_CHECKING:
    from airflow.sdk import Context

# Lost connections, too many connections, a shutdown, serialization failures and deadlocks
# (https://www.postgresql.org/docs/current/errcodes-appendix.html).
PASSING_SQLSTATES = ("08", "40", "53300", "57P")
# Redshift's own conflict of two transactions, which has no SQLSTATE of its own
# (https://repost.aws/knowledge-center/redshift-serializable-isolation).
SERIALIZABLE_ISOLATION_VIOLATION = "1023"
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
PASSING_AWS_CODES = frozenset(
    {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"}
)
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


def may_pass(error: BaseException) -> bool | None:
    """
    Tell whether an error may pass without anybody's doing.

    :param error: what was raised
    :return: None if that is not known
    """
    if isinstance(error, (SourceError, ValueError)):
        return isinstance(error.__cause__, BotoCoreError)
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"] in PASSING_AWS_CODES
    if isinstance(error, BotoCoreError):
        return True
    if is_database_error(error):
        state = sqlstate(error)
        if state:
            return state.startswith(PASSING_SQLSTATES) or SERIALIZABLE_ISOLATION_VIOLATION in str(error)[:200]
        # The driver itself: it could not connect, or the connection broke.
        return type(error).__name__ in ("InterfaceError", "OperationalError", "error")
    return None
