"""What to do, in AWS's terms, when AWS or the warehouse refuses something."""

import re

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)

_KEY = "the AWS connection's access key"
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and, of all services,
# https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
_BY_CODE = {
    ("AccessDenied", "AccessDeniedException", "AllAccessDisabled", "403"): (
        "grant {action} on {resource} to the identity of the AWS connection. If the bucket belongs to another"
        " account, or its policy denies this, also change the bucket's policy"
    ),
    ("NoSuchBucket", "404"): "there is no such bucket: correct the name, or create it",
    ("NoSuchKey",): "there is no such object",
    ("SlowDown", "503"): (
        "S3 asked us to slow down. If this persists, use a longer prefix in the Airflow variables"
        " sparkify_log_data and sparkify_song_data"
    ),
    ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"): (
        "there is no such queue: correct the Airflow variable sparkify_queue_url, and set region_name of the"
        " AWS connection to the queue's region"
    ),
    ("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"): (
        f"{_KEY} does not exist: correct it, or remove it if Airflow runs with a role of its own"
    ),
    ("SignatureDoesNotMatch", "InvalidSignatureException"): f"{_KEY} does not match its secret: correct both",
    ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"): (
        "the AWS connection's temporary credentials (aws_session_token) have expired: renew them, or remove"
        " them if Airflow runs with a role of its own"
    ),
    ("RequestTimeTooSkewed",): "set the clock of the machine that Airflow runs on",
    (
        "PermanentRedirect",
        "301",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "IncorrectEndpoint",
    ): "the bucket is in another region: set region_name of the AWS connection, and the Airflow variable"
    " sparkify_s3_region",
    ("ClusterNotFound", "ClusterNotFoundFault"): (
        "set cluster_identifier in the redshift connection's extra, and the cluster's region as region_name"
        " of the AWS connection"
    ),
    ("ResourceNotFoundException",): (
        "set serverless_work_group in the redshift connection's extra, and the workgroup's region as"
        " region_name of the AWS connection"
    ),
}
_BY_ANY_CODE = {code: advice for codes, advice in _BY_CODE.items() for code in codes}

_ROLE = "the IAM role of the Airflow variable sparkify_iam_role"
_ATTACH = (
    "Attach {0} to the cluster, or to the namespace of the Serverless workgroup, and let its trust policy"
    " allow sts:AssumeRole to redshift.amazonaws.com, on Serverless also to redshift-serverless.amazonaws.com"
    " (a condition on aws:SourceArn must name this warehouse); or correct the variable sparkify_iam_role"
)
_OR_OWN = ", or trigger sparkify_create_roles, which creates a user who owns the tables' schema"
# Messages of Redshift or its driver; the first that matches counts. {0} is the first group.
_BY_MESSAGE = (
    (r"is not authorized to assume IAM Role\s+(\S+)", _ATTACH),
    (r"Not authorized to get credentials of role\s+(\S+)", _ATTACH),
    (
        r'ASSUMEROLE permission on IAM role "?([^"]+)"? for COPY',
        "GRANT ASSUMEROLE ON '{0}' to the connection's user FOR COPY, as sparkify_create_roles does",
    ),
    (
        r"Access ?Denied.*Listing bucket=(\S+) prefix=(\S*)",
        f"Grant s3:ListBucket on arn:aws:s3:::{{0}} with the prefix {{1}} to {_ROLE}",
    ),
    (
        r"Access ?Denied.*S3 key being read : s3://(\S+)",
        f"Grant s3:GetObject on arn:aws:s3:::{{0}} to {_ROLE}",
    ),
    (
        r"Access ?Denied|requires full path of an S3 object",
        "Grant s3:ListBucket on the bucket and s3:GetObject on its objects (kms:Decrypt on its key, if it has"
        f" one) to {_ROLE}",
    ),
    (r"NoSuchBucket", "There is no such bucket: correct the Airflow variable that names it"),
    (
        r"Error NoSuchKey|Mandatory url is not present",
        "The object was deleted after it was listed. The next try lists the prefix again",
    ),
    (
        r"Error SlowDown|Status 503",
        "S3 asked Redshift to slow down. If this persists, load fewer and larger files",
    ),
    (
        r'INSERT has more (?:expressions|target columns)|column "?[^ ]+"? (?:of relation .*)?does not exist',
        "A table is not as defined. Trigger sparkify_check_setup: it lists every difference",
    ),
    (
        r"PermanentRedirect|AuthorizationHeaderMalformed|specified endpoint|different region|Status 301",
        "Set the Airflow variable sparkify_s3_region to the region of the bucket",
    ),
    (
        r'password authentication failed for user "(IAMA?:[^"]+)"',
        "The database user of {0} must exist: create it, or correct db_user and login of the connection",
    ),
    (
        r"password authentication failed",
        "Correct login and password of the connection, or reset them by ALTER USER … PASSWORD",
    ),
    (r'database "([^"]+)" does not exist', 'Correct "schema" of the connection, which names the database'),
    (
        r'relation "([^"]+)" does not exist',
        "Trigger sparkify_etl, which creates the tables. If they exist, add their schema to the search_path"
        " of the connection's user",
    ),
    (
        r'role "?([^"\s]+)"? does not exist',
        "Trigger sparkify_create_roles, which creates the role of the Airflow variable"
        " sparkify_analysts_role, or delete the variable",
    ),
    (
        r'schema "?([^"\s]+)"? does not exist',
        "Set the Airflow variable sparkify_schema to the schema that holds the tables, or trigger"
        " sparkify_create_roles, which creates it",
    ),
    (
        r"permission denied for schema (\S+)",
        f"GRANT USAGE, CREATE ON SCHEMA {{0}} to the connection's user{_OR_OWN}",
    ),
    (
        r"permission denied (?:for database|to create temporary tables in database) (\S+)",
        f"GRANT TEMP ON DATABASE {{0}} to the connection's user{_OR_OWN}",
    ),
    (
        r"permission denied for (?:relation|table) (\S+)",
        f"GRANT SELECT, INSERT, DELETE ON {{0}} to the connection's user{_OR_OWN}",
    ),
    (
        r"Hostname mismatch|IP address mismatch|doesn't match",
        "The server's certificate is for another host: set the connection's host to the endpoint that the"
        ' console shows. If you use another name for the warehouse, set "sslmode": "verify-ca" in its extra',
    ),
    (
        r"certificate verify failed",
        "Amazon has not signed the server's certificate: is the connection's host right? Does a proxy between"
        " Airflow and the warehouse decrypt the traffic?",
    ),
    (
        r"SSL must be enabled|SSL off|Server refuses SSL",
        'The warehouse refuses logins without TLS: remove "ssl" from the connection\'s extra',
    ),
    (r"(cluster_identifier|db_user|serverless_work_group) ", "Set {0} in the connection's extra"),
    (
        r"Connection refused",
        "Nothing listens there: is the warehouse available and not paused, and is the connection's port"
        " right?",
    ),
    (
        r"timed? out|time out|unreachable",
        "Is the warehouse available and not paused? Does its security group admit the port from Airflow's"
        " subnet or security group, and does a route lead there?",
    ),
    (
        r"not known|name resolution|nodename",
        "Correct the connection's host. The name of a private warehouse is only known in its VPC",
    ),
)
_BY_SQLSTATE = {
    "57014": "Somebody or a time-out cancelled the statement",
    "53100": "The warehouse's disk is full: delete tables that nobody needs, or resize it",
    "53300": "The warehouse has too many connections: end some, or wait",
    "55P03": "Another session holds a lock: SELECT * FROM svv_transactions shows which",
    None: "Is the warehouse running, and are the connection's host, port and user right?",
}

#: The permission that a login by IAM needs.
IAM_LOGIN = "redshift:GetClusterCredentials (on Serverless redshift-serverless:GetCredentials)"


def aws_advice(error: ClientError | BotoCoreError, action: str, resource: str) -> str:
    """
    Return AWS's message, and what to do.

    :param error: what boto3 raised
    :param action: the IAM action that was refused, such as ``s3:ListBucket``
    :param resource: its resource, as an ARN
    """
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        said = error.response["Error"].get("Message", code).rstrip(".")
        # AWS may name another action than the caller's, such as kms:Decrypt of the bucket's key.
        named = re.search(r'perform: (\S+)(?: on resource: "?([^\s"]+))?', said)
        if named:
            action, resource = named[1], named[2] or resource
        advice = _BY_ANY_CODE.get(code, "").format(action=action, resource=resource)
        return ": ".join(filter(None, [f"{said} ({code})", advice]))
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return f"{error}: give Airflow's machine, task or pod a role, or the AWS connection a key"
    if isinstance(error, NoRegionError):
        return f"{error}: set region_name of the AWS connection"
    return (
        f"{error}: can Airflow reach AWS (by a NAT gateway, or a VPC endpoint of this service), and are the"
        " AWS connection's region_name and endpoint_url right?"
    )


def warehouse_advice(message: str, sqlstate: str | None = "") -> str | None:
    """
    Return what to do, None if that is not known.

    :param message: the message of the warehouse or its driver
    :param sqlstate: the error's SQLSTATE, None if the driver raised it
    """
    for pattern, advice in _BY_MESSAGE:
        found = re.search(pattern, message, re.IGNORECASE | re.DOTALL)
        if found:
            return advice.format(*(group.rstrip(".,:") for group in found.groups()))
    return _BY_SQLSTATE.get(sqlstate)
