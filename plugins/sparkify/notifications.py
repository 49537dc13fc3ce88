"""
What S3 tells of new objects: its event notifications, received from an SQS queue.

They come at least once, in any order, and perhaps for an object that is gone by now
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-event-types-and-destinations.html).
So they say only where to look. A run deletes its messages when all is recorded; those of a run that does not
get there are seen again by the next one.
"""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import unquote_plus

from botocore.exceptions import BotoCoreError, ClientError

from sparkify.advice import aws_advice
from sparkify.files import SourceError, split_url

log = logging.getLogger(__name__)

# As many as SQS takes in one request, to receive and to delete.
BATCH = 10
# So many messages does a run receive at most. SQS hands out 120,000 that are not deleted
# (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html).
MOST_MESSAGES = 100_000
# For so long nobody else receives them: a little less than until the next hour's run, which shall have those
# of a run that failed. A receipt is good for longer, until the message is received again.
HELD_FOR = timedelta(minutes=55)
# Where nothing waits, an answer of SQS that does not wait either may be wrong
# (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html).
WAIT_SECONDS = 1
# By then a run has been told of an object: in an hour the next one, and in two the one that gets the messages
# of a run that failed.
ANNOUNCED_WITHIN = timedelta(hours=2)


@dataclass(frozen=True)
class Notifications:
    """
    The messages that a run has received.

    :param created: bucket and key of each object that was said to be created
    :param receipts: what each message is deleted by
    :param complete: whether none was left in the queue
    """

    created: frozenset[tuple[str, str]]
    receipts: list[str]
    complete: bool

    def keys_below(self, prefix: str) -> list[str]:
        """
        Return the keys below a prefix, in order.

        :param prefix: ``s3://bucket/prefix``
        """
        bucket, key_prefix = split_url(prefix)
        return sorted(key for name, key in self.created if name == bucket and key.startswith(key_prefix))


def queue(url: str) -> str:
    """
    Return the address of a queue, if it is one that S3 can notify, which it does of no FIFO queue.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/EventNotifications.html

    :param url: ``https://sqs.<region>.amazonaws.com/<account>/<name>``
    :raises ValueError: if it is anything else
    """
    if not re.fullmatch(r"https?://[^/\s]+/\d{12}/[A-Za-z0-9_-]{1,80}", url):
        raise ValueError(
            f"{url!r} is not the URL of a standard SQS queue, https://sqs.<region>.amazonaws.com/<account>/<name>"
        )
    return url


def sqs_client(aws_conn_id: str) -> Any:
    """
    Return the client of SQS; boto3 is imported only now, as in :func:`sparkify.files.s3_hook`.

    :param aws_conn_id: the AWS connection
    """
    from airflow.providers.amazon.aws.hooks.sqs import SqsHook

    return SqsHook(aws_conn_id=aws_conn_id).get_conn()


def receive_notifications(aws_conn_id: str, queue_url: str) -> Notifications:
    """
    Receive all messages of the queue.

    One that is no notification of S3's is left to the queue's redrive policy, with a warning.

    :param aws_conn_id: the AWS connection
    :param queue_url: the queue
    :raises SourceError: if there is no such queue, or it may not be received from
    """
    sqs = sqs_client(aws_conn_id)
    receipts: dict[str, str] = {}
    created: set[tuple[str, str]] = set()
    received, complete = 0, False
    while not complete and received < MOST_MESSAGES:
        try:
            answer = sqs.receive_message(
                QueueUrl=queue_url,
                MaxNumberOfMessages=BATCH,
                VisibilityTimeout=int(HELD_FOR.total_seconds()),
                WaitTimeSeconds=WAIT_SECONDS,
            )
        except (BotoCoreError, ClientError) as error:
            advice = aws_advice(error, "sqs:ReceiveMessage", queue_url)
            raise SourceError(f"Cannot receive messages of {queue_url}: {advice}") from error
        messages = answer.get("Messages", [])
        received, complete = received + len(messages), not messages
        for message in messages:
            try:
                created.update(created_objects(message["Body"]))
            except ValueError as what:
                log.warning("Message %s is %s, and left in the queue", message["MessageId"], what)
            else:
                receipts[message["MessageId"]] = message["ReceiptHandle"]
    log.info("%s: %d messages of %d objects", queue_url, len(receipts), len(created))
    if not complete:
        log.warning("A run receives %d messages at most: the next one takes what is left", MOST_MESSAGES)
    return Notifications(frozenset(created), list(receipts.values()), complete)


def created_objects(body: str) -> list[tuple[str, str]]:
    """
    Return bucket and key of each object that a message says was created.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html

    :param body: the message
    :raises ValueError: says what it is, if it is no event notification of S3's
    """
    try:
        event = json.loads(body)
    except ValueError:
        raise ValueError("no JSON") from None
    if not isinstance(event, dict):
        raise ValueError("JSON, but no object")
    if event.get("Event") == "s3:TestEvent":  # comes when a bucket's notifications are set up
        return []
    try:
        return [
            (record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
            for record in event["Records"]
            if record["eventName"].startswith("ObjectCreated:")
        ]
    except (AttributeError, KeyError, TypeError):
        members = ", ".join(sorted(event)[:BATCH])
        raise ValueError(
            f"no event notification that S3 sent to the queue itself (its members are {members})"
        ) from None


def delete_messages(aws_conn_id: str, queue_url: str, receipts: Sequence[str]) -> None:
    """
    Delete messages. A failure is logged, no more: what a message tells again is in the ledger by then.

    :param aws_conn_id: the AWS connection
    :param queue_url: the queue
    :param receipts: by which each is deleted
    """
    sqs, deleted = sqs_client(aws_conn_id), 0
    for start in range(0, len(receipts), BATCH):
        batch = receipts[start : start + BATCH]
        entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(batch)]
        try:
            answer = sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)
        except (BotoCoreError, ClientError) as error:
            advice = aws_advice(error, "sqs:DeleteMessage", queue_url)
            log.warning("Messages of %s were not deleted, and will come again: %s", queue_url, advice)
            break
        deleted += len(answer.get("Successful", []))
        for failure in answer.get("Failed", []):
            log.warning(
                "A message was not deleted, and may come again: %s %s",
                *(failure["Code"], failure.get("Message", "")),
            )
    log.info("%s: %d messages deleted", queue_url, deleted)
