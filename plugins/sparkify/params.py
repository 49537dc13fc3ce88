"""What a run may be told in the trigger form."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from airflow.sdk import Param

from sparkify.sql import utc

PARAMS = {
    "check_ledger": Param(
        False,
        type="boolean",
        title="Check the ledger",
        description="Ask the warehouse which files it has, even if S3 looks as the last run left it.",
    ),
    "reload_prefix": Param(
        None,
        type=["null", "string"],
        pattern="^s3://.",
        title="Reload files below",
        description="Load all files whose address begins so again, such as s3://bucket/log_data/2018/11/.",
    ),
    "replace_from": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Replace plays from",
        description="Delete the plays from this time on before loading; for files that lost lines.",
    ),
    "replace_to": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Replace plays to",
        description="… up to and without this time. The files to reload must hold all plays in between.",
    ),
    "dry_run": Param(
        False,
        type="boolean",
        title="Dry run",
        description="Only show, in the log of find_new_files, what would be loaded.",
    ),
}


def check_params(params: Mapping[str, Any]) -> None:
    """
    Check what the trigger form's schema cannot: that each parameter exists, and how they go together.

    :param params: the DAG run's parameters, and what else a trigger by the API or the command line gave
    :raises ValueError: if one does not exist, or they contradict each other
    """
    for name in sorted(params.keys() - PARAMS.keys()):
        nearest = get_close_matches(name, PARAMS, 1)
        raise ValueError(
            f"The DAG has no parameter {name!r}. "
            + (f"Did you mean {nearest[0]!r}? " if nearest else "")
            + f"Trigger a new run: the parameters are {', '.join(PARAMS)}"
        )
    if not params["replace_from"] and not params["replace_to"]:
        return
    if not params["replace_from"] or not params["replace_to"]:
        raise ValueError("replace_from and replace_to go together: give both or none")
    if not params["reload_prefix"]:
        raise ValueError(
            "replace_from and replace_to delete plays: give reload_prefix, whose files hold them"
        )
    if utc(params["replace_from"]) >= utc(params["replace_to"]):
        raise ValueError("replace_from must be before replace_to")


def wanted_again(url: str, params: Mapping[str, Any]) -> bool:
    """
    Tell whether an object is to be staged whatever the ledger says.

    :param url: ``s3://bucket/key`` of the object
    :param params: the DAG run's parameters
    """
    return bool(params["reload_prefix"]) and url.startswith(params["reload_prefix"])
