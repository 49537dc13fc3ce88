"""Runs that S3 tells what is new, by way of an SQS queue."""

import json
from datetime import timedelta
from itertools import pairwise

import pytest
from airflow.providers.amazon.aws.hooks.sqs import SqsHook

from sparkify import new_files, notifications
from sparkify.files import split_url
from sparkify.notifications import created_objects
from sparkify.operators import stage_to_redshift
from sparkify.state import WAREHOUSE
from tests.conftest import rows
from tests.runs import EVENT, OTHER_SONG, Runs, asked

LIST, LOOK_UP = ("ListObjectsV2", "runs"), ("HeadObject", "runs")
LATER = "log_data/2018/11/later.json"


class NotifiedRuns(Runs):
    """Runs over a bucket that notifies a queue."""

    def __init__(self, s3):
        super().__init__(s3)
        self.sqs = SqsHook(aws_conn_id="aws_default").get_conn()
        self.url = self.sqs.create_queue(QueueName="new-objects")["QueueUrl"]
        self.variables["sparkify_queue_url"] = self.url

    def send(self, body):
        self.sqs.send_message(
            QueueUrl=self.url, MessageBody=body if isinstance(body, str) else json.dumps(body)
        )

    def messages(self):
        """Return how many messages wait, and how many are held by a run."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return tuple(int(found[name]) for name in names)

    def release(self, receipts):
        """Let the time pass for which a run holds messages."""
        for receipt in receipts:
            self.sqs.change_message_visibility(QueueUrl=self.url, ReceiptHandle=receipt, VisibilityTimeout=0)

    def receipts(self, run):
        bucket, key = split_url(run["find_new_files"]["messages"]["receipts"])
        return json.loads(self.s3.read_key(key, bucket))


@pytest.fixture
def runs(warehouse, s3):
    """The first run is over, so that the inputs were listed lately."""
    s3.create_bucket("runs", region_name="us-west-2")
    runs = NotifiedRuns(s3)
    arn = runs.sqs.get_queue_attributes(QueueUrl=runs.url, AttributeNames=["QueueArn"])
    queue = {
        "QueueArn": arn["Attributes"]["QueueArn"],
        "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
    }
    s3.get_conn().put_bucket_notification_configuration(
        Bucket="runs", NotificationConfiguration={"QueueConfigurations": [queue]}
    )
    runs.put("song_data/other.json", OTHER_SONG)
    runs.put("log_data/1.json", EVENT)
    runs()
    assert runs.messages() == (0, 0)
    yield runs
    runs.sqs.delete_queue(QueueUrl=runs.url)
    s3.delete_bucket("runs", force_delete=True)


def put_later(runs, **fields):
    runs.put(LATER, EVENT | {"sessionId": 819} | fields)


def notification(key, name="ObjectCreated:Put", bucket="runs", **fields):
    """
    Return a message as S3 sends it.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-west-2",
        "eventTime": "1970-01-01T00:00:00.000Z",
        "eventName": name,
        "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {
            "x-amz-request-id": "C3D13FE58DE4C810",
            "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQp",
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "testConfigRule",
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": f"arn:aws:s3:::{bucket}",
            },
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e"} | fields,
        },
    }
    return {"Records": [record]}


def test_what_is_announced_is_loaded_and_nothing_is_listed(runs, s3_requests, warehouse):
    put_later(runs)
    s3_requests.clear()
    run = runs()
    assert run["stage_events"]["files"] == run["load_fact_songplays"]["inserted"] == 1
    assert (s3_requests[LIST], s3_requests[LOOK_UP], run["stage_songs"]["files"]) == (0, 1, 0)
    assert runs.messages() == (0, 0)
    recorded = "SELECT COUNT(*), COUNT(DISTINCT etag) FROM etl_files WHERE dataset = 'staging_events'"
    assert rows(warehouse, recorded) == [(2, 2)]


def test_an_hour_without_messages_asks_neither_s3_nor_the_warehouse(runs, s3_requests, warehouse):
    counts = [asked(warehouse), asked(warehouse)]
    s3_requests.clear()
    assert runs() == {"find_new_files": False}
    assert s3_requests == {}
    counts.append(asked(warehouse))
    without, with_run = (
        [after - before for before, after in zip(*pair, strict=True)] for pair in pairwise(counts)
    )
    assert with_run == without


def test_messages_of_no_concern_are_done_with(runs, s3_requests):
    runs.put("reports/1.json", {})
    runs.send({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "runs"})
    runs.send(notification("log_data/9.json", bucket="another"))
    runs.s3.delete_objects("runs", "reports/1.json")
    s3_requests.clear()
    assert runs() == {"find_new_files": False}
    assert s3_requests == {}
    assert runs.messages() == (0, 0)


def test_messages_that_come_twice_and_out_of_order_load_each_version_once(runs, warehouse):
    put_later(runs, level="free")
    put_later(runs, level="paid")
    runs.send(notification(LATER, eTag="of-a-version-before", sequencer="0055AED6DCD90281E4"))
    assert runs()["stage_events"]["files"] == 1
    runs.send(notification(LATER, sequencer="0055AED6DCD90281E5"))
    again = runs()
    assert (again["stage_events"]["files"], again["stage_events"]["ledger_file"]) == (0, None)
    loaded = "SELECT level FROM fact_songplays WHERE session_id = 819"
    recorded = f"SELECT COUNT(*) FROM etl_files WHERE s3_key = '{LATER}'"
    assert (rows(warehouse, loaded), rows(warehouse, recorded)) == ([("paid",)], [(1,)])


def test_an_object_that_is_gone_is_passed_over(runs, logged):
    put_later(runs)
    runs.put("log_data/gone.json", EVENT)
    runs.s3.delete_objects("runs", "log_data/gone.json")
    run = runs()
    assert run["stage_events"]["files"] == 1
    assert "s3://runs/log_data/: 2 keys were announced, 1 of them are gone" in logged()


@pytest.mark.parametrize("name", ["a b.json", "a+b.json", "Zoë Øre 100% & more=?.json"])
def test_a_key_of_any_characters_is_found(runs, warehouse, name):
    runs.put(f"log_data/{name}", EVENT | {"sessionId": 819})
    assert runs()["load_fact_songplays"]["inserted"] == 1
    assert (f"log_data/{name}",) in rows(warehouse, "SELECT s3_key FROM etl_files")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("Zoë, zoe@example.com", "no JSON"),
        (["Zoë"], "JSON, but no object"),
        ({"Type": "Notification", "Message": "Zoë"}, r"its members are Message, Type\)"),
        ({"Records": [{"eventName": "ObjectCreated:Put", "dynamodb": "Zoë"}]}, "no event notification"),
        ({"Records": [{"body": "Zoë"}]}, "no event notification"),
        ({"Records": "Zoë"}, "no event notification"),
    ],
)
def test_a_message_of_anybody_else_is_told_without_its_content(body, what):
    with pytest.raises(ValueError, match=what) as told:
        created_objects(body if isinstance(body, str) else json.dumps(body))
    assert "Zo" not in str(told.value)


def test_a_message_of_anybody_else_is_left_in_the_queue(runs, logged):
    runs.send({"user": "Zoë"})
    assert runs() == {"find_new_files": False}
    assert "is no event notification that S3 sent to the queue itself" in logged()
    assert runs.messages() == (0, 1)


def test_a_run_that_ends_after_any_task_is_made_good_by_the_next(runs, warehouse):
    tasks = [task.task_id for task in runs.pipeline.dag.topological_sort()]
    for number, task in enumerate(tasks[:-1], start=1):
        put_later(runs, itemInSession=number)
        run = runs.pipeline.run(f"cut off after {task}", variables=runs.variables, to_task=task)
        assert runs.messages() == (0, 1), task
        runs.release(runs.receipts(run))
        assert runs()["stage_events"]["files"] == 1, task
        assert runs.messages() == (0, 0), task
    loaded = rows(warehouse, "SELECT COUNT(*), COUNT(DISTINCT songplay_id) FROM fact_songplays")
    assert loaded == [(len(tasks), len(tasks))]  # of each version of the file, and of that before


def test_messages_of_a_task_that_dies_in_the_middle_come_again_and_its_retry_does_without(
    runs, s3_requests, monkeypatch
):
    put_later(runs)
    with monkeypatch.context() as patch:
        patch.setattr(new_files, "look_up", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runs.pipeline.run("dies", variables=runs.variables)
    assert runs.messages() == (0, 1)
    s3_requests.clear()
    retried = runs.pipeline.run("dies", variables=runs.variables)
    assert (retried["load_fact_songplays"]["inserted"], s3_requests[LIST]) == (1, 2)


def test_messages_that_cannot_be_deleted_fail_nothing(runs, logged):
    put_later(runs)
    run = runs.pipeline.run("unlucky", variables=runs.variables, to_task="check_star")
    bucket, key = split_url(run["find_new_files"]["messages"]["receipts"])
    runs.s3.load_string('["none"]', key, bucket, replace=True)
    runs.pipeline.run("unlucky", variables=runs.variables, from_task="record_files")
    assert "A message was not deleted, and may come again: ReceiptHandleIsInvalid" in logged()
    runs.s3.delete_objects(bucket, key)
    runs.pipeline.run("unlucky", variables=runs.variables, from_task="record_files")
    assert "were not deleted, and will come again: The work file" in logged()
    runs.sqs.purge_queue(QueueUrl=runs.url)


def test_a_queue_that_is_not_there_fails_by_name(runs):
    runs.variables["sparkify_queue_url"] += "-of-old"
    with pytest.raises(Exception, match=r"Cannot receive messages of .*: there is no such queue: correct"):
        runs()


def test_what_is_remembered_of_the_listing_stays_as_it_was(runs):
    state = runs.pipeline.asset_state[WAREHOUSE.name]
    before = dict(state)
    put_later(runs)
    assert runs()["stage_events"]["listing"] is None
    assert state == before


def test_a_later_try_of_staging_lists(runs, s3_requests):
    put_later(runs)
    runs()
    put_later(runs, level="free")
    s3_requests.clear()
    again = runs.pipeline.run("run-2", variables=runs.variables, from_task="stage_events")
    assert (again["load_fact_songplays"]["updated"], again["stage_events"]["files"]) == (1, 1)
    assert (s3_requests[LIST], s3_requests[LOOK_UP]) == (2, 0)


@pytest.mark.parametrize("task", ["find_new_files", "stage_events", "check_star"])
def test_a_run_after_one_that_failed_loads_what_that_one_holds(runs, warehouse, task):
    put_later(runs)
    runs.pipeline.run("fails", variables=runs.variables, to_task=task)
    assert runs.messages() == (0, 1)
    assert runs()["stage_events"]["files"] == 1
    assert rows(warehouse, "SELECT COUNT(*) FROM fact_songplays WHERE session_id = 819") == [(1,)]
    put_later(runs, itemInSession=1)
    assert runs()["stage_events"]["listing"] is None


def grow_old(runs):
    runs.pipeline.asset_state[WAREHOUSE.name]["listings"]["recorded_at"] = "2020-01-01T00:00:00+00:00"


def test_once_a_day_a_listing_finds_what_was_not_announced(runs, s3_requests, logged, monkeypatch):
    monkeypatch.setattr(stage_to_redshift, "ANNOUNCED_WITHIN", timedelta(days=-1))
    put_later(runs)
    runs.sqs.purge_queue(QueueUrl=runs.url)
    runs.put("log_data/announced.json", EVENT | {"sessionId": 820})
    grow_old(runs)
    s3_requests.clear()
    assert runs()["stage_events"]["files"] == 2
    assert (s3_requests[LIST], s3_requests[LOOK_UP], runs.messages()) == (2, 0, (0, 0))
    missed = f"1 new objects were listed that S3 did not announce, such as s3://runs/{LATER}."
    assert f"s3://runs/log_data/: {missed} Unless they are older" in logged()
    assert runs() == {"find_new_files": False}


def test_what_was_announced_or_is_new_does_not_count_as_missed(runs, logged):
    put_later(runs)
    runs.sqs.purge_queue(QueueUrl=runs.url)  # it may still be on its way
    grow_old(runs)
    assert runs()["stage_events"]["files"] == 1
    assert "did not announce" not in logged()


@pytest.mark.parametrize("params", [{"check_ledger": True}, {"reload_prefix": "s3://runs/log_data/1"}])
def test_a_run_that_is_asked_for_more_lists(runs, s3_requests, params):
    put_later(runs)
    s3_requests.clear()
    assert runs(**params)["load_fact_songplays"]["inserted"] == 1
    assert (s3_requests[LIST], runs.messages()) == (2, (0, 0))


def test_a_dry_run_leaves_the_messages_alone(runs, logged):
    put_later(runs)
    assert runs(dry_run=True) == {"find_new_files": False}
    assert "staging_events would stage 1 files" in logged()
    assert runs.messages() == (1, 0)


def test_another_prefix_is_listed_first(runs, s3_requests):
    runs.variables["sparkify_log_data"] += "2018/"
    runs.put(LATER, EVENT | {"sessionId": 819})
    runs.sqs.purge_queue(QueueUrl=runs.url)
    s3_requests.clear()
    assert runs()["stage_events"]["files"] == 1
    assert s3_requests[LIST] == 2


def test_what_a_run_does_not_receive_is_left_for_the_next(runs, logged, monkeypatch):
    monkeypatch.setattr(notifications, "MOST_MESSAGES", 10)
    for number in range(12):
        runs.put(f"log_data/{number}.json", EVENT | {"sessionId": 900 + number})
    assert runs()["stage_events"]["files"] == 10
    assert "A run receives 10 messages at most" in logged()
    assert runs()["stage_events"]["files"] == 2
