import struct
from datetime import timedelta

import psycopg2
import pytest
import redshift_connector
from botocore.exceptions import ClientError, EndpointConnectionError

from sparkify.compat import HAS_RETRY_POLICIES, AirflowFailException
from sparkify.errors import explained, may_pass
from sparkify.files import SourceError
from sparkify.retries import TransientErrorRetryPolicy

CONFLICTS = [
    {"C": "XX000", "M": "1023", "D": "Serializable isolation violation on table - 1, ..."},
    {"C": "XX000", "M": "1018", "D": "Relation does not exist"},
    {"C": "XX000", "M": "could not complete because of conflict with concurrent transaction"},
]


class Psycopg2Error(psycopg2.InternalError):
    pgcode = "XX000"


def aws(code):
    return ClientError({"Error": {"Code": code}}, "ListObjectsV2")


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (redshift_connector.InterfaceError("communication error", ConnectionRefusedError(111)), "retry"),
        (struct.error("unpack_from requires a buffer of at least 5 bytes"), "retry"),
        (psycopg2.OperationalError("server closed the connection unexpectedly"), "retry"),
        *((redshift_connector.ProgrammingError(conflict), "retry") for conflict in CONFLICTS),
        (Psycopg2Error("1023\nDETAIL:  Serializable isolation violation on table - 1, ..."), "retry"),
        (redshift_connector.ProgrammingError({"C": "57P01", "M": "terminating connection"}), "retry"),
        (redshift_connector.ProgrammingError({"C": "40001", "M": "could not serialize"}), "retry"),
        (aws("SlowDown"), "retry"),
        (EndpointConnectionError(endpoint_url="http://s3"), "retry"),
        (caused(SourceError("Cannot list"), EndpointConnectionError(endpoint_url="http://s3")), "retry"),
        (redshift_connector.ProgrammingError({"C": "XX000", "M": "S3ServiceException: no 1023"}), "fail"),
        (redshift_connector.ProgrammingError({"C": "42703", "M": "column does not exist"}), "fail"),
        (redshift_connector.ProgrammingError({"C": "28P01", "M": "password authentication failed"}), "fail"),
        (redshift_connector.ProgrammingError({"C": "22012", "M": "division by zero"}), "fail"),
        (aws("AccessDenied"), "fail"),
        (caused(SourceError("no such bucket"), aws("NoSuchBucket")), "fail"),
        (ValueError("not the ARN of an IAM role"), "fail"),
        (KeyError("a bug"), "default"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_may_pass_is_retried_and_what_a_person_must_mend_fails_at_once(error, action):
    assert may_pass(error) is {"retry": True, "fail": False, "default": None}[action]
    if HAS_RETRY_POLICIES:
        assert TransientErrorRetryPolicy().evaluate(error, 1, 3).action.value == action


def test_without_retry_policies_what_a_person_must_mend_fails_the_task_at_once(monkeypatch):
    monkeypatch.setattr("sparkify.errors.HAS_RETRY_POLICIES", False)
    refused = redshift_connector.ProgrammingError({"C": "28P01", "M": "password authentication failed"})
    for error in (refused, aws("AccessDenied"), ValueError("not the ARN of an IAM role")):
        with (
            pytest.raises(AirflowFailException, match="Staging failed: ") as failure,
            explained("Staging", "r"),
        ):
            raise error
        assert failure.value.__cause__ is error
    for error in (redshift_connector.InterfaceError("reset"), aws("SlowDown"), KeyError("a bug")):
        with pytest.raises(type(error)), explained("Staging", "r"):
            raise error


@pytest.mark.skipif(not HAS_RETRY_POLICIES, reason="Airflow has retry policies from 3.3 on")
def test_retries_come_later_each_time():
    broken = redshift_connector.InterfaceError("connection reset")
    delays = [TransientErrorRetryPolicy().evaluate(broken, number, 3).retry_delay for number in (1, 2, 3)]
    assert delays == [timedelta(seconds=15), timedelta(seconds=60), timedelta(seconds=240)]


def test_an_unreachable_warehouse_is_an_error_without_a_sqlstate():
    with pytest.raises(psycopg2.OperationalError) as refused:
        psycopg2.connect("postgresql://u@127.0.0.1:1/d")
    assert may_pass(refused.value)
