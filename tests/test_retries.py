import json
import re
import struct
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest
import redshift_connector
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    IncompleteReadError,
    NoRegionError,
    ResponseStreamingError,
)

from sparkify.compat import HAS_RETRY_POLICIES, AirflowFailException, AirflowNotFoundException
from sparkify.errors import TransientError, explained, may_pass
from sparkify.files import SourceError
from sparkify.retries import TransientErrorRetryPolicy

CONFLICTS = [
    {"C": "XX000", "M": "1023", "D": "Serializable isolation violation on table - 1, ..."},
    {"C": "XX000", "M": "1018", "D": "Relation does not exist"},
    {"C": "XX000", "M": "could not complete because of conflict with concurrent transaction"},
]
REQUEST = "Rid 9D4F,ExtRid x3sF,CanRetry 1"
S3_TROUBLES = [
    f"S3ServiceException:Please reduce your request rate.,Status 503,Error SlowDown,{REQUEST}",
    f"S3ServiceException:We encountered an internal error.,Status 500,Error InternalError,{REQUEST}",
    f"S3ServiceException:Service is unable to handle request.,Status 503,Error ServiceUnavailable,{REQUEST}",
    "S3CurlException: Connection timed out, CurlError 28, multiCurlError 0, CanRetry 1, UserError 0",
    f"S3ServiceException:The specified key does not exist.,Status 404,Error NoSuchKey,{REQUEST}",
    "Mandatory url is not present in manifest file",
]
S3_REFUSALS = [
    f"S3ServiceException:Access Denied,Status 403,Error AccessDenied,{REQUEST}",
    f"S3ServiceException:The specified bucket does not exist,Status 404,Error NoSuchBucket,{REQUEST}",
    "S3ServiceException: no 1023",
]
TRANSIENT_STATES = ["57014", "53100", "53300", "57P01", "40001", "40P01", "08006"]
PERMANENT_STATES = ["42703", "42P01", "28P01", "22012", "42501"]


class Psycopg2Error(psycopg2.InternalError):
    pgcode = "XX000"


def aws(code, status=400):
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "ListObjectsV2")


def caused(error, cause):
    error.__cause__ = cause
    return error


def redshift(message, state="XX000", **details):
    return redshift_connector.ProgrammingError({"S": "ERROR", "C": state, "M": message, **details})


def truncated_json():
    with pytest.raises(json.JSONDecodeError) as cut:
        json.loads('{"objects": [{"key": "a')
    return cut.value


TRANSIENT = [
    redshift_connector.InterfaceError("communication error", ConnectionRefusedError(111)),
    redshift_connector.InterfaceError("BrokenPipe: server socket closed"),
    redshift_connector.OperationalError("connection time out", TimeoutError()),
    struct.error("unpack_from requires a buffer of at least 5 bytes"),
    ConnectionResetError(104, "Connection reset by peer"),
    psycopg2.OperationalError("server closed the connection unexpectedly"),
    *(redshift_connector.ProgrammingError(conflict) for conflict in CONFLICTS),
    Psycopg2Error("1023\nDETAIL:  Serializable isolation violation on table - 1, ..."),
    *(redshift("Load failed", D=f"context: {trouble}") for trouble in S3_TROUBLES),
    *(Psycopg2Error(trouble) for trouble in S3_TROUBLES),
    *(redshift("a message", state) for state in TRANSIENT_STATES),
    redshift("Disk Full"),
    *(aws(code) for code in ("SlowDown", "InternalError", "ThrottlingException")),
    aws("503", status=503),
    caused(SourceError("Cannot list"), aws("SlowDown", status=503)),
    caused(SourceError("Cannot list"), EndpointConnectionError(endpoint_url="http://s3")),
    EndpointConnectionError(endpoint_url="http://s3"),
    IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ResponseStreamingError(error="broken"),
    truncated_json(),
]
PERMANENT = [
    *(redshift("Load failed", D=f"context: {refusal}") for refusal in S3_REFUSALS),
    *(redshift("a message", state) for state in PERMANENT_STATES),
    redshift_connector.InterfaceError("communication error", OSError("certificate verify failed")),
    psycopg2.OperationalError('FATAL:  password authentication failed for user "u"'),
    aws("AccessDenied", status=403),
    caused(SourceError("no such bucket"), aws("NoSuchBucket", status=404)),
    SourceError("Nothing lies below"),
    NoRegionError(),
    ValueError("not the ARN of an IAM role"),
    AirflowNotFoundException("The conn_id `redshift` isn't defined"),
]


needs_policies = pytest.mark.skipif(not HAS_RETRY_POLICIES, reason="Airflow has retry policies from 3.3 on")


def name(error):
    return f"{type(error).__name__}: {error}"[:60]


@pytest.mark.parametrize("error", TRANSIENT, ids=name)
def test_a_transient_error_is_retried(error):
    assert may_pass(error)
    with pytest.raises(TransientError, match="Staging failed") as raised, explained("Staging", "r"):
        raise error
    assert "Airflow retries the task" in str(raised.value)
    if HAS_RETRY_POLICIES:
        assert TransientErrorRetryPolicy().evaluate(raised.value, 1, 3).action.value == "retry"
        assert TransientErrorRetryPolicy().evaluate(error, 1, 3).action.value == "retry"


@pytest.mark.parametrize("error", PERMANENT, ids=name)
def test_an_error_that_a_person_must_act_upon_fails_the_task_at_once(error):
    assert may_pass(error) is False
    # Airflow never retries after it, with or without a retry policy.
    with pytest.raises(AirflowFailException, match="Staging failed"), explained("Staging", "r"):
        raise error
    if HAS_RETRY_POLICIES:  # raised outside, such as when a template is rendered
        assert TransientErrorRetryPolicy().evaluate(error, 1, 3).action.value == "fail"


def test_a_bug_keeps_its_traceback_and_takes_the_retries_of_the_task():
    assert may_pass(KeyError("a bug")) is None
    with pytest.raises(KeyError), explained("Staging", "r"):
        raise KeyError("a bug")
    if HAS_RETRY_POLICIES:
        assert TransientErrorRetryPolicy().evaluate(KeyError("a bug"), 1, 3).action.value == "default"


@pytest.mark.parametrize("error", [*TRANSIENT, *PERMANENT], ids=name)
def test_an_explained_error_has_no_cause_that_a_log_would_end_with(error):
    with pytest.raises((TransientError, AirflowFailException)) as raised, explained("Staging", "r"):
        raise error
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert not re.search(r"[{}]", str(raised.value))


def test_an_error_of_ours_loses_its_cause():
    with pytest.raises(AirflowFailException) as raised, explained("Staging", "r"):
        raise AirflowFailException("COPY rejected 3 rows") from redshift("Check 'stl_load_errors'")
    assert str(raised.value) == "COPY rejected 3 rows"
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def delay(try_number, max_tries, retries=3):
    context: Any = {"task": SimpleNamespace(retries=retries)}
    decision = TransientErrorRetryPolicy().evaluate(aws("SlowDown"), try_number, max_tries, context)
    return decision.retry_delay and decision.retry_delay.total_seconds(), decision.reason


@needs_policies
def test_delays_grow_up_to_15_minutes():
    assert [delay(number, 9, retries=9)[0] for number in range(1, 10)] == [15, 60, 240, *[900] * 6]
    assert delay(1, 3)[1] == "The task tries again in 15 seconds."


@needs_policies
def test_delays_start_again_when_a_task_is_cleared():
    # As Airflow counts: tries 1 to 4 failed and the task was cleared, so that tries 5 to 8 follow.
    assert [delay(number, 4 + 3)[0] for number in (5, 6, 7)] == [15, 60, 240]


@needs_policies
def test_after_the_last_try_nothing_says_that_another_one_follows():
    assert delay(4, 3) == (None, "No tries are left.")


def test_an_unreachable_warehouse_is_an_error_without_a_sqlstate():
    with pytest.raises(psycopg2.OperationalError) as refused:
        psycopg2.connect("postgresql://u@127.0.0.1:1/d")
    assert may_pass(refused.value)
