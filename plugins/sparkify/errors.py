"""Recognise and explain errors of the warehouse and of AWS, and decide which ones are transient."""

import logging
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)

from sparkify.advice import IAM_LOGIN, aws_advice, warehouse_advice
from sparkify.compat import AirflowException, AirflowFailException, AirflowNotFoundException
from sparkify.files import SourceError

log = logging.getLogger(__name__)

# Lost connections, conflicts of transactions, a lack of resources such as disk space or connections, a
# cancelled statement or a shutdown (https://www.postgresql.org/docs/current/errcodes-appendix.html).
TRANSIENT_SQLSTATES = ("08", "40", "53", "57")
# Redshift's own errors have no SQLSTATE of their own. These are conflicts of transactions: one that cannot be
# serialized, a table made after the transaction's snapshot, and an object that two transactions change
# (https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation-serializable-isolation-troubleshooting.html,
# https://github.com/aws/amazon-redshift-jdbc-driver/issues/147). The rest are a full disk and what COPY says
# of S3: throttled or broken (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html), or without
# an object that was there when the manifest was written; the next try writes a new one.
_TRANSIENT_MESSAGE = re.compile(
    r"^(1023|1018|could not complete because of conflict with concurrent transaction|Disk Full)"
    r"|Status 5\d\d\b|Error (SlowDown|InternalError|ServiceUnavailable|RequestTimeout)\b|S3CurlException"
    r"|Error NoSuchKey\b|Mandatory url is not present in manifest",
    re.IGNORECASE,
)
# A driver's own errors are transient: it could not connect, or the connection broke. Not so these: the server
# is another one, or refuses the login (which psycopg2 reports without a SQLSTATE).
_REFUSED_MESSAGE = re.compile(
    r"certificate verify failed|hostname mismatch|refuses SSL|password authentication failed"
    r'|database "[^"]*" does not exist',
    re.IGNORECASE,
)
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_TRANSIENT_AWS_CODES = frozenset(
    {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"}
)
_PERMANENT_AWS_ERRORS = (NoRegionError, ParamValidationError, PartialCredentialsError)
DRIVERS = ("psycopg", "psycopg2", "redshift_connector")


class TransientError(AirflowException):
    """An error that may not come again: Airflow retries the task."""


@contextmanager
def explained(doing: str, conn_id: str | None) -> Iterator[None]:
    """
    Replace an error of the warehouse, of AWS or of a setting by one that says what happened and what to do.

    The new error has no cause, because Airflow's log would end with that: a driver's error shows the server's
    fields as a dict. Set the log level of this module to DEBUG to see it. Errors that are not understood,
    such as bugs, are re-raised as they are.

    :param doing: what failed; the message begins with it
    :param conn_id: the warehouse's connection
    :raises TransientError: if a retry may succeed
    :raises AirflowFailException: if a person has to act first, so that the task fails at once
    """
    try:
        yield
    except AirflowNotFoundException as error:  # The conn_id `…` isn't defined
        name = re.search(r"`(.+)`", str(error))
        raise AirflowFailException(
            f"{doing} failed: the Airflow connection {name[1] if name else conn_id} does not exist."
            " Create it as .env.example shows."
        ) from None
    except AirflowException as error:  # one of ours, which says all
        log.debug("What led to the error", exc_info=True)
        error.__cause__, error.__suppress_context__ = None, True
        raise
    except Exception as error:
        transient = may_pass(error)
        if transient is None:
            raise
        log.debug("What led to the error", exc_info=True)
        message = f"{doing} failed{_explanation(error, conn_id)}"
        if transient:
            raise TransientError(
                f"{message} This is often transient, so Airflow retries the task. If no tries are left,"
                " clear it."
            ) from None
        raise AirflowFailException(message) from None


def _explanation(error: Exception, conn_id: str | None) -> str:
    if isinstance(error, ClientError) and "Credentials" in error.operation_name:
        said = f" on connection '{conn_id}': {aws_advice(error, IAM_LOGIN, 'the warehouse')}"
    elif isinstance(error, ClientError | BotoCoreError):
        action = f"s3:{error.operation_name}" if isinstance(error, ClientError) else "s3:*"
        said = f": {aws_advice(error, action, 'the bucket')}"
    elif is_database_error(error):
        message = error_message(error)
        advice = warehouse_advice(message, sqlstate(error))
        said = f" on connection '{conn_id}': " + ". ".join(filter(None, [message.rstrip("."), advice]))
    elif isinstance(error, JSONDecodeError):
        said = f": an answer is not JSON, and may have been truncated ({error})"
    else:
        said = f": {error}"
    return said if said.endswith(("?", "!", ".")) else f"{said}."


def is_database_error(error: BaseException) -> bool:
    """
    Return whether an exception is a database driver's, by PEP 249's name for the root of its exceptions.

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
    Return the message of an error, without the driver's wrapping.

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


def without_address(message: str) -> str:
    """
    Return a message up to the address of an S3 object, whose name could be taken for what went wrong.

    :param message: the message of an error
    """
    return re.sub(r"s3://.*", "", message)


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
    Return whether an error is transient, None if that is not known.

    :param error: what was raised
    """
    if isinstance(error, TransientError):
        return True
    if isinstance(error, SourceError):
        return error.__cause__ is not None and bool(may_pass(error.__cause__))
    if isinstance(error, JSONDecodeError | UnicodeDecodeError):
        return True  # of an answer of S3 that was cut off
    if isinstance(error, ValueError | AirflowNotFoundException):
        return False
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error.response["Error"]["Code"] in _TRANSIENT_AWS_CODES or status >= 500
    if isinstance(error, BotoCoreError):
        return not isinstance(error, _PERMANENT_AWS_ERRORS)
    if isinstance(error, ConnectionError | TimeoutError):
        return True  # of a driver, or of a session that was silent
    if is_database_error(error):
        message, state = without_address(error_message(error)), sqlstate(error)
        if state:
            return state.startswith(TRANSIENT_SQLSTATES) or bool(_TRANSIENT_MESSAGE.search(message))
        by_driver = type(error).__name__ in ("InterfaceError", "OperationalError", "error")
        return by_driver and not _REFUSED_MESSAGE.search(message)
    return None
