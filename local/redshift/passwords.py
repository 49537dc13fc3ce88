"""
Passwords of Redshift's users: what is kept of them, and whether one fits.

What is kept is what CREATE USER takes in place of a password: an MD5 digest or a salted SHA-256 digest
(https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_USER.html).
"""

import hmac
import re
import secrets
from hashlib import md5, sha256

from local.redshift.errors import SqlError

_MD5 = re.compile(r"md5[0-9a-fA-F]{32}")
_SHA256 = re.compile(r"sha256\|[0-9a-fA-F]{64}\|[0-9a-fA-F]{64}")
_PLAIN = re.compile(r"""(?=.*[A-Z])(?=.*[a-z])(?=.*\d)[!-~]{8,64}""")
_FORBIDDEN = frozenset("'\"\\/@")


def digest(password: str) -> str:
    """
    Return what is kept of a password.

    :param password: as CREATE USER or ALTER USER has it: plain, ``sha256|`` before it, or a digest already
    :raises SqlError: 22023 when it is none that Redshift takes; the message does not quote it
    """
    if _MD5.fullmatch(password) or _SHA256.fullmatch(password):
        return password
    plain = password.removeprefix("sha256|")
    if not _PLAIN.fullmatch(plain) or _FORBIDDEN & set(plain):
        raise SqlError(
            "Password must be 8 to 64 characters long, with an upper-case letter, a lower-case letter and a"
            " number, without quotes, \\, / and @",
            "22023",
            "or give an MD5 or SHA-256 digest",
        )
    return salted(plain)


def salted(password: str) -> str:
    """
    Return the SHA-256 digest of a plain password with a salt of its own.

    :param password: any text
    """
    return _sha256(password, secrets.token_hex(32))


def fits(password: str, kept: str, user: str) -> bool:
    """
    Return whether a password is the one that something was kept of.

    :param password: as the client sends it, plain
    :param kept: what :func:`digest` returned
    :param user: whose it is
    """
    if kept.startswith("md5"):
        found = "md5" + md5(f"{password}{user}".encode(), usedforsecurity=False).hexdigest()
    else:
        found = _sha256(password, kept.rpartition("|")[2])
    return hmac.compare_digest(found.encode(), kept.lower().encode())


def _sha256(password: str, salt: str) -> str:
    # Of the password and the salt's bytes, which Amazon does not document
    return f"sha256|{sha256(password.encode() + bytes.fromhex(salt)).hexdigest()}|{salt.lower()}"
