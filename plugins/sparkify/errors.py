"""Errors of the warehouse, whichever driver raises them: how to know one, and how to tell it to a person."""

import logging
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from sparkify.advice import warehouse_advice
from sparkify.files import SourceError

log = logging.getLogger(__name__)

DRIVERS = ("psycopg", "psycopg2", "redshift_connector")


@contextmanager
def explained(doing: str, conn_id: str | None) -> Iterator[None]:
    """
    Log one plain line before an error of the warehouse, of the source or of a setting goes on its way.

    :param doing: what failed, to begin the line with
    :param conn_id: the warehouse's connection
    """
    try:
        yield
    except (SourceError, ValueError) as error:
        log.error("%s failed: %s", doing, error)
        raise
    except Exception as error:
        if not is_database_error(error):
            raise
        message = error_message(error)
        advice = warehouse_advice(message)
        if not advice and sqlstate(error) is None:
            advice = "Is the warehouse running, and are the connection's host, port and user right?"
        log.error(
            "%s failed on connection '%s': %s%s", doing, conn_id, message, f". {advice}" if advice else ""
        )
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


def error_message(error: Exception) -> str:
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
