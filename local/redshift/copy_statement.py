"""
Redshift's ``COPY … FROM 's3://…'`` statement for JSON.

https://docs.aws.amazon.com/redshift/latest/dg/r_COPY.html
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot.dialects.redshift import Redshift
from sqlglot.errors import TokenError
from sqlglot.tokens import Token, TokenType

from local.redshift.errors import SqlError, unsupported
from local.redshift.json_values import Conversion

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=.@/-]+", re.ASCII)
_NAME = r'("([^"]|"")+"|#?[^\W\d][\w$]*)'
_TABLE = re.compile(rf"{_NAME}(\.{_NAME}){{0,2}}")
_FLAGS = ("MANIFEST", "TRUNCATECOLUMNS", "BLANKSASNULL", "EMPTYASNULL", "ROUNDEC", "NOLOAD")
_COMPRESSIONS = ("GZIP", "BZIP2", "ZSTD")


@dataclass(frozen=True, kw_only=True)
class CopyStatement(Conversion):
    """
    A COPY statement. Access keys are checked for their form and then forgotten: the local S3 needs none.

    :param table: as written: perhaps with a schema, quotes or a leading #
    :param columns: the column list in lower case, as Redshift folds names; None if there is none
    :param source: the URL of a prefix, or of a manifest
    :param iam_role: an ARN, several separated by commas, or 'default'; None with access keys
    :param json: 'auto', 'auto ignorecase' or the URL of a JSONPaths file
    :param manifest: whether the source is a manifest
    :param region: the bucket's region, where given
    :param maxerror: how many rejected rows make the load fail; 0 counts as 1
    :param compression: how the objects are compressed: gzip, bzip2 or zstd
    :param noload: whether to check the data only
    """

    table: str
    columns: tuple[str, ...] | None
    source: str
    iam_role: str | None
    json: str
    manifest: bool = False
    region: str | None = None
    maxerror: int = 0
    compression: str | None = None
    noload: bool = False


def parse_copy(sql: str) -> CopyStatement | None:
    """
    Read a COPY statement.

    :param sql: the text of one statement
    :return: the statement; None if the text is anything else than a COPY … FROM 's3://…'
    :raises SqlError: if it is one, but malformed or with an option that is not supported
    """
    if not re.search(r"\bcopy\b", sql, re.IGNORECASE):
        return None
    try:
        tokens = Redshift().tokenize(sql)
    except TokenError:
        return None
    if not tokens or tokens[0].text.upper() != "COPY":
        return None
    source = next((i for i, t in enumerate(tokens) if t.token_type == TokenType.FROM), len(tokens)) + 1
    if source >= len(tokens) or tokens[source].token_type != TokenType.STRING:
        return None
    if not tokens[source].text.startswith("s3://"):
        return None
    while tokens[-1].token_type == TokenType.SEMICOLON:
        tokens.pop()
    return _Parser(sql, tokens).parse()


def _syntax_error(message: str, hint: str = "") -> SqlError:
    return SqlError(message, "42601", hint)


class _Parser:
    """
    Reads the tokens of one COPY. No message quotes a literal other than a URL: it could be an access key.

    :param sql: the text
    :param tokens: its tokens
    """

    def __init__(self, sql: str, tokens: Sequence[Token]) -> None:
        self._sql, self._tokens, self._next = sql, tokens, 1
        self._options: dict[str, Any] = {}

    def parse(self) -> CopyStatement:
        """
        Return the statement.

        :raises SqlError: if it is malformed
        """
        table, columns = self._table(), self._column_list()
        self._accept("FROM")
        source = self._string("FROM")
        while self._next < len(self._tokens):
            self._option()
        self._check_authorization()
        if "json" not in self._options:
            raise unsupported("COPY of delimited text", "add FORMAT AS JSON 'auto'")
        keys = ("access_key_id", "secret_access_key", "session_token")
        options = {name: value for name, value in self._options.items() if name not in keys}
        return CopyStatement(table=table, columns=columns, source=source, **{"iam_role": None, **options})

    def _at_string(self) -> bool:
        return self._next < len(self._tokens) and self._tokens[self._next].token_type == TokenType.STRING

    def _peek(self) -> str:
        """Return the next word, in upper case; nothing at a string or at the end."""
        return (
            ""
            if self._at_string() or self._next == len(self._tokens)
            else self._tokens[self._next].text.upper()
        )

    def _accept(self, *words: str) -> bool:
        found = self._peek() in words
        self._next += found
        return found

    def _table(self) -> str:
        start = self._next
        while self._peek() not in ("(", "FROM"):
            self._next += 1
        table = self._sql[self._tokens[start].start : self._tokens[self._next - 1].end + 1]
        if not _TABLE.fullmatch(table):
            raise _syntax_error("COPY names no table", "write COPY <table> FROM 's3://…'")
        return table

    def _column_list(self) -> tuple[str, ...] | None:
        if not self._accept("("):
            return None
        names: list[str] = []
        while not self._accept(")"):
            if names and not self._accept(","):
                raise _syntax_error(f"COPY: ',' or ')' expected at {self._peek()} in the column list")
            names.append(self._peek().lower())
            self._next += 1
        if len(set(names)) < len(names):
            raise SqlError("COPY: a column is named twice in the column list", "42701")
        return tuple(names)

    def _string(self, option: str) -> str:
        self._accept("AS")
        if not self._at_string():
            raise _syntax_error(f"COPY option {option} needs a quoted value")
        self._next += 1
        return self._tokens[self._next - 1].text

    def _set(self, name: str, value: Any) -> None:
        if name in self._options:
            raise _syntax_error(f"conflicting or redundant options: {name.upper()} is given twice")
        self._options[name] = value

    def _option(self) -> None:
        word = self._peek()
        if not word:
            raise _syntax_error("COPY: a quoted value stands where an option is expected")
        self._next += 1
        if word == "," or (word == "WITH" and self._peek() == "CREDENTIALS"):
            return
        if word == "FORMAT":
            self._accept("AS")
            if self._peek() != "JSON":
                raise unsupported(f"COPY format {self._peek()}", "use FORMAT AS JSON")
        elif word == "IAM_ROLE":
            self._set("iam_role", "default" if self._accept("DEFAULT") else self._role(self._string(word)))
        elif word == "CREDENTIALS":
            self._credentials(self._string(word))
        elif word in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION"):
            self._set(word.lower(), self._string(word))
        elif word == "JSON":
            self._json()
        elif word in ("TIMEFORMAT", "DATEFORMAT"):
            self._set(word.lower(), self._string(word))
        elif word == "NULL":
            self._set("null_as", self._string("NULL AS"))
        elif word in _FLAGS:
            self._set(word.lower(), True)
        elif word in _COMPRESSIONS:
            self._set("compression", word.lower())
        elif word == "MAXERROR":
            self._maxerror()
        elif word == "ACCEPTINVCHARS":
            self._accept_invalid()
        elif word == "COMPUPDATE":
            self._accept("ON", "TRUE", "OFF", "FALSE", "PRESET")
        elif word == "STATUPDATE":
            self._accept("ON", "TRUE", "OFF", "FALSE")
        else:
            raise unsupported(f"COPY option {word}", "leave it out")

    def _json(self) -> None:
        self._accept("AS")
        json = self._string("JSON") if self._at_string() else "auto"
        if json not in ("auto", "auto ignorecase") and not json.startswith("s3://"):
            raise _syntax_error(
                "COPY option JSON must be 'auto', 'auto ignorecase' or 's3://<jsonpaths file>'"
            )
        self._set("json", json)
        self._set("ignorecase", json == "auto ignorecase")

    def _maxerror(self) -> None:
        """https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-load.html#copy-maxerror."""
        self._accept("AS")
        number = self._peek()
        self._next += 1
        if not number.isdecimal() or int(number) > 100_000:
            raise _syntax_error("COPY option MAXERROR needs a number from 0 to 100000")
        self._set("maxerror", int(number))

    def _accept_invalid(self) -> None:
        explicit = self._accept("AS") or self._at_string()
        character = self._string("ACCEPTINVCHARS") if explicit else "?"
        if len(character) != 1 or not "\0" < character < "\x80":
            raise _syntax_error("COPY option ACCEPTINVCHARS needs one ASCII character other than NUL")
        self._set("accept_invalid", character)

    # https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-authorization.html

    @staticmethod
    def _role(role: str) -> str:
        if not all(_ROLE.fullmatch(arn) for arn in role.split(",")):
            raise SqlError(
                "Invalid IAM role",
                "22023",
                "write IAM_ROLE 'arn:aws:iam::<12-digit account>:role/<name>', or IAM_ROLE default",
            )
        return role

    def _credentials(self, text: str) -> None:
        pairs = dict(pair.partition("=")[::2] for pair in text.split(";") if pair)
        if pairs.keys() == {"aws_iam_role"}:
            self._set("iam_role", self._role(pairs["aws_iam_role"]))
            return
        names = {"aws_access_key_id", "aws_secret_access_key"}
        if pairs.keys() not in (names, names | {"token"}) or not all(pairs.values()):
            raise SqlError(
                "Invalid credentials. Must be of the format: credentials 'aws_iam_role=...' or "
                "'aws_access_key_id=...;aws_secret_access_key=...[;token=...]'",
                "22023",
            )
        self._set("access_key_id", "")
        self._set("secret_access_key", "")

    def _check_authorization(self) -> None:
        role, key, secret, token = (
            name in self._options
            for name in ("iam_role", "access_key_id", "secret_access_key", "session_token")
        )
        if role and (key or secret or token):
            raise _syntax_error("COPY takes either an IAM role or access keys, not both")
        if key != secret or (token and not key):
            raise _syntax_error("COPY options ACCESS_KEY_ID and SECRET_ACCESS_KEY must be given together")
        if not (role or key):
            raise _syntax_error(
                "COPY has no authorization to read from S3",
                "add IAM_ROLE 'arn:aws:iam::<12-digit account>:role/<name>', or IAM_ROLE default",
            )
