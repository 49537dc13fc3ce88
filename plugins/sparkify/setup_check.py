"""
The steps of ``sparkify_check_setup``: each uses one thing that a run needs, and says what to change if it
fails. None asks for a permission that a run does not need.
"""

import functools
import json
import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ParamSpec

from airflow.sdk import Connection, get_current_context
from botocore.exceptions import BotoCoreError, ClientError
from botocore.exceptions import ConnectionError as UnreachableError

from sparkify import validation
from sparkify.advice import IAM_LOGIN, aws_advice, warehouse_advice
from sparkify.alerts import check_targets
from sparkify.errors import error_message, is_database_error
from sparkify.files import list_prefix, run_folder, s3_hook, split_url
from sparkify.notifications import sqs_client
from sparkify.operators import CreateTablesOperator
from sparkify.sql import (
    Transaction,
    copy_json,
    identifier,
    literal,
    run_in_transaction,
    run_one_by_one,
)
from sparkify.tables import DDL, MIGRATIONS, SQL_FOLDER, Column, defined_columns

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

log = logging.getLogger(__name__)

P = ParamSpec("P")
#: What a step found: ``found`` is for people, anything else for later steps.
Found = dict[str, str]

PROBLEM = "problem"  # the XCom that tells the summary why a step failed
TABLE_PRIVILEGES = ("SELECT", "INSERT", "DELETE")
CONNECT_SECONDS = 10
PACKAGES = (
    *("apache-airflow", "apache-airflow-providers-amazon", "apache-airflow-providers-common-sql"),
    *("apache-airflow-providers-standard", "redshift-connector", "boto3"),
)


class SetupError(Exception):
    """Something of the setup is not as a run needs it."""


def step(check: Callable[P, Found]) -> Callable[P, Found]:
    """
    Make a task of a check: log what it found or why it failed, and leave that to the summary, too.

    :param check: returns what it found
    """

    @functools.wraps(check)
    def run(*args: P.args, **kwargs: P.kwargs) -> Found:
        try:
            found = check(*args, **kwargs)
        except Exception as problem:
            log.error("%s", problem)
            get_current_context()["ti"].xcom_push(PROBLEM, str(problem) or repr(problem))
            raise
        log.info("%s", found["found"])
        return found

    return run


def check_settings(settings: Mapping[str, str], conn_id: str) -> Found:
    """
    Check the settings as every run does, and that the connections exist which alerts need.

    :param settings: the variables, by name; empty if one does not exist
    :param conn_id: the warehouse's connection
    :raises ValueError: names each wrong setting, with what to set
    """
    validation.check_settings(settings, conn_id)
    check_targets(settings["sparkify_alerts"])  # which a run does not need
    return {"found": ", ".join(f"{name} {value or 'not set'}" for name, value in settings.items())}


def show_versions() -> Found:
    """Return the versions of what runs here."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"found": ", ".join([f"Python {python}", *(f"{name} {version(name)}" for name in PACKAGES)])}


def identify_to_aws(aws_conn_id: str) -> Found:
    """
    Return who asks AWS, which needs no permission.

    :param aws_conn_id: the AWS connection
    :raises SetupError: if AWS does not know its credentials, or there are none
    """
    from airflow.providers.amazon.aws.hooks.sts import StsHook  # with boto3, as s3_hook

    with _asking_aws("sts:GetCallerIdentity", "*"):
        hook = StsHook(aws_conn_id=aws_conn_id)
        try:
            identity = hook.get_conn().get_caller_identity()
        except UnreachableError:  # as from a subnet that has an endpoint of S3 alone
            return {"found": "unknown, since STS is not reached from here; no run needs it"}
        return {"found": f"{identity['Arn']} in {hook.region_name}"}


def list_input(variable: str, prefix: str, region: str, aws_conn_id: str) -> Found:
    """
    List the files of an input, and read a byte of the smallest.

    :param variable: the Airflow variable that holds the prefix
    :param prefix: ``s3://bucket/prefix``
    :param region: the region that COPY will be told
    :param aws_conn_id: the AWS connection
    :raises SourceError: if it may not be listed, or there is nothing
    :raises SetupError: if the files may not be read, none is JSON, or the bucket is in another region
    """
    s3 = s3_hook(aws_conn_id)
    listing = list_prefix(s3, _required(variable, prefix))
    if not listing.objects:
        raise SetupError(
            f"{variable}: none of the {len(listing.ignored)} objects below {prefix} is a JSON file"
        )
    bucket, key_prefix = split_url(prefix)
    # COPY is given its address in a string constant, which cannot hold every key.
    smallest = min(listing.objects, key=lambda item: (bool(re.search(r"['\\]", item.key)), item.size))
    with _asking_aws("s3:GetObject", f"arn:aws:s3:::{bucket}/{key_prefix}*"):
        s3.get_conn().get_object(Bucket=bucket, Key=smallest.key, Range="bytes=0-0")["Body"].read()
    _check_region(s3, bucket, region)
    size = sum(item.size for item in listing.objects)
    return {
        "found": f"{len(listing.objects):,} files, {size:,} bytes below {prefix}",
        "smallest": smallest.url,
    }


def use_queue(queue_url: str, aws_conn_id: str) -> Found:
    """
    Ask the queue of S3's notifications how many wait, look at one, and delete one that is not there.

    :param queue_url: the queue; empty if there is none
    :param aws_conn_id: the AWS connection
    :raises SetupError: if there is no such queue, or it may not be used
    """
    if not queue_url:
        return {"found": "none: sparkify_queue_url is not set, and each run lists the inputs"}
    sqs, waiting = sqs_client(aws_conn_id), "ApproximateNumberOfMessages"
    with _asking_aws("sqs:GetQueueAttributes", queue_url):
        attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=[waiting])["Attributes"]
    with _asking_aws("sqs:ReceiveMessage", queue_url):
        sqs.receive_message(QueueUrl=queue_url, VisibilityTimeout=0)  # so that a run receives it, too
    # Who may not delete is refused before the receipt is looked at.
    with _asking_aws("sqs:DeleteMessage", queue_url), suppress(sqs.exceptions.ReceiptHandleIsInvalid):
        sqs.delete_message(QueueUrl=queue_url, ReceiptHandle="none")
    return {"found": f"{attributes[waiting]} messages wait in {queue_url}"}


def write_file(work_prefix: str, dag_id: str, line: str, region: str, aws_conn_id: str) -> Found:
    """
    Write a file of one line of JSON below the work prefix, for COPY to read, and read it back.

    :param work_prefix: ``s3://bucket/prefix/``
    :param dag_id: names the folder
    :param line: what to write; it names the file, too
    :param region: the region that COPY will be told
    :param aws_conn_id: the AWS connection
    :raises SetupError: if that is refused, or the bucket is in another region
    """
    url = f"{run_folder(_required('sparkify_work_prefix', work_prefix), dag_id, line)}.json"
    bucket, key = split_url(url)
    s3, text = s3_hook(aws_conn_id), json.dumps({"setup_check": line})
    below = f"arn:aws:s3:::{work_prefix.removeprefix('s3://')}*"
    with _asking_aws("s3:PutObject", below):
        s3.load_string(text, key, bucket, replace=True)
    with _asking_aws("s3:GetObject", below):
        read = s3.get_conn().get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    if read != text:
        raise SetupError(f"{url} was written as {text}, and read as {read}: does anything else write there?")
    _check_region(s3, bucket, region)
    return {"found": f"wrote and read {url}", "url": url}


def delete_file(url: str, aws_conn_id: str) -> Found:
    """
    Delete the file that was written. Where that is not allowed it stays, for no run needs to delete anything.

    :param url: ``s3://…`` of the file, empty if there is none
    :param aws_conn_id: the AWS connection
    """
    if not url:
        return {"found": "nothing was written"}
    bucket, key = split_url(url)
    try:
        s3_hook(aws_conn_id).get_conn().delete_object(Bucket=bucket, Key=key)
    except ClientError as error:
        return {"found": f"{url} stays: {error.response['Error']['Code']}, and no run needs s3:DeleteObject"}
    return {"found": f"deleted {url}"}


def reach_warehouse(conn_id: str) -> Found:
    """
    Open a TCP connection to the warehouse, before the driver would try it for minutes.

    :param conn_id: the warehouse's connection
    :raises SetupError: if there is no such connection, or nothing answers
    """
    try:
        connection = Connection.get(conn_id)
    except Exception as error:  # whose class differs between Airflow's versions
        raise SetupError(
            f"There is no connection {conn_id} ({error}): create it as .env.example shows"
        ) from error
    host, port = connection.host, connection.port or 5439
    if not host:
        return {"found": "the connection names no host: the driver asks AWS for it"}
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            return {"found": f"{host}:{port} answers"}
    except OSError as error:
        raise SetupError(f"{host}:{port}: {error}. {warehouse_advice(str(error)) or ''}") from error


def log_in(conn_id: str) -> Found:
    """
    Log in to the warehouse.

    :param conn_id: the warehouse's connection
    :raises SetupError: if that is refused, or the user sees no schema
    """
    with _asking_the_warehouse(conn_id):
        hook: Any = Connection.get(conn_id).get_hook()
        with closing(hook.get_conn()) as connection, closing(connection.cursor()) as cursor:
            tls = getattr(getattr(connection, "_usock", None), "version", lambda: None)()
            cursor.execute("SELECT CURRENT_USER, CURRENT_DATABASE(), CURRENT_SCHEMA(), VERSION()")
            user, database, schema, server = cursor.fetchone()
    if not schema:
        raise SetupError(
            f"User {user} sees no schema of its search_path: trigger sparkify_create_roles, which gives the"
            f" user one, or GRANT USAGE, CREATE ON SCHEMA public TO {user}"
        )
    mode = hook.get_connection(conn_id).extra_dejson.get("sslmode", "the driver's own sslmode")
    return {
        "found": f"user {user}, database {database}, schema {schema},"
        f" {f'{tls} ({mode})' if tls else 'NOT ENCRYPTED'}, {server.rpartition(', ')[2]}"
    }


def copy_input(conn_id: str, url: str, iam_role: str, region: str) -> Found:
    """
    Let COPY read an input file, and load nothing.

    :param conn_id: the warehouse's connection
    :param url: ``s3://…`` of the file
    :param iam_role: the role that COPY reads it with
    :param region: the region that COPY is told
    :raises SetupError: if the role may not be assumed, or may not read it
    """
    _copy(conn_id, url, iam_role, region, ["NOLOAD", "MAXERROR 100000"])
    return {"found": f"the role reads {url}"}


def copy_file(conn_id: str, url: str, line: str, iam_role: str, region: str) -> Found:
    """
    Load the file that was written into a temporary table, and compare.

    :param conn_id: the warehouse's connection
    :param url: ``s3://…`` of the file
    :param line: what it holds
    :param iam_role: the role that COPY reads it with
    :param region: the region that COPY is told
    :raises SetupError: if the role may not be assumed or may not read it, or something else was read
    """
    rows = _copy(conn_id, url, iam_role, region, [])
    if rows != [line]:
        raise SetupError(f"COPY read {rows} of {url}, not {[line]}")
    return {"found": f"the role reads {url}, and COPY loaded its line"}


def check_privileges(conn_id: str, schema: str, analysts_role: str) -> Found:
    """
    Check that the user may create temporary tables, read, add and delete rows, and grant tables to analysts.

    :param conn_id: the warehouse's connection
    :param schema: the schema that analysts may use
    :param analysts_role: their role; empty if there is none
    :raises SetupError: names every privilege to grant, among them CREATE if tables are missing, or the role
        if it does not exist
    """

    def try_to_grant() -> Transaction[None]:
        # SVV_ROLES shows other users' roles to superusers only
        # (https://docs.aws.amazon.com/redshift/latest/dg/r_SVV_ROLES.html).
        yield f"GRANT USAGE ON SCHEMA {identifier(schema)} TO ROLE {identifier(analysts_role)}"
        yield "ROLLBACK"

    def transaction() -> Transaction[tuple[list[Any], list[Any]]]:
        (user,) = (
            yield "SELECT CURRENT_USER, CURRENT_SCHEMA(), HAS_SCHEMA_PRIVILEGE(CURRENT_SCHEMA(), 'CREATE'),"
            " CURRENT_DATABASE(), HAS_DATABASE_PRIVILEGE(CURRENT_DATABASE(), 'TEMP')"
        ).rows
        privileges = ", ".join(
            f"HAS_TABLE_PRIVILEGE(schemaname || '.' || tablename, '{each}')" for each in TABLE_PRIVILEGES
        )
        # https://docs.aws.amazon.com/redshift/latest/dg/r_HAS_TABLE_PRIVILEGE.html
        tables = yield (
            f"SELECT tablename, {privileges} FROM pg_tables WHERE schemaname = %s"
            f" AND tablename IN ({', '.join(literal(table) for table in DDL)})",
            [user[1]],
        )
        return user, tables.rows

    with _asking_the_warehouse(conn_id):
        hook = Connection.get(conn_id).get_hook()
        (user, own_schema, may_create, database, may_use_temp), tables = run_in_transaction(
            hook, transaction()
        )
    lacking = [f"TEMP ON DATABASE {database}"] if not may_use_temp else []
    if not may_create and len(tables) < len(DDL):
        lacking.append(f"CREATE ON SCHEMA {own_schema}")
    for table, *granted in tables:
        denied = [name for name, may in zip(TABLE_PRIVILEGES, granted, strict=True) if not may]
        lacking += [f"{', '.join(denied)} ON {own_schema}.{table}"] if denied else []
    if lacking:
        raise SetupError(
            "; ".join(f"GRANT {each} TO {user}" for each in lacking)
            + ". Or trigger sparkify_create_roles, which makes a user who owns the tables' schema"
        )
    found = f"user {user} may do all that a run does with {len(tables)} tables"
    if not analysts_role:
        return {"found": found}
    with _asking_the_warehouse(conn_id):
        run_in_transaction(hook, try_to_grant())
    return {"found": f"{found}, and may let the role {analysts_role} use schema {schema}"}


def compare_tables(conn_id: str) -> Found:
    """
    Compare the tables with their definitions: columns, their order, types and whether they may be null.

    :param conn_id: the warehouse's connection
    :raises SetupError: names every difference; a table that is not there yet is none, nor is one that the
        next run's migrations may mend
    """
    expected = {table: defined_columns((SQL_FOLDER / file).read_text()) for table, file in DDL.items()}

    def transaction() -> Transaction[tuple[str, list[Any]]]:
        ((schema,),) = (yield "SELECT CURRENT_SCHEMA()").rows
        names = ", ".join(literal(table) for table in DDL)
        # https://docs.aws.amazon.com/redshift/latest/dg/r_SVV_COLUMNS.html
        columns = yield (
            "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable"
            f" FROM svv_columns WHERE table_schema = %s AND table_name IN ({names})"
            " ORDER BY table_name, ordinal_position",
            [schema],
        )
        return schema, columns.rows

    with _asking_the_warehouse(conn_id):
        hook = Connection.get(conn_id).get_hook()
        schema, rows = run_in_transaction(hook, transaction())
        tables = CreateTablesOperator(task_id="look", ddl=DDL, migrations=MIGRATIONS)
        _, pending = run_one_by_one(hook, tables.look())
    found: dict[str, list[Column]] = {}
    for table, name, data_type, length, nullable in rows:
        kept = length if data_type.startswith("character") else None
        found.setdefault(table, []).append(Column(name, data_type, kept, nullable == "YES"))
    differences = [each for table in found for each in _differences(table, expected[table], found[table])]
    if differences and not pending:
        raise SetupError(
            f"In schema {schema}, {'; '.join(differences)}. ALTER TABLE, or trigger sparkify_create_tables,"
            " which drops all tables; the next run then loads everything again"
        )
    missing = [table for table in DDL if table not in found]
    notes = [
        f"{len(found)} of {len(DDL)} tables are in schema {schema}",
        *(["as defined"] if found and not differences else []),
        *([f"the next run creates {', '.join(missing)}"] if missing else []),
        *(["the next run applies " + ", ".join(pending)] if pending else []),
        *(["until then " + "; ".join(differences)] if differences else []),
    ]
    return {"found": ", ".join(notes)}


def summarize(steps: Sequence[str], ti: "RuntimeTaskInstanceProtocol") -> None:
    """
    Log what every step found, or why it failed.

    :param steps: their task ids, in running order
    :param ti: this task
    :raises SetupError: if one has failed or did not run
    """
    lines, bad = [], []
    for task_id in steps:
        found = ti.xcom_pull(task_ids=task_id)
        if found:
            lines.append(f"ok      {task_id}: {found['found']}")
            continue
        bad.append(task_id)
        problem = ti.xcom_pull(task_ids=task_id, key=PROBLEM)
        lines.append(
            f"FAILED  {task_id}: {problem}" if problem else f"-       {task_id}: no result; see its log"
        )
    log.info("Setup check: %d of %d steps passed\n%s", len(steps) - len(bad), len(steps), "\n".join(lines))
    if bad:
        raise SetupError(f"{len(bad)} of {len(steps)} steps did not pass: {', '.join(bad)}")


def _required(variable: str, value: str) -> str:
    if not value:
        raise SetupError(f"The Airflow variable {variable} does not exist. Create it as .env.example shows")
    return value


@contextmanager
def _asking_aws(action: str, resource: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise SetupError(f"{action} on {resource}: {aws_advice(error, action, resource)}") from error


@contextmanager
def _asking_the_warehouse(conn_id: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise SetupError(
            f"Connection {conn_id}, by IAM: {aws_advice(error, IAM_LOGIN, 'the warehouse')}. Airflow asks"
            " with the AWS connection, then the driver does again with boto3's default credentials"
        ) from error
    except Exception as error:
        if not is_database_error(error):
            raise
        message = error_message(error)
        raise SetupError(f"Connection {conn_id}: {message}. {warehouse_advice(message) or ''}") from error


def _check_region(s3: "S3Hook", bucket: str, region: str) -> None:
    """Hold the region of a bucket, which S3 tells even to those who may not read it, against the variable."""
    try:
        answer = s3.get_conn().head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    found = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", region)
    if found != region:
        raise SetupError(
            f"Bucket {bucket} is in {found}: set the Airflow variable sparkify_s3_region, now {region}, to"
            " it; COPY reads all buckets in one region"
        )


def _copy(conn_id: str, url: str, iam_role: str, region: str, options: Sequence[str]) -> list[str]:
    def transaction() -> Transaction[list[str]]:
        yield "CREATE TEMP TABLE setup_check (setup_check VARCHAR(512))"
        yield copy_json("setup_check", url, iam_role=iam_role, region=region, options=options)
        return [text for (text,) in (yield "SELECT setup_check FROM setup_check").rows]

    with _asking_the_warehouse(conn_id):
        return run_in_transaction(Connection.get(conn_id).get_hook(), transaction())


def _differences(table: str, expected: list[Column], found: list[Column]) -> Iterator[str]:
    there = {column.name: column for column in found}
    for column in expected:
        if column.name not in there:
            yield f"{table} lacks the column {column}"
        elif there[column.name] != column:
            yield f"{table} has {there[column.name]}, not {column}"
    names = [column.name for column in expected]
    for column in found:
        if column.name not in names:
            yield f"{table} has a column of its own, {column}"
    if {*names} == {*there} and names != list(there):
        yield f"{table} has its columns in another order, {', '.join(there)}, not {', '.join(names)}"
