"""The parameters of a run, which the trigger form shows, and which of them are refused."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from airflow.sdk import Param

from sparkify.compat import HAS_PAGES
from sparkify.links import pipeline_view
from sparkify.sql import utc

_QUARANTINED_FILES = f"[quarantined files]({pipeline_view()})" if HAS_PAGES else "quarantined files"

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
        description_md="Load all files again whose address begins with this, such as"
        " `s3://bucket/log_data/2018/11/`. Their songs and artists replace those that are stored; so do their"
        " users, unless what is stored is later than all of these files. This also loads"
        f" {_QUARANTINED_FILES}, given the address of one.",
    ),
    "replace_from": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Replace plays from",
        description="Delete the plays from this time on before loading; for files that lost lines. The files"
        " to reload must have plays in every hour of the window that has any.",
    ),
    "replace_to": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Replace plays to",
        description="… up to and without this time.",
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


def check_reload_prefix(params: Mapping[str, Any], urls: Sequence[str]) -> None:
    """
    Check that there are files to reload.

    :param params: the DAG run's parameters
    :param urls: ``s3://bucket/key`` of all files below the inputs' prefixes
    :raises ValueError: if reload_prefix is given, and matches none of them
    """
    prefix = params["reload_prefix"]
    if not prefix or any(wanted_again(url, params) for url in urls):
        return
    folder = prefix
    while folder and not any(url.startswith(folder) for url in urls):
        folder = folder[: folder.rstrip("/").rfind("/") + 1]
    inside = [url.removeprefix(folder) for url in urls if url.startswith(folder)]
    names = {name[: name.find("/") + 1] or name for name in inside}
    closest = sorted(get_close_matches(prefix.removeprefix(folder), names, n=3, cutoff=0))
    raise ValueError(
        f"reload_prefix {prefix} matches no file, so nothing was changed. The nearest prefix that matches any"
        f" is {folder} ({len(inside)} files), below which there is {', '.join(closest)}. Correct"
        " reload_prefix, and trigger a new run"
    )


def wanted_again(url: str, params: Mapping[str, Any]) -> bool:
    """
    Tell whether an object is to be staged whatever the ledger says.

    :param url: ``s3://bucket/key`` of the object
    :param params: the DAG run's parameters
    """
    return bool(params["reload_prefix"]) and url.startswith(params["reload_prefix"])
