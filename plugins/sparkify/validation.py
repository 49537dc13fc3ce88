"""Check the settings of a run: its Airflow variables, and the connection to the warehouse."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from itertools import combinations
from typing import Any

from airflow.exceptions import AirflowNotFoundException
from airflow.sdk import Connection

from sparkify.alerts import target, targets
from sparkify.copies import MOST_ERRORS
from sparkify.files import split_url
from sparkify.notifications import queue
from sparkify.sql import aws_region, identifier, literal, role

PREFIXES = ("sparkify_log_data", "sparkify_song_data", "sparkify_work_prefix")
REQUIRED = (*PREFIXES, "sparkify_iam_role", "sparkify_s3_region")


def check_settings(settings: Mapping[str, str], conn_id: str) -> None:
    """
    Check all settings of a run. Call this before anything is listed, loaded or deleted.

    :param settings: the Airflow variables, by name; empty if a variable does not exist
    :param conn_id: the warehouse's connection
    :raises ValueError: names each wrong setting on a line of its own, with what to set
    """
    problems = [*_wrong_values(settings), *_overlaps(settings), *_wrong_extra(conn_id)]
    if problems:
        raise ValueError("\n".join(problems))


def _wrong_values(settings: Mapping[str, str]) -> Iterator[str]:
    for name, (parse, form) in _FORMS.items():
        value = settings[name]
        if not value and name in REQUIRED:
            yield (
                f"The Airflow variable {name} does not exist or is empty. Create it as .env.example shows."
            )
        elif value or name == "sparkify_max_rejected_rows":
            try:
                parse(value)
            except ValueError:
                yield f"{name} is {value!r}: set {form}."
    try:
        for each in targets(settings["sparkify_alerts"]):
            target(each)
    except ValueError as error:  # its text shows no more of the value than may be logged
        yield f"sparkify_alerts: {error}."


def _count_of_rows(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_ERRORS:
        raise ValueError(text)
    return int(text)


#: What reads a variable's value, and the form that it takes.
_FORMS: dict[str, tuple[Callable[[str], Any], str]] = {
    **{name: (split_url, "an S3 address, s3://bucket/prefix/") for name in PREFIXES[:2]},
    "sparkify_work_prefix": (
        lambda url: split_url(literal(url).strip("'")),  # COPY names manifests below it
        "an S3 address, s3://bucket/prefix/, without quotes and backslashes",
    ),
    "sparkify_iam_role": (
        role,
        "the ARN of an IAM role, such as arn:aws:iam::123456789012:role/name, or default",
    ),
    "sparkify_s3_region": (aws_region, "the name of an AWS region, such as us-west-2"),
    "sparkify_max_rejected_rows": (_count_of_rows, f"a number from 0 to {MOST_ERRORS}"),
    "sparkify_schema": (identifier, "a lower-case SQL identifier"),
    "sparkify_analysts_role": (identifier, "a lower-case SQL identifier"),
    "sparkify_queue_url": (
        queue,
        "the URL of a standard SQS queue, https://sqs.<region>.amazonaws.com/<account>/<name>",
    ),
}


def _overlaps(settings: Mapping[str, str]) -> Iterator[str]:
    """
    Report prefixes that share objects: these would be loaded into two tables.

    The work prefix may hold no input either: its files may expire.
    """
    for pair in combinations([name for name in PREFIXES if settings[name]], 2):
        outer, inner = sorted(pair, key=lambda name: len(settings[name]))
        if settings[outer] == settings[inner]:
            yield f"{' and '.join(pair)} are both {settings[outer]}. Set prefixes that do not overlap."
        elif settings[inner].startswith(settings[outer]):
            yield (
                f"{inner} ({settings[inner]}) lies below {outer} ({settings[outer]})."
                " Set prefixes that do not overlap."
            )


def _wrong_extra(conn_id: str) -> Iterator[str]:
    """
    Report what the driver would refuse: Airflow's hook hands it each key of the extra as an argument.

    https://airflow.apache.org/docs/apache-airflow-providers-amazon/stable/connections/redshift.html
    """
    try:
        connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        yield f"The connection {conn_id} does not exist. Create it as .env.example shows."
        return
    if connection.conn_type != "redshift":
        return
    from redshift_connector import connect  # costs time, which no parsing of a DAG needs

    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None  # Airflow would go on without it, and thus without its TLS settings
    if not isinstance(extra, dict):
        yield f"The extra of the connection {conn_id} is not a JSON object. Correct it as .env.example shows."
        return
    known = inspect.signature(connect).parameters
    for key in sorted(extra.keys() - known.keys()):
        nearest = get_close_matches(key, known, 1)
        yield (
            f"The extra of the connection {conn_id} has the key {key!r}, which Amazon's driver does not know."
            + (f" Write {nearest[0]!r}, or remove it." if nearest else " Remove it.")
        )
