"""
Ways of corrupting good data, and the checks that must find each: ``mutations.yaml`` declares them.

A check is worth something only if it fails where it should; and what nothing finds should be known.
"""

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from airflow import __version__ as version
from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from jinja2 import Template

from local.settings import REGION, Settings
from sparkify import audit
from sparkify.batches import MACROS
from sparkify.checks import Check, count_broken
from sparkify.compat import AirflowFailException
from sparkify.findings import Finding
from sparkify.tables import TABLES
from tests.conftest import context, rows
from tests.pipeline import Pipeline, star
from tests.test_crash import Json, event, song

if version.startswith("3.0."):
    pytest.skip("the checks are the same on any release of Airflow", allow_module_level=True)

BUCKET = "mutations"
VARIABLES = {
    "sparkify_log_data": f"s3://{BUCKET}/log_data/",
    "sparkify_song_data": f"s3://{BUCKET}/song_data/",
    "sparkify_work_prefix": "s3://sparkify-etl/runs/",
}
PREFIXES = {
    "staging_events": VARIABLES["sparkify_log_data"],
    "staging_songs": VARIABLES["sparkify_song_data"],
}
EARLIER, LATER = "earlier", "later"
FIRST_FILE_OF_THE_BATCH = "log_data/2018/11/2018-11-28"

Mutation = dict[str, Any]
Findings = dict[tuple[str, str], Finding]  # by task and check
Found = dict[str, dict[str, dict[str, str]]]  # outcomes by task, table and sentence

DECLARED = yaml.safe_load(Path(__file__).with_name("mutations.yaml").read_text(encoding="utf-8"))
#: In ``mutations.yaml``, one key may stand for two tasks that find the same.
TASKS = {"check_staging", "check_star", "check_tables", "check_star and check_tables"}
TASKS |= {"compare_files", "count_plays"}
STAGING_TASKS = ("stage_events", "stage_songs")


def declared(section: str) -> pytest.MarkDecorator:
    cases = [pytest.param(mutation, id=mutation["name"]) for mutation in DECLARED[section]]
    return pytest.mark.parametrize("mutation", cases)


def expected(mutation: Mutation) -> Found:
    """Return what a mutation declares to be found."""
    found: Found = {}
    for tasks in mutation.keys() & TASKS:
        for task_id in tasks.split(" and "):
            for table, outcomes in mutation[tasks].items():
                found.setdefault(task_id, {}).setdefault(table, {}).update(outcomes)
    assert bool(found) != ("caught_by" in mutation), "say either what finds it, or that nothing does"
    assert ("because" in mutation) == (mutation.get("caught_by") == "nothing")
    return found


def execute(connection: Any, statement: str) -> tuple[list[tuple[Any, ...]], int]:
    """Return a statement's rows, and how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else [], cursor.rowcount


def mutate(connection: Any, mutation: Mutation) -> None:
    """Run a mutation's statements, each of which must change rows."""
    statements = [statement.format_map(DECLARED["rows"]) for statement in mutation["change"]]
    changed = [re.match(r"(?:UPDATE|INSERT INTO|DELETE FROM) (\w+)", statement) for statement in statements]
    tables = {match[1] for match in changed if match}
    assert tables, "nothing is changed"

    def content() -> list[Counter[tuple[Any, ...]]]:
        return [Counter(execute(connection, f"SELECT * FROM {table}")[0]) for table in sorted(tables)]

    unnoticed = mutation.get("caught_by") == "nothing"
    before = content() if unnoticed else []
    for statement, changes in zip(statements, changed, strict=True):
        row_count = execute(connection, statement)[1]
        assert not changes or row_count > 0, f"no row is changed by {statement}"
    assert not unnoticed or content() != before


@contextmanager
def connected(hook: RedshiftSQLHook) -> Iterator[Any]:
    """Yield a connection whose transaction is rolled back, unless it is committed before."""
    connection = cast("Any", hook.get_conn())
    try:
        yield connection
    finally:
        connection.rollback()
        connection.close()


class Warehouse:
    """
    The warehouse after a run has staged and checked the sample's last days, and after it has loaded them.

    All else of the sample, but some songs, was loaded before. Each state can be had again.

    :param hook: the warehouse's hook
    :param s3: the hook of the AWS connection
    :param sample: the sample's folder
    """

    def __init__(self, hook: RedshiftSQLHook, s3: S3Hook, sample: Path) -> None:
        self.hook, self.s3, self.sample = hook, s3, sample
        self.audit = Pipeline("sparkify_audit")
        self.pipelines: dict[str, Pipeline] = {}
        keys = sorted(str(file.relative_to(sample)) for file in sample.glob("*/**/*.json"))
        batch = {key for key in keys if key.startswith("log_data/") and key >= FIRST_FILE_OF_THE_BATCH}
        batch.update([key for key in keys if key.startswith("song_data/")][::6])
        pipeline = Pipeline()
        self.deliver(set(keys) - batch)
        pipeline.run(EARLIER, variables=VARIABLES)
        self.deliver(batch)
        pipeline.run(LATER, variables=VARIABLES, to_task="stage_songs")
        self._keep("staged", pipeline)
        pipeline.run(LATER, variables=VARIABLES, from_task="load_dim_users")
        self._keep("loaded", pipeline)
        self.state = "loaded"
        checked = self.check(pipeline, "check_staging", "check_star", "check_tables")
        self.good = checked | self.compare_with_files()

    def deliver(self, keys: set[str]) -> None:
        """Put files of the sample on S3."""
        for key in sorted(keys):
            self.s3.conn.upload_file(str(self.sample / key), BUCKET, key)

    def _keep(self, state: str, pipeline: Pipeline) -> None:
        self.pipelines[state] = _copy(pipeline)
        copies = [f"CREATE TABLE {state}.{table} AS SELECT * FROM {table}" for table in TABLES]
        self.hook.run([f"CREATE SCHEMA {state}", *copies])

    def bring(self, state: str) -> Pipeline:
        """Bring all tables to a state, and return the pipeline as it was then."""
        if self.state != state:
            self.empty()
            self.hook.run([f"INSERT INTO {table} SELECT * FROM {state}.{table}" for table in TABLES])
            self.state = state
        return _copy(self.pipelines[state])

    def empty(self) -> None:
        """Empty all tables."""
        self.state = "empty"
        self.hook.run([f"TRUNCATE {table}" for table in TABLES])

    def change(self, mutation: Mutation) -> None:
        """Run a mutation's statements for all to see."""
        self.state = "changed"
        with connected(self.hook) as connection:
            mutate(connection, mutation)
            connection.commit()

    def close(self) -> None:
        """Remove all that a test of another file could see."""
        self.hook.run([f"DROP SCHEMA {state} CASCADE" for state in self.pipelines])
        self.s3.delete_bucket(BUCKET, force_delete=True)

    def check(self, pipeline: Pipeline, *task_ids: str, connection: Any = None) -> Findings:
        """Return what the checks of some tasks find, on a connection of theirs unless there is one."""
        found: Findings = {}
        for task_id in task_ids:
            dag = (self.audit if task_id == "check_tables" else pipeline).dag
            tasks = STAGING_TASKS if task_id == "check_staging" else (task_id,)
            checks = [check for name in tasks for check in _rendered(dag.task_dict[name], pipeline)]
            sql = count_broken(checks)
            for number, *counts in execute(connection, sql)[0] if connection else rows(self.hook, sql):
                found[task_id, checks[number].name] = Finding(checks[number], *counts)
        return found

    def compare_with_files(self) -> Findings:
        """Return what the audit finds that compares the warehouse with all files, whatever their age."""
        conns = {"conn_id": "redshift", "aws_conn_id": "aws_default"}
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(audit, "conclude", lambda findings, hook, context: findings)
            patched.setattr(audit, "SAMPLED_FILES", 1000)
            for waits in ("OVERDUE", "WAITED"):
                patched.setattr(audit, waits, timedelta(minutes=-1))
            ti = SimpleNamespace(get_dr_count=lambda **_: 0)
            files = cast("Any", audit.compare_ledger(PREFIXES, **conns, **context(ti=ti)))
            plays = cast("Any", audit.compare_plays(PREFIXES["staging_events"], **conns, **context(ti=ti)))
        return {
            (task_id, finding.check.name): finding
            for task_id, findings in (("compare_files", files), ("count_plays", plays))
            for finding in findings
        }

    def news(self, findings: Findings) -> Found:
        """
        Return what is found beside what good data are warned of, too, however many more rows it is.

        :param findings: what checks have found
        """
        news: Found = {}
        for (task_id, name), finding in findings.items():
            if finding.outcome not in ("passed", self.good[task_id, name].outcome):
                table, _, sentence = name.partition(": ")
                news.setdefault(task_id, {}).setdefault(table, {})[sentence] = finding.outcome
        return news


def _copy(pipeline: Pipeline) -> Pipeline:
    copied = Pipeline()
    copied.results, copied.asset_state = copy.deepcopy((pipeline.results, pipeline.asset_state))
    return copied


def _rendered(task: Any, pipeline: Pipeline) -> list[Check]:
    results = pipeline.results[LATER]
    values = {**MACROS, "run_id": LATER, "ti": SimpleNamespace(xcom_pull=lambda task_ids: results[task_ids])}
    return [
        replace(
            check, **{name: Template(getattr(check, name)).render(values) for name in check.template_fields}
        )
        for check in task.checks
    ]


@pytest.fixture(scope="module")
def good(stack: Settings, created: RedshiftSQLHook) -> Iterator[Warehouse]:
    """What is to be corrupted."""
    s3 = S3Hook(aws_conn_id="aws_default")
    s3.create_bucket(BUCKET, region_name=REGION)
    created.run([f"DELETE FROM {table}" for table in TABLES])
    warehouse = Warehouse(created, s3, stack.home / "sample")
    yield warehouse
    warehouse.close()


def test_of_good_data_nothing_is_found_but_what_is_known_of_the_sample(good: Warehouse) -> None:
    found = {place: finding.outcome for place, finding in good.good.items() if finding.outcome != "passed"}
    assert found == {
        ("check_tables", "fact_songplays: no title or name was encoded as UTF-8 twice"): "warning",
    }


def test_every_mutation_has_a_name_of_its_own() -> None:
    names = Counter(
        (section, each["name"]) for section in DECLARED if section != "rows" for each in DECLARED[section]
    )
    assert [name for name, count in names.items() if count > 1] == []


@declared("delivered")
def test_a_corrupt_delivery_is_found(good: Warehouse, mutation: Mutation) -> None:
    pipeline = good.bring("staged")
    good.change(mutation)
    results = pipeline.results[LATER]
    for task_id, table in (("stage_events", "staging_events"), ("stage_songs", "staging_songs")):
        (results[task_id]["staged"],) = good.hook.get_first(f"SELECT COUNT(*) FROM {table}")
    found = good.news(good.check(pipeline, "check_staging"))
    if not found:  # what is not even warned of is followed further
        pipeline.run(LATER, variables=VARIABLES, from_task="load_dim_users", to_task="relink_songplays")
        found = good.news(good.check(pipeline, "check_star", "check_tables"))
    assert found == expected(mutation)


@declared("staged")
def test_a_change_of_staging_tables_after_copy_is_found(good: Warehouse, mutation: Mutation) -> None:
    pipeline = good.bring("loaded")
    with connected(good.hook) as connection:
        mutate(connection, mutation)
        findings = good.check(pipeline, "check_staging", "check_star", connection=connection)
    assert good.news(findings) == expected(mutation)


@declared("tables")
def test_a_corrupt_table_is_found(good: Warehouse, mutation: Mutation) -> None:
    pipeline = good.bring("loaded")
    with connected(good.hook) as connection:
        mutate(connection, mutation)
        findings = good.check(pipeline, "check_star", "check_tables", connection=connection)
    assert good.news(findings) == expected(mutation)


@declared("refused")
def test_a_corrupt_row_is_refused(good: Warehouse, mutation: Mutation) -> None:
    good.bring("loaded")
    with (
        connected(good.hook) as connection,
        pytest.raises(Exception, match=f'null value in column "{mutation["column"]}"'),
    ):
        mutate(connection, mutation)


@declared("files")
def test_a_difference_from_the_files_is_found(good: Warehouse, mutation: Mutation) -> None:
    pipeline = good.bring("loaded")
    deleted, written = set(mutation.get("delete", ())), mutation.get("write", {})
    try:
        if "change" in mutation:
            good.change(mutation)
        for key in deleted:
            good.s3.delete_objects(BUCKET, key)
        for key, text in written.items():
            good.s3.load_string(text, key, BUCKET, replace=True)
        found = good.news(good.check(pipeline, "check_tables") | good.compare_with_files())
    finally:
        good.s3.delete_objects(BUCKET, [*written])
        good.deliver({key for key in deleted | {*written} if (good.sample / key).exists()})
    assert found == expected(mutation)


# A file that is quarantined is loaded when it is delivered right.

FIRST = {"log_data/1.json": [event(1, item, 4 * item) for item in range(3)], "song_data/1.json": [song(0)]}
SECOND = {"log_data/2.json": [event(2, item, 60 + 4 * item) for item in range(120)]}
WRONG: dict[str, Callable[[Json], Json]] = {
    "every play is between 0 seconds and a day long": lambda it: it | {"length": it["length"] * 1000},
    "no event is from before 2010, or more than an hour ahead": lambda it: it | {"ts": it["ts"] // 1000},
    "every play has a user": lambda it: it | {"userId": ""},
    "copies of an event agree": lambda it: it | {"itemInSession": it["itemInSession"] // 2},
}


class Deliveries:
    """
    Runs of an empty warehouse, and what is delivered to it.

    :param warehouse: the warehouse
    :param folder: a folder on S3 of its own
    """

    def __init__(self, warehouse: Warehouse, folder: str) -> None:
        self.warehouse, self.folder, self.pipeline = warehouse, folder, Pipeline()
        self.variables = {
            **VARIABLES,
            "sparkify_log_data": f"s3://{BUCKET}/{folder}/log_data/",
            "sparkify_song_data": f"s3://{BUCKET}/{folder}/song_data/",
        }
        warehouse.empty()

    def run(self, run_id: str, files: Mapping[str, Sequence[Json]] | None = None) -> None:
        """Deliver files, and run."""
        for key, objects in (files or {}).items():
            text = "\n".join(map(json.dumps, objects))
            self.warehouse.s3.load_string(text, f"{self.folder}/{key}", BUCKET, replace=True)
        self.pipeline.run(run_id, variables=self.variables)

    def recorded(self, status: str = "loaded") -> list[str]:
        """Return the names of the files in the ledger."""
        keys = rows(
            self.warehouse.hook, f"SELECT s3_key FROM etl_files WHERE status = '{status}' ORDER BY s3_key"
        )
        return [key.removeprefix(f"{self.folder}/") for (key,) in keys]


@pytest.fixture(scope="module")
def right_at_once(good: Warehouse) -> dict[str, list[tuple[Any, ...]]]:
    """The star if nothing ever fails."""
    deliveries = Deliveries(good, "right")
    deliveries.run("run 1", FIRST)
    deliveries.run("run 2", SECOND)
    return star(good.hook)


@pytest.mark.parametrize("sentence", WRONG)
def test_files_that_are_quarantined_are_loaded_when_they_are_delivered_right(
    good: Warehouse, right_at_once: dict[str, list[tuple[Any, ...]]], sentence: str
) -> None:
    deliveries = Deliveries(good, f"wrong-{list(WRONG).index(sentence)}")
    deliveries.run("run 1", FIRST)
    before = star(good.hook)
    wrong = {key: list(map(WRONG[sentence], objects)) for key, objects in SECOND.items()}
    for run_id, files in (("run 2", wrong), ("run 3", None)):
        deliveries.run(run_id, files)
        assert deliveries.recorded("quarantined") == ["log_data/2.json"]
        assert star(good.hook) == before
    ((reason,),) = rows(good.hook, "SELECT reason FROM etl_files WHERE status = 'quarantined'")
    assert sentence in reason
    deliveries.run("run 4", SECOND)
    assert deliveries.recorded("quarantined") == ["log_data/2.json"]  # its older version
    assert star(good.hook) == right_at_once


def test_files_that_a_wrong_transform_has_loaded_are_loaded_again_once_it_is_mended(
    good: Warehouse, right_at_once: dict[str, list[tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = Deliveries(good, "transform")
    deliveries.run("run 1", FIRST)
    load = cast("Any", deliveries.pipeline.dag.task_dict["load_fact_songplays"])
    with monkeypatch.context() as patched:
        patched.setattr(load, "sql", f"SELECT * FROM (\n{load.sql}\n) AS plays WHERE item_in_session <> 7")
        with pytest.raises(AirflowFailException, match="every staged play of a user is there"):
            deliveries.run("run 2", SECOND)
    assert deliveries.pipeline.current_task == "check_star"
    assert deliveries.recorded() == sorted(FIRST)
    assert star(good.hook) != right_at_once
    deliveries.run("run 3")
    assert star(good.hook) == right_at_once
    assert deliveries.recorded() == sorted({**FIRST, **SECOND})
