"""
Passwords for ``"iam": true``, which the local S3's server hands out as Redshift's API does.

https://docs.aws.amazon.com/redshift/latest/APIReference/API_GetClusterCredentials.html
"""

import hmac
from datetime import UTC, datetime

from local.settings import REDSHIFT_PASSWORD


def sign(user: str, expires: datetime) -> str:
    """
    Return a password.

    :param user: the name to log in with, "IAM:" before it
    :param expires: until when it is taken
    """
    until = int(expires.timestamp())
    signature = hmac.new(REDSHIFT_PASSWORD.encode(), f"{until} {user}".encode(), "sha256").hexdigest()
    return f"{until}-{signature}"


def is_valid(user: str, password: str) -> bool:
    """
    Return whether a password was made for a user, and has not expired.

    :param user: the name as the client gives it
    :param password: what the client gives with it
    """
    until = password.partition("-")[0]
    if not (until.isdecimal() and len(until) <= 12):
        return False
    expires = datetime.fromtimestamp(int(until), UTC)
    return expires > datetime.now(UTC) and hmac.compare_digest(
        password.encode(), sign(user, expires).encode()
    )
