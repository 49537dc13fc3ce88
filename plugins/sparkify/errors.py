"""Errors of the warehouse, whichever driver raises them: how to know one, and how to tell it to a person."""

import logging
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from sparkify.advice import warehouse_advice
from sparkify.compat import HAS_RETRY_POLICIES, AirflowFailException
from sparkify.files import SourceError

log = logging.getLogger(__name__)

# Lost connections, too many connections, a shutdown, serialization failures and deadlocks
# (https://www.postgresql.org/docs/current/errcodes-appendix.html).
PASSING_SQLSTATES = ("08", "40", "53300", "57P")
# Redshift's own conflicts of transactions, which have no SQLSTATE of their own: one that cannot be
# serialized, a table made after the transaction's snapshot, and an object that two transactions change
# (https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation-serializable-isolation-troubleshooting.html,
# https://github.com/aws/amazon-redshift-jdbc-driver/issues/147).
PASSING_MESSAGES = ("1023", "1018", "could not complete because of conflict with concurrent transaction")
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
PASSING_AWS_CODES = frozenset(
    {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"}
)
DRIVERS = ("psycopg", "psycopg2", "redshift_connector")


@contextmanager
def explained(doing: str, conn_id: str | None) -> Iterator[None]:
    """
    Log one plain line before an error of the warehouse, of the source or of a setting goes on its way.

    An error that only a person can mend fails the task at once, where no retry policy sees to that.

    :param doing: what failed, to begin the line with
    :param conn_id: the warehouse's connection
    :raises AirflowFailException: in place of such an error
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (SourceError, ValueError)):
            log.error("%s failed: %s", doing, error)
        elif is_database_error(error):
            message = error_message(error)
            advice = warehouse_advice(message)
            if not advice and sqlstate(error) is None:
                advice = "Is the warehouse running, and are the connection's host, port and user right?"
            log.error(
                "%s failed on connection '%s': %s%s", doing, conn_id, message, f". {advice}" if advice else ""
            )
        if may_pass(error) is False and not HAS_RETRY_POLICIES:
            raise AirflowFailException(f"{doing} failed: {error_message(error)}") from error
        raise


def is_database_error(error: BaseException) -> bool:
    """
    Tell whether an exception is a database driver's, by PEP 249's name for the root of its exceptions.

    The connection picks the hook, and the hook its driver: redshift_connector, psycopg2 or psycopg.

    redshift_connector lets a ``struct.error`` through when the connection closes under it.

    :param error: any exception
    """
    if isinstance(error, struct.error):
        return True
    roots = [parent for parent in type(error).__mro__ if parent.__name__ == "Error"]
    return any(root.__module__.split(".")[0] in DRIVERS for root in roots)


def error_message(error: BaseException) -> str:
    """
    Return what a database error says, without the driver's wrapping.

    :param error: an error of psycopg2, or of redshift_connector, which raises the server's fields as a dict
    """
    if error.args and isinstance(error.args[0], dict):
        fields = dict(error.args[0])
        # Redshift's details repeat the message, among numbers of its source code, and add one line of use.
        context = re.search(r"^\s*context:\s*(.+?)\s*$", str(fields.get("D", "")), re.MULTILINE)
        if context:
            fields["D"] = context[1]
        return ". ".join(str(fields[name]) for name in ("M", "D", "H") if fields.get(name))
    return ": ".join(str(arg).strip() for arg in error.args)


def sqlstate(error: BaseException) -> str | None:
    """
    Return the SQLSTATE of a database error, None if it comes from the driver and not from the server.

    :param error: of psycopg2, psycopg, or redshift_connector, which raises the server's fields as a dict
    """
    if error.args and isinstance(error.args[0], dict):
        return error.args[0].get("C")
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


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
            return state.startswith(PASSING_SQLSTATES) or error_message(error).startswith(PASSING_MESSAGES)
        # The driver itself: it could not connect, or the connection broke.
        return type(error).__name__ in ("InterfaceError", "OperationalError", "error")
    return None
