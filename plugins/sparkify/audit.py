"""The daily audit: tables that are missing, and the warehouse compared with its files."""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import Connection

from sparkify.checks import Check
from sparkify.compat import AirflowException, AirflowFailException, asset_state
from sparkify.errors import explained
from sparkify.files import S3Object, list_prefix, s3_hook, split_url
from sparkify.findings import MOST_EXAMPLES, Finding, as_check_result, conclude, find_broken
from sparkify.ledger import LEDGER, recorded_files
from sparkify.operators import DataQualityOperator
from sparkify.rejects import REJECTED_ROWS, read_values, texts_of
from sparkify.run_notes import DAG_ID
from sparkify.setup_check import SetupError, compare_tables
from sparkify.sql import run_one_by_one, run_statement
from sparkify.state import KEY, WAREHOUSE
from sparkify.tables import TABLES

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

log = logging.getLogger(__name__)

#: A play by its session and its number in it, and what is said of it: the columns below.
Play = tuple[int, int]
Said = tuple[Any, ...]
COLUMNS = "start_time, user_id, level, song_title, artist_name, duration, location, user_agent"

EPOCH = datetime(1970, 1, 1)
OVERDUE = timedelta(days=1)
SAMPLED_FILES = 5
# An object may arrive under an old date, so its date does not say how long it has waited. It is overdue if an
# earlier audit, at least this long ago, saw it unrecorded. Half a day: a run starts every hour.
WAITED = timedelta(hours=12)
WAITING = "waiting_files"  # the state of sparkify_warehouse that remembers them
MOST_WAITING = 100

# The files that fill each table.
_EVENTS, _SONGS = "staging_events", "staging_songs"
_FILLED_FROM = {
    **dict.fromkeys(("fact_songplays", "dim_users", "dim_time"), _EVENTS),
    **dict.fromkeys(("dim_songs", "dim_artists"), _SONGS),
}

VANISHED = Check(
    f"{LEDGER}: every recorded file is still on S3",
    sql="",
    severity="warn",
    advice="If the source archives its files, nothing. Else ask it: what is gone cannot be loaded again.",
)
NOT_LOADED = Check(
    f"{LEDGER}: every file that is older than a day is loaded",
    sql="",
    advice="Is sparkify_etl paused, or do its runs fail? Otherwise trigger it with check_ledger.",
)
QUARANTINED = Check(
    f"{LEDGER}: no file is quarantined for more than a day",
    sql="",
    advice="Upload a corrected version of the file, and the next run loads it. To try the same version again,"
    " for example after you changed a setting, trigger sparkify_etl with the file's address as reload_prefix."
    " If the file is of no use, delete it from S3. The page's Pipeline view lists all quarantined files.",
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


class LoadWatch:
    """
    Finds out whether a load may have changed the tables since the watch was made.

    Between the tasks of a load, tables do not agree with each other, and each statement of a check sees
    another state.

    :param ti: the task instance that checks the tables
    """

    def __init__(self, ti: "RuntimeTaskInstanceProtocol") -> None:
        self.ti = ti
        self.before = self._count_runs()

    def _count_runs(self) -> tuple[int, int]:
        running, ended = (
            self.ti.get_dr_count(dag_id=DAG_ID, states=states)
            for states in (["running"], ["success", "failed"])
        )
        return running, ended

    def require_no_load(self, findings: Sequence[Finding]) -> None:
        """
        Check that failures were not caused by a load.

        :param findings: the findings since the watch was made, not yet stored
        :raises AirflowException: if a check failed, and a load is running or has ended meanwhile; Airflow
            retries the task
        """
        failed = [finding.check.name for finding in findings if finding.outcome == "failed"]
        if failed and (self._count_runs() != self.before or self.before[0]):
            raise AirflowException(
                f"{DAG_ID} was loading while this task compared tables, so {len(failed)} failed checks may"
                f" be wrong: {'; '.join(failed)}. Nothing was stored. Airflow retries the task; if this was"
                f" its last try, clear it after the run of {DAG_ID} has ended"
            )


class CheckTablesOperator(DataQualityOperator):
    """
    Check whole tables while loads go on: a failure while one is running is not believed, but retried.

    Its parameters are those of :class:`DataQualityOperator`, without ``reads``.
    """

    def execute(self, context: "Context") -> dict[str, int]:
        """
        Run the checks.

        :return: for XCom: the number of rows that broke each check, by its name
        :raises AirflowFailException: if a check of severity ``error`` fails
        :raises AirflowException: if one fails while a load is running
        """
        watch, hook = LoadWatch(context["ti"]), self.get_db_hook()
        with explained("Checking", self.conn_id):
            findings = run_one_by_one(hook, find_broken(self.checks))
            watch.require_no_load(findings)
            self.check_results = [as_check_result(finding) for finding in findings]
            return conclude(findings, hook, context)


def no_load_is_running(ti: "RuntimeTaskInstanceProtocol", dag_id: str) -> bool:
    """
    Tell whether no run of a DAG is running: between its tasks, tables do not agree with each other.

    :param ti: the task instance that asks
    :param dag_id: the DAG
    """
    return not ti.get_dr_count(dag_id=dag_id, states=["running"])


def require_tables(prefixes: Mapping[str, str], conn_id: str, **context: Any) -> bool:
    """
    Check that all tables exist, with the columns that their definitions have.

    :param prefixes: ``s3://bucket/prefix`` of each dataset, by its staging table
    :param conn_id: the warehouse
    :param context: the rest of the task's context
    :return: False if there are no tables because no run has loaded anything yet
    :raises AirflowFailException: if a table is missing or differs from its definition
    """
    with explained("Looking for tables", conn_id):
        names = run_statement(
            Connection.get(conn_id).get_hook(),
            "SELECT table_name FROM information_schema.tables WHERE table_schema = CURRENT_SCHEMA()",
        )
        existing = {name for (name,) in names.rows}
    missing = [table for table in TABLES if table not in existing]
    has_loaded = asset_state(cast("Context", context), WAREHOUSE).get(KEY) is not None
    if len(missing) == len(TABLES) and not has_loaded:
        log.info("There are no tables, and no run has loaded anything: nothing to audit")
        return False
    if missing:
        raise AirflowFailException(
            f"The warehouse lacks {', '.join(missing)}: somebody dropped them, or connection '{conn_id}'"
            f" looks in another schema. {_remedy(missing, prefixes)}"
        )
    try:
        compare_tables(conn_id)
    except SetupError as error:
        if error.__cause__:  # of the connection, which may be transient
            raise
        raise AirflowFailException(
            f"{error}. Or drop the table, and trigger {DAG_ID} with the prefix of its files as reload_prefix,"
            " which creates and fills it. A column that you add again comes last, and is empty"
        ) from error
    return True


def _remedy(missing: Sequence[str], prefixes: Mapping[str, str]) -> str:
    """Return what brings back missing tables with their rows."""
    first = ""
    if "etl_sessions" in missing and not {"fact_songplays", "etl_migrations"} & set(missing):
        # A load adds only the sessions of plays that it inserts; this migration adds those of all plays.
        first = "Run DELETE FROM etl_migrations WHERE migration = '0002_known_sessions'. Then trigger"
    datasets = dict.fromkeys(_FILLED_FROM[table] for table in missing if table in _FILLED_FROM)
    if LEDGER in missing or not datasets:
        more = ", and loads every file, because the ledger is empty" if LEDGER in missing else ""
        return f"{first or 'Trigger'} {DAG_ID} with check_ledger: it creates them{more}"
    runs = ", then with reload_prefix ".join(prefixes[dataset] for dataset in datasets)
    return f"{first or 'Trigger'} {DAG_ID} with reload_prefix {runs}: it creates and fills them"


def compare_ledger(
    prefixes: Mapping[str, str], conn_id: str, aws_conn_id: str, **context: Any
) -> dict[str, int]:
    """
    Compare the ledger with S3: files that vanished, were not loaded for a day, or stay in quarantine.

    :param prefixes: ``s3://bucket/prefix`` of each dataset, by its staging table
    :param conn_id: the warehouse
    :param aws_conn_id: the AWS connection that lists the prefixes
    :param context: the rest of the task's context
    :return: for XCom: the number of files that broke each check, by its name
    :raises AirflowFailException: if a file is overdue, or quarantined for more than a day
    :raises AirflowException: if one is while a load is running
    """
    watch = LoadWatch(context["ti"])
    vanished: list[str] = []
    quarantined: list[str] = []
    unrecorded: list[S3Object] = []
    loaded_files = listed_files = 0
    now = datetime.now(UTC).replace(tzinfo=None)
    with explained("Comparing the ledger with S3", conn_id):
        s3, hook = s3_hook(aws_conn_id), Connection.get(conn_id).get_hook()
        for dataset, prefix in prefixes.items():
            objects = list_prefix(s3, prefix).objects
            listed = {item.key for item in objects}
            bucket, key_prefix = split_url(prefix)
            recorded = recorded_files(hook, dataset)
            # The ledger does not hold buckets, and the prefix may have been another one.
            loaded = {
                key
                for key, file in recorded.items()
                if file.status == "loaded" and key.startswith(key_prefix)
            }
            vanished += [f"s3://{bucket}/{key}" for key in sorted(loaded - listed)]
            for item in objects:
                file = recorded.get(item.key)
                if file is None or not file.is_of(item):
                    unrecorded.append(item)
                elif file.status == "quarantined" and file.recorded_at < now - OVERDUE:
                    quarantined.append(
                        f"{item.url}, since {file.recorded_at:%Y-%m-%d %H:%M} UTC: {file.reason}"
                    )
            loaded_files, listed_files = loaded_files + len(loaded), listed_files + len(objects)
    overdue = _overdue(unrecorded, now, cast("Context", context))
    findings = [
        Finding(VANISHED, len(vanished), loaded_files, vanished[:MOST_EXAMPLES]),
        Finding(
            *(NOT_LOADED, len(overdue), listed_files),
            [f"{item.url}, of {item.last_modified} UTC" for item in overdue[:MOST_EXAMPLES]],
        ),
        Finding(QUARANTINED, len(quarantined), listed_files, quarantined[:MOST_EXAMPLES]),
    ]
    watch.require_no_load(findings)
    return conclude(findings, hook, cast("Context", context))


def _overdue(unrecorded: Sequence[S3Object], now: datetime, context: "Context") -> list[S3Object]:
    """Return the objects that have not been loaded for a day, and remember which ones are not loaded now."""
    state = asset_state(context, WAREHOUSE)
    before = {(url, etag): since for url, etag, since in state.get(WAITING) or ()}
    oldest_first = sorted(unrecorded, key=lambda item: item.last_modified)
    first_seen = {item: before.get((item.url, item.etag), now.isoformat()) for item in oldest_first}
    # A few are enough to fail the audit; the state is no place for many.
    waiting = [[item.url, item.etag, since] for item, since in first_seen.items()][:MOST_WAITING]
    if waiting or before:
        state.set(WAITING, waiting)
    return [
        item
        for item, since in first_seen.items()
        if item.last_modified < now - OVERDUE and datetime.fromisoformat(since) < now - WAITED
    ]


def compare_plays(prefix: str, conn_id: str, aws_conn_id: str, **context: Any) -> dict[str, int]:
    """
    Compare the plays of some loaded files, read from S3, with those in the warehouse, day by day.

    The files are drawn anew for each run, so that in time each of them has its turn.

    :param prefix: ``s3://bucket/prefix`` of the events
    :param conn_id: the warehouse
    :param aws_conn_id: the AWS connection that reads the files
    :param context: the rest of the task's context
    :return: for XCom: the number of plays that broke each check, by its name
    :raises AirflowFailException: if a play is missing
    :raises AirflowException: if one is while a load is running
    """
    watch = LoadWatch(context["ti"])
    lost: list[str] = []
    different: list[str] = []
    counts: Counter[str] = Counter()
    with explained("Comparing plays with their files", conn_id):
        s3, hook = s3_hook(aws_conn_id), Connection.get(conn_id).get_hook()
        objects = list_prefix(s3, prefix).objects
        recorded = recorded_files(hook, _EVENTS)
        loaded = [
            item
            for item in objects
            if (file := recorded.get(item.key)) and file.status == "loaded" and file.is_of(item)
        ]
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
    watch.require_no_load(findings)
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
    sql = f"SELECT line_number FROM {REJECTED_ROWS} WHERE s3_key = %s"
    rejected = {line_number for (line_number,) in run_statement(hook, (sql, [file.key])).rows}
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
        user, level, song, artist, location, agent = (
            _trimmed(event.get(name))
            for name in ("userid", "level", "song", "artist", "location", "useragent")
        )
        began = EPOCH + timedelta(milliseconds=milliseconds)
        said = (began, user, level, song, artist, duration, location, agent)
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
        for session, number, *said in run_statement(hook, (f"{select} {condition}", [*values])).rows:
            if (session, number) in plays:
                found[session, number] = tuple(said)

    if plays:
        times = [began for began, *_ in plays.values()]
        look("start_time BETWEEN %s AND %s", (min(times), max(times)))
    sessions = {session for session, _ in plays.keys() - found.keys()}
    if sessions:
        look(f"session_id IN ({', '.join(map(str, sorted(sessions)))})", ())
    return found
