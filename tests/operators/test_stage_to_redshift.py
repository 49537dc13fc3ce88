import json
import re
from itertools import pairwise
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.common.sql.hooks.sql import DbApiHook

from local.settings import REDSHIFT_ROLE
from sparkify import rejects
from sparkify.batches import TURN
from sparkify.compat import HAS_PAGES, AirflowException, AirflowFailException
from sparkify.errors import TransientError
from sparkify.links import object_page
from sparkify.operators import StageToRedshiftOperator
from sparkify.sql import UTC_SESSION
from tests.conftest import context, rows

SETTINGS = {"iam_role": REDSHIFT_ROLE, "region": "us-west-2", "work_prefix": "s3://sparkify-etl/tests/"}
SONG = {"song_id": "SO1", "title": "Setanta matins", "artist_id": "AR1", "year": 0}


@pytest.fixture
def bucket(s3):
    s3.create_bucket("staging-tests", region_name="us-west-2")
    yield "staging-tests"
    s3.delete_bucket("staging-tests", force_delete=True)


def stage_songs(**changes):
    arguments = {"table": "staging_songs", "prefix": "s3://staging-tests/songs/", **SETTINGS, **changes}
    return StageToRedshiftOperator(task_id="stage_songs", **arguments)


def put(s3, name, *songs):
    s3.load_string("\n".join(map(json.dumps, songs)), f"songs/{name}", "staging-tests", replace=True)


def test_copy_is_what_redshift_accepts_and_holds_no_credential():
    assert stage_songs().copy_statement("s3://sparkify-etl/m.manifest", ["MANIFEST", "MAXERROR 7"]) == (
        "COPY staging_songs\n"
        "FROM 's3://sparkify-etl/m.manifest'\n"
        f"IAM_ROLE '{REDSHIFT_ROLE}'\n"
        "REGION 'us-west-2'\n"
        "FORMAT AS JSON 'auto'\n"
        "MANIFEST\n"
        "MAXERROR 7\n"
        "COMPUPDATE OFF\n"
        "STATUPDATE OFF"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iam_role": "arn:aws:iam::12:role/x"}, "is not the ARN of an IAM role"),
        ({"iam_role": f"{REDSHIFT_ROLE}' CREDENTIALS 'x"}, "is not the ARN of an IAM role"),
        ({"region": "Oregon"}, "is not an AWS region"),
        ({"table": "songs; DROP TABLE users"}, "is not a lower-case SQL identifier"),
        ({"json": "auto'"}, "is not an S3 address"),
        ({"json": "s3://a-bucket/it's.json"}, "has a quote, a backslash or a control character"),
    ],
)
def test_a_setting_of_the_wrong_form_never_reaches_sql(changes, message):
    with pytest.raises(ValueError, match=message):
        stage_songs(**changes).copy_statement("s3://sparkify-etl/m.manifest")


def test_new_files_replace_what_was_staged(warehouse, s3, bucket):
    warehouse.run("INSERT INTO staging_songs (song_id) VALUES ('SO0')")
    put(s3, "a.json", SONG)
    put(s3, "b.json", SONG | {"song_id": "SO2"}, SONG | {"song_id": "SO3"})
    result = stage_songs().execute(context())
    assert rows(warehouse, "SELECT song_id FROM staging_songs ORDER BY song_id") == [
        ("SO1",),
        ("SO2",),
        ("SO3",),
    ]
    assert (result["files"], result["staged"], result["rejected"]) == (2, 3, 0)


def test_what_is_recorded_is_not_staged_again_but_a_changed_file_is(warehouse, s3, bucket):
    put(s3, "a.json", SONG)
    put(s3, "b.json", SONG | {"song_id": "SO2"})
    for name in ("a", "b"):
        etag = s3.head_object(f"songs/{name}.json", bucket)["ETag"].strip('"')
        warehouse.run(
            "INSERT INTO etl_files VALUES ('staging_songs', %s, %s, 1, SYSDATE, 'run 0', SYSDATE)",
            parameters=[f"songs/{name}.json", etag],
        )
    put(s3, "b.json", SONG | {"song_id": "SO3"})
    assert stage_songs().execute(context())["files"] == 1
    assert rows(warehouse, "SELECT song_id FROM staging_songs") == [("SO3",)]


def test_without_news_the_staging_table_is_emptied(warehouse, s3, bucket):
    put(s3, "empty.json")
    warehouse.run("INSERT INTO staging_songs (song_id) VALUES ('SO0')")
    result = stage_songs().execute(context())
    assert (result["files"], result["ignored"]) == (0, 1)
    assert warehouse.get_first("SELECT COUNT(*) FROM staging_songs")[0] == 0


def test_staging_takes_its_turns_before_it_reads_or_writes_anything(warehouse, s3, bucket):
    put(s3, "a.json", SONG)
    before = rows(warehouse, "SELECT SYSDATE")
    stage_songs().execute(context())
    asked = warehouse.get_records(
        "SELECT statement FROM local_statements WHERE client = 'sparkify_etl' AND started_at >= %s"
        " ORDER BY started_at",
        parameters=before[0],
    )
    asked = [text for text in asked if text != [UTC_SESSION]]  # takes no snapshot
    first = [after for (statement,), (after,) in pairwise(asked) if statement.lower().startswith("begin")]
    assert [statement for statement in first if "SELECT" not in statement] == [TURN, TURN]


def test_rejected_rows_are_kept_with_file_line_reason_and_value(warehouse, s3, bucket):
    put(s3, "a.json", SONG, SONG | {"title": "é" * 600})
    result = stage_songs(max_rejected_rows=10).execute(context())
    assert (result["staged"], result["rejected"]) == (1, 1)
    row = warehouse.get_first(
        "SELECT dataset, s3_key, line_number, column_name, raw_value, run_id, reason FROM etl_rejected_rows"
    )
    assert list(row)[:6] == ["staging_songs", "songs/a.json", 2, "title", "é" * 512, "run 1"]
    assert "length" in row[6]


@pytest.mark.parametrize(
    "line", ['{"song_id": "SO2", "title": "a\\u0000b", oops', '{"song_id": "SO2", \x00oops']
)
def test_a_rejected_line_that_no_column_could_hold_is_kept_all_the_same(warehouse, s3, bucket, line):
    s3.load_string(f"{json.dumps(SONG)}\n{line}\n", "songs/a.json", bucket)
    assert stage_songs(max_rejected_rows=10).execute(context())["rejected"] == 1
    (kept,) = rows(warehouse, "SELECT raw_line FROM etl_rejected_rows")
    assert kept == (line.replace("\x00", "\\x00"),)


def test_a_rejected_row_of_a_file_whose_name_redshift_cuts_off_is_kept_with_its_line(warehouse, s3, bucket):
    names = [f"{begin}{'x' * 250}{end}.json" for begin, end in ("a1", "b1", "b2")]
    for name in names:
        put(s3, name, SONG | {"year": "MMXV"})
    assert stage_songs(max_rejected_rows=10).execute(context())["rejected"] == 3
    kept = rows(warehouse, "SELECT s3_key, raw_value FROM etl_rejected_rows ORDER BY s3_key")
    of_two = f"s3://staging-tests/songs/{names[1]}"[:256].removeprefix("s3://staging-tests/")
    assert kept == [(f"songs/{names[0]}", "MMXV"), (of_two, None), (of_two, None)]


def test_a_row_that_got_lost_between_copy_and_its_account_fails_the_task(warehouse, s3, bucket, monkeypatch):
    monkeypatch.setattr("sparkify.copies.with_raw_lines", lambda s3, errors, urls: [])
    put(s3, "a.json", SONG, SONG | {"year": "MMXV"})
    with pytest.raises(
        AirflowException, match="COPY loaded 1 rows and rejected 1, but 1 rows are staged and 0"
    ):
        stage_songs(max_rejected_rows=10).execute(context())


@pytest.fixture
def slow_account(monkeypatch):
    """Make Redshift tell of a COPY with a delay: first nothing, then fewer rejected rows than there are."""
    slept: list[float] = []
    ask = rejects.run_one_by_one

    def some(hook, transaction):
        history, errors = ask(hook, transaction)
        return (history if slept else []), errors[: len(slept)]

    monkeypatch.setattr(rejects, "run_one_by_one", some)
    monkeypatch.setattr(rejects, "time", SimpleNamespace(sleep=slept.append))
    return slept


def test_rejected_rows_are_kept_though_redshift_reports_them_late(warehouse, s3, bucket, slow_account):
    put(s3, "a.json", SONG, SONG, SONG, *[SONG | {"year": "MMXV"}] * 2)
    stage_songs(max_rejected_rows=2).execute(context())
    assert rows(warehouse, "SELECT COUNT(*) FROM etl_rejected_rows") == [(2,)]
    assert slow_account == [1, 2]


def test_a_copy_that_failed_for_another_reason_is_not_asked_about_for_long(
    bucket, s3, warehouse, slow_account
):
    put(s3, "a.json", SONG)
    with pytest.raises(Exception, match="not authorized"):
        stage_songs(iam_role="arn:aws:iam::210987654321:role/other").execute(context())
    assert slow_account == []


def test_as_many_rejected_rows_are_kept_as_copy_may_pass_over(warehouse, s3, bucket):
    # More than one statement has room for: the protocol counts its bound values in 16 bits.
    put(s3, "a.json", SONG, *[SONG | {"year": "MMXV"}] * 8000)
    assert stage_songs(max_rejected_rows=10000).execute(context())["rejected"] == 8000
    assert rows(warehouse, "SELECT COUNT(*) FROM etl_rejected_rows") == [(8000,)]


def test_long_rejected_rows_are_kept_by_statements_of_less_than_16_megabytes(warehouse, s3, bucket):
    put(s3, "a.json", SONG, *[SONG | {"year": "MMXV", "comment": "x" * 70_000}] * 300)
    (before,) = rows(warehouse, "SELECT SYSDATE")
    assert stage_songs(max_rejected_rows=1000).execute(context())["rejected"] == 300
    (sent,) = warehouse.get_first(
        "SELECT COUNT(*) FROM local_statements"
        " WHERE statement LIKE 'INSERT INTO etl_rejected_rows%%' AND started_at >= %s",
        parameters=before,
    )
    assert (sent, rows(warehouse, "SELECT COUNT(*) FROM etl_rejected_rows")) == (3, [(300,)])


def test_a_retry_does_not_keep_rejected_rows_twice(warehouse, s3, bucket):
    put(s3, "a.json", SONG, SONG | {"year": "MMXV"})
    for _ in range(2):
        stage_songs(max_rejected_rows=10).execute(context())
    assert warehouse.get_first("SELECT COUNT(*) FROM etl_rejected_rows")[0] == 1


def test_a_file_with_too_many_rejected_rows_is_quarantined_with_the_line(warehouse, s3, bucket, logged):
    s3.load_string(json.dumps(SONG) + '\n{"song_id": "SO2", oops\n', "songs/a.json", bucket)
    put(s3, "b.json", SONG | {"song_id": "SO3"})
    result = stage_songs().execute(context())
    assert (result["files"], result["quarantined"], result["rejected"]) == (1, 1, 1)
    assert "s3://staging-tests/songs/a.json line 2" in logged()
    assert rows(warehouse, "SELECT song_id FROM staging_songs") == [("SO3",)]
    assert warehouse.get_first("SELECT line_number, raw_line FROM etl_rejected_rows") == [
        2,
        '{"song_id": "SO2", oops',
    ]


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("s3://no-such-bucket/songs/", "no such bucket"),
        ("s3://staging-tests/sogns/", "Nothing lies below"),
    ],
)
def test_a_missing_source_fails_by_name(warehouse, bucket, prefix, message):
    with pytest.raises(Exception, match=message) as failure:
        stage_songs(prefix=prefix).execute(context())
    assert prefix in str(failure.value)


def test_an_unreachable_warehouse_is_named_in_one_line(s3, bucket, monkeypatch):
    nowhere = "postgres://u:secret@127.0.0.1:1/d"  # checkov:skip=CKV_SECRET_4:made up
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", nowhere)
    put(s3, "a.json", SONG)
    said = "Staging staging_songs failed on connection 'nowhere': .*refused.* Nothing listens there: is the "
    with pytest.raises(TransientError, match=re.compile(said, re.DOTALL)) as failure:
        stage_songs(conn_id="nowhere").execute(context())
    assert "secret" not in str(failure.value)


def test_a_file_that_is_deleted_between_listing_and_copy_is_retried(warehouse, s3, bucket, monkeypatch):
    put(s3, "a.json", SONG)
    put(s3, "b.json", SONG | {"song_id": "SO2"})
    stage = stage_songs()
    statement = stage.copy_statement

    def deleted_before(manifest_url, options):
        s3.delete_objects(bucket, "songs/b.json")
        return statement(manifest_url, options)

    monkeypatch.setattr(stage, "copy_statement", deleted_before)
    with pytest.raises(TransientError, match=r"NoSuchKey.* The object was deleted after it was listed"):
        stage.execute(context())
    assert stage_songs().execute(context())["staged"] == 1


def test_a_missing_connection_is_named(s3, bucket):
    put(s3, "a.json", SONG)
    with pytest.raises(AirflowFailException) as failure:
        stage_songs(conn_id="no_such").execute(context())
    assert str(failure.value) == (
        "Staging staging_songs failed: the Airflow connection no_such does not exist."
        " Create it as .env.example shows."
    )


def test_it_works_on_a_postgres_connection_too(warehouse, s3, bucket, monkeypatch, stack):
    monkeypatch.setenv("AIRFLOW_CONN_AS_POSTGRES", stack.redshift_dsn)
    put(s3, "a.json", SONG, SONG | {"year": "MMXV"})
    stage = stage_songs(conn_id="as_postgres", max_rejected_rows=10)
    assert isinstance(stage.get_db_hook(), DbApiHook)
    assert stage.get_db_hook().conn_type == "postgres"
    result = stage.execute(context())
    assert (result["staged"], result["rejected"]) == (1, 1)


def test_a_member_that_no_column_takes_is_told_once_and_counted(warehouse, s3, bucket, logged):
    for name in ("a", "b", "c"):
        put(s3, f"{name}.json", SONG | {"bpm": 120})
    result = stage_songs().execute(context())
    assert (result["staged"], result["unknown_members"]) == (3, 1)
    assert logged().count("staging_songs: 1 members of the newest objects have no column") == 1
    assert "'bpm' (such as '120')" in logged()


def test_members_that_have_a_column_are_not_told(warehouse, s3, bucket, logged):
    put(s3, "a.json", SONG)
    assert stage_songs().execute(context())["unknown_members"] == 0
    assert "newest objects" not in logged()


def test_a_renamed_key_is_reported_when_copy_rejects_its_rows(warehouse, s3, bucket, logged):
    put(s3, "a.json", {"songId": "SO1", "title": "Setanta matins"})
    assert stage_songs().execute(context())["quarantined"] == 1
    assert "'songId' (such as 'SO1'). None of these objects has" in logged()


def links(task):
    ti_key = SimpleNamespace(run_id="scheduled__2018-11-01T00:00:00+00:00")
    return {link.name: link.get_link(task, ti_key=ti_key) for link in task.operator_extra_links}


def test_a_manifest_can_be_looked_at_also_when_its_file_is_quarantined(warehouse, s3, bucket):
    put(s3, "a.json", SONG | {"year": "last"})
    task = stage_songs()
    assert task.execute(context())["quarantined"] == 1
    with urlopen(links(task)["Manifest"]) as answer:
        assert [entry["url"] for entry in json.load(answer)["entries"]] == ["s3://staging-tests/songs/a.json"]


def test_without_news_there_is_no_manifest_to_look_at(warehouse, s3, bucket):
    put(s3, "a.json")
    task = stage_songs()
    task.execute(context())
    assert links(task)["Manifest"] == ""


@pytest.mark.parametrize(
    ("region", "console"), [("us-west-2", "console.aws.amazon.com"), ("cn-north-1", "console.amazonaws.cn")]
)
def test_a_manifest_on_amazons_s3_is_shown_by_its_console(monkeypatch, region, console):
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws", "extra": {"region_name": region}})
    )
    address = object_page(S3Hook(), "s3://etl/runs/r/a b.manifest", region)
    assert address == f"https://{console}/s3/object/etl?region={region}&prefix=runs%2Fr%2Fa+b.manifest"


@pytest.mark.skipif(not HAS_PAGES, reason="Airflow 3.0 has no place for a page")
def test_rejected_rows_are_found_below_the_address_of_the_web_ui(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/team/")
    assert links(stage_songs())["Rejected rows"] == (
        "https://airflow.example.com/team/plugin/sparkify/sparkify/#pipeline"
        "?dataset=staging_songs&run=scheduled__2018-11-01T00%3A00%3A00%2B00%3A00"
    )
