"""What the daily audit compares beside the checks of ``include/checks``: the warehouse with its files."""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import Connection

from sparkify.checks import Check
from sparkify.errors import explained
from sparkify.files import S3Object, list_prefix, s3_hook, split_url
from sparkify.findings import MOST_EXAMPLES, Finding, conclude
from sparkify.ledger import LEDGER, ledger_exists, recorded_versions, unrecorded_objects
from sparkify.rejects import REJECTED_ROWS, read_values, texts_of
from sparkify.sql import fresh

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

log = logging.getLogger(__name__)

#: A play by its session and its number in it, and what is said of it: the columns below.
Play = tuple[int, int]
Said = tuple[Any, ...]
COLUMNS = "start_time, user_id, level, song_title, artist_name, duration"

EPOCH = datetime(1970, 1, 1)
OVERDUE = timedelta(days=1)
SAMPLED_FILES = 5

VANISHED = Check(
    f"{LEDGER}: every recorded file is still on S3",
    sql="",
    severity="warn",
    advice="If the source archives its files, nothing. Else ask it: what is gone cannot be loaded again.",
)
NOT_LOADED = Check(
    f"{LEDGER}: every file that is older than a day is loaded",
    sql="",
    advice="Is sparkify_etl paused, or do its runs fail? Else trigger it with check_ledger.",
)
LOST = Check(
    "fact_songplays: every play of the sampled files is there",
    sql="",
    advice="Trigger sparkify_etl with the address of these files as reload_prefix: it loads what is missing.",
)
DIFFERENT = Check(
    "fact_songplays: every play of the sampled files is as they say",
    sql="",
    severity="warn",
    advice="A newer file may have corrected these plays. Else find out what has changed them, and trigger"
    " sparkify_etl with the address of these files as reload_prefix.",
)


def no_load_is_running(ti: "RuntimeTaskInstanceProtocol", dag_id: str) -> bool:
    """
    Tell whether no run of a DAG is running: between its tasks, tables do not agree with each other.

    :param ti: the task instance that asks
    :param dag_id: the DAG
    """
    return not ti.get_dr_count(dag_id=dag_id, states=["running"])


def anything_to_audit(conn_id: str) -> bool:
    """
    Tell whether there are tables yet.

    :param conn_id: the warehouse
    """
    with explained("Looking for tables", conn_id):
        return ledger_exists(Connection.get(conn_id).get_hook())


def compare_ledger(
    prefixes: Mapping[str, str], conn_id: str, aws_conn_id: str, **context: Any
) -> dict[str, int]:
    """
    Compare the ledger with S3: recorded files that vanished, and files that have not been loaded for a day.

    :param prefixes: ``s3://bucket/prefix`` of each dataset, by its staging table
    :param conn_id: the warehouse
    :param aws_conn_id: the AWS connection that lists the prefixes
    :param context: the rest of the task's context
    :return: for XCom: the number of files that broke each check, by its name
    :raises AirflowFailException: if a file is overdue
    """
    vanished: list[str] = []
    overdue: list[str] = []
    recorded_files = listed_files = 0
    due_before = datetime.now(UTC).replace(tzinfo=None) - OVERDUE
    with explained("Comparing the ledger with S3", conn_id):
        s3, hook = s3_hook(aws_conn_id), Connection.get(conn_id).get_hook()
        for dataset, prefix in prefixes.items():
            objects = list_prefix(s3, prefix).objects
            listed = {item.key for item in objects}
            bucket, key_prefix = split_url(prefix)
            versions = recorded_versions(hook, dataset)
            # The ledger does not hold buckets, and the prefix may have been another one.
            recorded = {key for key in versions if key.startswith(key_prefix)}
            vanished += [f"s3://{bucket}/{key}" for key in sorted(recorded - listed)]
            overdue += [
                f"{item.url}, of {item.last_modified} UTC"
                for item in objects
                if versions.get(item.key) != item.etag and item.last_modified < due_before
            ]
            recorded_files, listed_files = recorded_files + len(recorded), listed_files + len(objects)
        findings = [
            Finding(VANISHED, len(vanished), recorded_files, vanished[:MOST_EXAMPLES]),
            Finding(NOT_LOADED, len(overdue), listed_files, overdue[:MOST_EXAMPLES]),
        ]
    return conclude(findings, hook, cast("Context", context))


def compare_plays(prefix: str, conn_id: str, aws_conn_id: str, **context: Any) -> dict[str, int]:
    """
    Compare the plays of some files, read from S3, with those in the warehouse, day by day.

    The files are drawn anew for each run, so that in time each of them has its turn.

    :param prefix: ``s3://bucket/prefix`` of the events
    :param conn_id: the warehouse
    :param aws_conn_id: the AWS connection that reads the files
    :param context: the rest of the task's context
    :return: for XCom: the number of plays that broke each check, by its name
    :raises AirflowFailException: if a play is missing
    """
    lost: list[str] = []
    different: list[str] = []
    counts: Counter[str] = Counter()
    with explained("Comparing plays with their files", conn_id):
        s3, hook = s3_hook(aws_conn_id), Connection.get(conn_id).get_hook()
        objects = list_prefix(s3, prefix).objects
        unrecorded = set(unrecorded_objects(hook, "staging_events", objects))
        loaded = [item for item in objects if item not in unrecorded]
        for item in random.Random(context["run_id"]).sample(loaded, min(SAMPLED_FILES, len(loaded))):
            said = plays_of(s3, hook, item)
            found = find_plays(hook, said)
            for day in sorted({began.date() for began, *_ in said.values()}):
                of_day = [play for play, (began, *_) in said.items() if began.date() == day]
                gone = [play for play in of_day if play not in found]
                others = [play for play in of_day if play in found and found[play] != said[play]]
                account = (
                    f"{day}: {len(of_day)} plays in {item.url}, {len(gone)} of them missing, {len(others)}"
                    " different"
                )
                log.info("%s", account)
                lost += [f"{account}: {_name(gone)}"] if gone else []
                different += [f"{account}: {_name(others)}"] if others else []
                counts.update(plays=len(of_day), lost=len(gone), different=len(others))
        findings = [
            Finding(LOST, counts["lost"], counts["plays"], lost[:MOST_EXAMPLES]),
            Finding(DIFFERENT, counts["different"], counts["plays"], different[:MOST_EXAMPLES]),
        ]
    return conclude(findings, hook, cast("Context", context))


def _name(plays: list[Play]) -> str:
    """Return which plays they are, as far as they fit on a line."""
    named = ", ".join(f"session {session} item {number}" for session, number in plays[:MOST_EXAMPLES])
    return named if len(plays) <= MOST_EXAMPLES else f"{named}, …"


def plays_of(s3: "S3Hook", hook: "DbApiHook", file: S3Object) -> dict[Play, Said]:
    """
    Return the plays of a file, without those that were rejected; of copies, the one that is loaded.

    :param s3: the hook of the AWS connection
    :param hook: the warehouse's hook
    :param file: the file
    """
    rows = fresh(hook).get_records(
        f"SELECT line_number FROM {REJECTED_ROWS} WHERE s3_key = %s", parameters=[file.key]
    )
    rejected = {line_number for (line_number,) in map(tuple, rows)}
    plays: dict[Play, Said] = {}
    for value in read_values(s3, file.url):
        event = texts_of(value)
        if (
            value.last_line in rejected
            or event.get("page") != "NextSong"
            or not (event.get("userid") or "").strip()
        ):
            continue
        try:
            session, item, milliseconds = (
                int(event[name] or "") for name in ("sessionid", "iteminsession", "ts")
            )
            length = event.get("length")
            duration = None if length is None else float(length)
        except (KeyError, ValueError):  # COPY has rejected it, and its line is not known
            continue
        texts = (_trimmed(event.get(name)) for name in ("userid", "level", "song", "artist"))
        said = (EPOCH + timedelta(milliseconds=milliseconds), *texts, duration)
        plays[session, item] = max(plays.get((session, item), said), said, key=_rank)
    return plays


def _trimmed(text: str | None) -> str | None:
    """Return a text as it is loaded: without the blanks at its end, which Redshift does not see."""
    return None if text is None else text.rstrip(" ")


def _rank(said: Said) -> list[tuple[bool, Any]]:
    """Return what copies of a play are ordered by in ``transform/fact_songplays.sql``: NULL is least."""
    return [(value is not None, value) for value in said]


def find_plays(hook: "DbApiHook", plays: Mapping[Play, Said]) -> dict[Play, Said]:
    """
    Return what the warehouse says of plays; those that it has not are not there.

    Only what is not where it should be, by the sort key, is looked for everywhere.

    :param hook: the warehouse's hook
    :param plays: the plays, and what their file says of them
    """
    select = f"SELECT session_id, item_in_session, {COLUMNS} FROM fact_songplays WHERE"
    found: dict[Play, Said] = {}

    def look(condition: str, values: Iterable[Any]) -> None:
        for session, number, *said in fresh(hook).get_records(
            f"{select} {condition}", parameters=list(values)
        ):
            if (session, number) in plays:
                found[session, number] = tuple(said)

    if plays:
        times = [began for began, *_ in plays.values()]
        look("start_time BETWEEN %s AND %s", (min(times), max(times)))
    sessions = {session for session, _ in plays.keys() - found.keys()}
    if sessions:
        look(f"session_id IN ({', '.join(map(str, sorted(sessions)))})", ())
    return found
