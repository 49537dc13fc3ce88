"""
Users, roles and what they may do: Redshift's statements, made fit for PostgreSQL.

Redshift's users are PostgreSQL's roles that may log in, and its roles those that may not. Its superuser is
the role that may create others, and is a member of each, so that all that they own is its own, too;
PostgreSQL's superusers could read the machine's files. What PostgreSQL would not check, functions of
``catalog.sql`` do, in one block with the statement itself.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.tokens import Token, TokenType

from local.redshift import passwords
from local.redshift.allowlist import RESERVED_WORDS, refusal
from local.redshift.errors import SqlError, unsupported

T = TypeVar("T")

# What may be granted on what. Redshift knows DROP and ALTER, too, which PostgreSQL leaves to owners.
_PRIVILEGES = {
    "TABLE": ("SELECT", "INSERT", "UPDATE", "DELETE", "REFERENCES", "TRUNCATE"),
    "column": ("SELECT", "UPDATE"),
    "DATABASE": ("CREATE", "TEMPORARY"),
    "SCHEMA": ("CREATE", "USAGE"),
}
_NAME = re.compile(r"#?[^\W\d][\w$]*")
_ASSUMEROLE_COMMANDS = ("COPY", "UNLOAD", "EXTERNAL FUNCTION", "CREATE MODEL")


@dataclass(frozen=True)
class Block:
    """
    What PostgreSQL is to run for a statement about users, roles or privileges.

    :param tag: what Redshift answers when it has run
    :param sql: one statement, an anonymous block
    """

    tag: str
    sql: str


def block(sql: str, tokens: Sequence[Token], settings: Collection[str]) -> Block | None:
    """
    Return what PostgreSQL is to run for a statement, None if it is about something else.

    :param sql: the statement
    :param tokens: its tokens
    :param settings: the settings that ALTER USER may change
    :raises SqlError: 42601 when it cannot be read, 0A000 for a form that is not known here
    """
    reader = _Reader(sql, tokens, settings)
    tag = next(filter(reader.accept, _STATEMENTS), "")
    if not tag:
        return None
    try:
        statements = list(_STATEMENTS[tag](reader))
    except _OtherError:
        return None
    reader.end()
    body = "BEGIN\n" + "".join(f"{statement};\n" for statement in statements) + "END"
    return Block("SET" if tag.startswith("SET") else tag, f"DO {_literal(body)}")


class _OtherError(Exception):
    """The statement is about something else."""


def _quoted(name: str) -> str:
    return exp.to_identifier(name, quoted=True).sql(Postgres)


def _literal(text: str) -> str:
    return exp.Literal.string(text).sql(Postgres)


def _call(function: str, *arguments: str | bool | Sequence[str | None] | None) -> str:
    """Return the call of a function of catalog.sql."""

    def sql(argument: str | bool | Sequence[str | None] | None) -> str:
        match argument:
            case None:
                return "NULL"
            case bool():
                return str(argument)
            case str():
                return _literal(argument)
        return f"ARRAY[{', '.join(map(sql, argument))}]"

    return f"PERFORM rs_catalog.{function}({', '.join(map(sql, arguments))})"


class _Reader:
    """
    Reads the tokens of one statement. No message quotes a literal: it could be a password.

    :param sql: the statement
    :param tokens: its tokens
    :param settings: the settings that ALTER USER may change
    """

    def __init__(self, sql: str, tokens: Sequence[Token], settings: Collection[str]) -> None:
        self._sql, self._tokens, self._next = sql, tokens, 0
        self.settings = settings

    def skip(self, count: int) -> None:
        self._next += count

    def word(self, ahead: int = 0) -> str:
        """Return a word to come, in upper case; nothing for a literal, a quoted name and the end."""
        index = self._next + ahead
        if index >= len(self._tokens) or self._quotes(self._tokens[index]):
            return ""
        return self._tokens[index].text.upper()

    def at_string(self) -> bool:
        return self._next < len(self._tokens) and self._tokens[self._next].token_type == TokenType.STRING

    def _quotes(self, token: Token) -> bool:
        """Return whether a token is of any kind that has quotes."""
        return self._sql[token.start : token.end + 1] != token.text

    def accept(self, words: str) -> bool:
        """Pass over some words if they come next, and return whether they did."""
        expected = words.split()
        found = [self.word(ahead) for ahead in range(len(expected))] == expected
        self._next += len(expected) * found
        return found

    def expect(self, words: str) -> None:
        if not self.accept(words):
            raise self.error(f"{words} expected")

    def error(self, what: str) -> SqlError:
        ended = self._next >= len(self._tokens)
        where = (
            "at the end" if ended else f'at or near "{self.word()}"' if self.word() else "at a quoted text"
        )
        return SqlError(f"syntax error {where}: {what}", "42601")

    def end(self) -> None:
        if self._next < len(self._tokens):
            raise self.error("the statement should end here")

    def string(self) -> str:
        if not self.at_string():
            raise self.error("a quoted text expected")
        self._next += 1
        return self._tokens[self._next - 1].text

    def name(self, *, keeps_case: bool = False) -> str:
        """
        Return a name, folded to lower case.

        :param keeps_case: whether quotes keep its case, as they do for a user's
            (https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_USER.html)
        """
        token = self._tokens[min(self._next, len(self._tokens) - 1)]
        quoted = token.token_type == TokenType.IDENTIFIER
        if self._next == len(self._tokens) or (self._quotes(token) and not quoted):
            raise self.error("a name expected")
        if not quoted and (token.text.upper() in RESERVED_WORDS or not _NAME.fullmatch(token.text)):
            raise SqlError(f'syntax error at or near "{token.text}"', "42601")
        self._next += 1
        return token.text if quoted and keeps_case else token.text.lower()

    def user(self) -> str:
        return self.name(keeps_case=True)

    def names(self, read: Callable[[], T]) -> list[T]:
        """Return names, or what else there is several of, with commas between them."""
        found = [read()]
        while self.accept(","):
            found.append(read())
        return found

    def relation(self) -> str:
        """Return a table's or view's name, perhaps after its schema's, as PostgreSQL must be given it."""
        parts = [self.name()]
        while self.accept("."):
            parts.append(self.name())
        return ".".join(map(_quoted, parts))

    def rest(self) -> str:
        """Return the statement's text from here to its end."""
        start, self._next = self._next, len(self._tokens)
        return self._sql[self._tokens[start].start : self._tokens[-1].end + 1]


# Users and roles ------------------------------------------------------------------------------------------


def _create_user(reader: _Reader) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_USER.html."""
    user = reader.user()
    reader.accept("WITH")
    if reader.word() != "PASSWORD":
        raise reader.error("PASSWORD expected")
    yield _call("require_superuser", "create users")
    options, then = _user_options(reader, user)
    yield f"CREATE ROLE {_quoted(user)} LOGIN{options}"
    yield f"GRANT pg_maintain TO {_quoted(user)}"  # isolation.py says why
    yield from then


def _alter_user(reader: _Reader) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_ALTER_USER.html."""
    user = reader.user()
    reader.accept("WITH")
    alone = reader.word() == "PASSWORD" and reader.word(1) != "DISABLE" and not reader.word(2)
    own = f"current_user = {_literal(user)}" if alone else "FALSE"
    yield f"IF NOT {own} THEN {_call('require_superuser', 'alter users')}; END IF"
    yield _call("require_users", user)
    if reader.accept("RENAME TO"):
        name = reader.user()
        yield f"ALTER ROLE {_quoted(user)} RENAME TO {_quoted(name)}"
        yield _call("set_password", name, None)  # the old name was part of it
    elif reader.word() in ("SET", "RESET"):
        if reader.word(1).lower() not in reader.settings:
            raise unsupported(f"ALTER USER … {reader.word()} {reader.word(1).lower()}".rstrip())
        yield f"ALTER ROLE {_quoted(user)} {reader.rest()}"
    else:
        options, then = _user_options(reader, user)
        if options:
            yield f"ALTER ROLE {_quoted(user)}{options}"
        yield from then


def _user_options(reader: _Reader, user: str) -> tuple[str, list[str]]:
    """Return the options that PostgreSQL has, too, and the statements for the others."""
    options, then = "", []
    while reader.word():
        reader.accept(",")
        if reader.accept("PASSWORD"):
            password = None if reader.accept("DISABLE") else passwords.digest(reader.string())
            then.append(_call("set_password", user, password))
        elif reader.accept("VALID UNTIL"):
            options += f" VALID UNTIL {_literal(reader.string())}"
        elif reader.accept("CONNECTION LIMIT"):
            limit = "-1" if reader.word() == "UNLIMITED" else reader.word()
            if not limit.removeprefix("-").isdecimal():
                raise reader.error("a number or UNLIMITED expected")
            reader.skip(1)
            options += f" CONNECTION LIMIT {limit}"
        elif reader.accept("SYSLOG ACCESS UNRESTRICTED"):
            then.append(f"GRANT pg_read_all_stats TO {_quoted(user)}")
        elif reader.accept("SYSLOG ACCESS RESTRICTED"):
            then.append(f"REVOKE pg_read_all_stats FROM {_quoted(user)}")
        elif reader.accept("CREATEUSER"):
            raise unsupported("CREATEUSER", "its only superuser is the one that it starts with")
        elif not (reader.accept("NOCREATEDB") or reader.accept("NOCREATEUSER")):
            raise refusal(f"option {reader.word()} of a user", "GROUP" if reader.word() == "IN" else "")
    return options, then


def _drop_user(reader: _Reader) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_DROP_USER.html."""
    if_exists = reader.accept("IF EXISTS")
    yield _call("require_superuser", "drop users")
    for user in reader.names(reader.user):
        yield _call("drop_user", user, if_exists)


def _create_role(reader: _Reader) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_ROLE.html."""
    yield _call("require_superuser", "create roles")
    yield f"CREATE ROLE {_quoted(reader.name())}"
    if reader.word() == "EXTERNALID":
        raise refusal("CREATE ROLE … EXTERNALID")


def _drop_role(reader: _Reader) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_DROP_ROLE.html."""
    yield _call("require_superuser", "drop roles")
    yield _call("drop_role", reader.name(), reader.accept("FORCE"))
    reader.accept("RESTRICT")


def _session_user(reader: _Reader, scope: str) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_SET_SESSION_AUTHORIZATION.html."""
    if reader.accept("DEFAULT"):
        yield f"SET {scope} ROLE NONE"
        return
    user = reader.string() if reader.at_string() else reader.user()
    yield _call("require_users", user)
    yield f"SET {scope} ROLE {_quoted(user)}"


# Owners ---------------------------------------------------------------------------------------------------


def _create_schema(reader: _Reader) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_SCHEMA.html."""
    condition = "IF NOT EXISTS " if reader.accept("IF NOT EXISTS") else ""
    schema = "" if reader.word() == "AUTHORIZATION" else reader.name()
    if not reader.accept("AUTHORIZATION"):
        raise _OtherError
    user = reader.user()
    yield _call("require_users", user)
    yield f"CREATE SCHEMA {condition}{_quoted(schema or user)} AUTHORIZATION {_quoted(user)}"
    if reader.word() == "QUOTA":
        raise refusal("CREATE SCHEMA … QUOTA")


def _alter_schema(reader: _Reader) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_ALTER_SCHEMA.html."""
    schema = reader.name()
    if reader.accept("RENAME TO"):
        yield f"ALTER SCHEMA {_quoted(schema)} RENAME TO {_quoted(reader.name())}"
        return
    yield from _owner(reader, "SCHEMA", _quoted(schema))


def _alter_owner(reader: _Reader) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_ALTER_TABLE.html."""
    table = reader.relation()
    if reader.word() != "OWNER":
        raise _OtherError
    yield from _owner(reader, "TABLE", table)


def _owner(reader: _Reader, kind: str, name: str) -> Iterator[str]:
    if not reader.accept("OWNER TO"):
        raise refusal(f"ALTER {kind} … {reader.word()}")
    user = reader.user()
    yield _call("require_users", user)
    yield f"ALTER {kind} {name} OWNER TO {_quoted(user)}"


# Privileges -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grantees:
    """
    Who is given privileges, or loses them.

    :param checks: the statements that make sure that each is there, and is a user or a role
    :param names: their names; None for everybody
    :param option: whether they may hand on what they are given
    """

    checks: list[str]
    names: list[str | None]
    option: bool

    def __str__(self) -> str:
        return ", ".join("PUBLIC" if name is None else _quoted(name) for name in self.names)


def _grant(reader: _Reader) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_GRANT.html."""
    if reader.word() == "ROLE":
        roles = _roles(reader)
        reader.expect("TO")
        grantees = _grantees(reader, "ADMIN OPTION")
        yield _call("require_roles", *roles)
        yield from grantees.checks
        option = " WITH ADMIN OPTION" if grantees.option else ""
        yield f"GRANT {', '.join(map(_quoted, roles))} TO {grantees}{option}"
    elif reader.accept("ASSUMEROLE"):
        yield from _assumerole(reader, "GRANT", "TO")
    else:
        yield from _change(reader, "GRANT", "TO")


def _revoke(reader: _Reader) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_REVOKE.html."""
    option = "ADMIN OPTION FOR " if reader.accept("ADMIN OPTION FOR") else ""
    if option or reader.word() == "ROLE":
        roles = _roles(reader)
        reader.expect("FROM")
        grantees = _grantees(reader)
        yield _call("require_roles", *roles)
        yield from grantees.checks
        yield f"REVOKE {option}{', '.join(map(_quoted, roles))} FROM {grantees}"
    elif reader.accept("ASSUMEROLE"):
        yield from _assumerole(reader, "REVOKE", "FROM")
    else:
        yield from _change(reader, "REVOKE", "FROM")
        reader.accept("RESTRICT")


def _roles(reader: _Reader) -> list[str]:
    def role() -> str:
        reader.expect("ROLE")
        return reader.name()

    return reader.names(role)


def _grantees(reader: _Reader, option: str = "") -> _Grantees:
    grantees, options = _Grantees([], [], False), set()
    while not grantees.names or reader.accept(","):
        if reader.word() == "GROUP":
            raise refusal("GROUP")
        if reader.accept("PUBLIC"):
            grantees.names.append(None)
        elif reader.accept("ROLE"):
            grantees.names.append(reader.name())
            grantees.checks.append(_call("require_roles", grantees.names[-1]))
        else:
            grantees.names.append(reader.user())
            grantees.checks.append(_call("require_users", grantees.names[-1]))
            options.add(bool(option) and reader.accept(f"WITH {option}"))
            continue
        options.add(False)
    if len(options) > 1:
        raise unsupported(f"WITH {option} for some of those named", "write a statement for each")
    return _Grantees(grantees.checks, grantees.names, options.pop())


def _change(reader: _Reader, verb: str, way: str) -> Iterator[str]:
    """Grant or revoke privileges on tables, columns, schemas or databases."""
    first = "GRANT OPTION FOR " if verb == "REVOKE" and reader.accept("GRANT OPTION FOR") else ""
    privileges = reader.names(lambda: _privilege(reader))
    if not reader.accept("ON"):
        raise unsupported(f"{verb} {privileges[0][0]} {reader.word()}".rstrip())
    kind, objects, tables = _objects(reader)
    reader.expect(way)
    grantees = _grantees(reader, "GRANT OPTION" if verb == "GRANT" else "")
    last = " WITH GRANT OPTION" if grantees.option else ""
    yield from grantees.checks
    if tables:
        yield _call("require_any_privilege", tables)
    whole = [name for privilege, columns in privileges if not columns for name in _known(privilege, kind)]
    if whole:
        if verb == "GRANT" and tables:
            yield _call("require_no_column_privileges", whole, tables, grantees.names)
        yield f"{verb} {first}{', '.join(whole)} ON {objects} {way} {grantees}{last}"
    for privilege, columns in privileges:
        if columns and (first or last or not tables):
            raise SqlError("syntax error: columns are of named tables, and have no GRANT OPTION", "42601")
        for name in _known(privilege, "column") if columns else ():
            yield _call("change_columns", verb, name, columns, tables, grantees.names)


def _privilege(reader: _Reader) -> tuple[str, list[str]]:
    """Return a privilege and the columns that it is for, none if it is for all."""
    name = "TEMPORARY" if reader.word() == "TEMP" else reader.word()
    if not name.isalpha():
        raise reader.error("a privilege expected")
    reader.skip(1)
    if name == "ALL":
        reader.accept("PRIVILEGES")
    columns = []
    if reader.accept("("):
        columns = reader.names(reader.name)
        reader.expect(")")
    return name, columns


def _known(privilege: str, kind: str) -> Sequence[str]:
    if privilege != "ALL" and privilege not in _PRIVILEGES[kind]:
        raise refusal(f"the privilege {privilege} on a {kind.lower()}")
    return _PRIVILEGES[kind] if privilege == "ALL" else (privilege,)


def _objects(reader: _Reader) -> tuple[str, str, list[str]]:
    """Return what kind of objects privileges are for, the objects in PostgreSQL's SQL, and tables by name."""
    if reader.accept("ALL TABLES IN SCHEMA"):
        return "TABLE", f"ALL TABLES IN SCHEMA {', '.join(map(_quoted, reader.names(reader.name)))}", []
    for kind in ("DATABASE", "SCHEMA"):
        if reader.accept(kind):
            return kind, f"{kind} {', '.join(map(_quoted, reader.names(reader.name)))}", []
    named = reader.accept("TABLE")
    if not named and reader.word(1) not in (",", ".", "TO", "FROM", ""):
        raise refusal(f"a privilege on {reader.word()}")
    tables = reader.names(reader.relation)
    return "TABLE", f"TABLE {', '.join(tables)}", tables


def _assumerole(reader: _Reader, verb: str, way: str) -> Iterator[str]:
    """https://docs.aws.amazon.com/redshift/latest/dg/r_GRANT-usage-notes.html#r_GRANT-usage-notes-assumerole."""

    def iam_role() -> str:
        return (
            next((word for word in ("ALL", "default") if reader.accept(word.upper())), "") or reader.string()
        )

    def command() -> str:
        for known in ("ALL", *_ASSUMEROLE_COMMANDS):
            if reader.accept(known):
                return known
        raise reader.error(f"one of {', '.join(_ASSUMEROLE_COMMANDS)} expected")

    reader.expect("ON")
    iam_roles = reader.names(iam_role)
    reader.expect(way)
    grantees = _grantees(reader)
    reader.expect("FOR")
    commands = reader.names(command)
    if "ALL" in commands:
        commands = list(_ASSUMEROLE_COMMANDS)
    yield _call("require_superuser", f"{verb.lower()} ASSUMEROLE")
    yield from grantees.checks
    yield _call("change_assumerole", verb, iam_roles, commands, grantees.names)


_STATEMENTS: dict[str, Callable[[_Reader], Iterator[str]]] = {
    "CREATE USER": _create_user,
    "ALTER USER": _alter_user,
    "DROP USER": _drop_user,
    "CREATE ROLE": _create_role,
    "DROP ROLE": _drop_role,
    "SET SESSION AUTHORIZATION": partial(_session_user, scope="SESSION"),
    "SET SESSION SESSION AUTHORIZATION": partial(_session_user, scope="SESSION"),
    "SET LOCAL SESSION AUTHORIZATION": partial(_session_user, scope="LOCAL"),
    "CREATE SCHEMA": _create_schema,
    "ALTER SCHEMA": _alter_schema,
    "ALTER TABLE": _alter_owner,
    "GRANT": _grant,
    "REVOKE": _revoke,
}
