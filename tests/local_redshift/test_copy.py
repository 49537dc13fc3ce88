"""COPY … FROM 's3://…' FORMAT AS JSON. Page names are those of https://docs.aws.amazon.com/redshift/latest/dg/."""

import bz2
import gzip
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from backports import zstd
from botocore.stub import Stubber
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.s3.models import FakeKey, s3_backends
from werkzeug.serving import make_server

from local.redshift import copy
from local.redshift.copy import Column, CopyStatement, Load, Rejected, parse_copy, start_load
from local.redshift.errors import SqlError
from local.redshift.json_lines import convert_later, plan
from local.redshift.json_rows import MAX_OBJECT, JsonRows, parse_paths
from local.redshift.json_values import Conversion
from local.s3 import Handler
from local.settings import ACCOUNT

ROLE = "arn:aws:iam::123456789012:role/redshift-load"
COPY = f"COPY t FROM 's3://data/in' IAM_ROLE '{ROLE}' FORMAT AS JSON 'auto'"


def column(definition: str, name: str = "a") -> Column:
    """Return the column of a definition such as ``numeric(9,2) not null``."""
    kind, length, scale, required = re.fullmatch(
        r"([a-z ]+?)(?:\((\d+)(?:,(\d+))?\))?( not null)?", definition
    ).groups()  # type: ignore[union-attr]
    return Column(
        name, kind, int(length) if length else None, int(scale) if scale else None, nullable=not required
    )


def convert(
    text: str | bytes, *columns: Column, paths: list[tuple[str | int, ...]] | None = None, **options: Any
) -> tuple[list[str], list[Rejected]]:
    """Convert a file; options are those of a Conversion."""
    data = text.encode() if isinstance(text, str) else text
    rejected: list[Rejected] = []
    chunks = (data[i : i + 100_000] for i in range(0, len(data), 100_000))
    converter = JsonRows(columns, Conversion(**options), paths)
    blocks = list(converter.convert([("s3://data/in", chunks)], rejected.append))
    rows = b"".join(text for _, _, text in blocks).decode().split("\n")[:-1]
    assert sum(count for _, count, _ in blocks) == len(rows)
    return rows, rejected


# the statement: r_COPY, copy-parameters-authorization, -data-format, -data-conversion, -data-load


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "",
        "COPY t FROM STDIN",
        "copy t to 's3://data/out'",
        "COPY t FROM 'dynamodb://table'",
        "INSERT INTO t VALUES ('COPY t FROM ''s3://data/in''')",
        "SELECT 'copy",
    ],
)
def test_other_text_is_left_alone(sql: str) -> None:
    assert parse_copy(sql) is None


def test_every_option_is_read_in_any_order_and_case() -> None:
    statement = parse_copy(f"""
        -- nightly
        copy public.Events ("Artist", userid) from 's3://data/in' maxerror as 10 gzip manifest
        region as 'us-east-1' timeformat as 'epochmillisecs' dateformat 'auto' truncatecolumns blanksasnull
        null as 'N/A' EmptyAsNull acceptinvchars as '^' noload roundec compupdate off statupdate on
        format as json 'auto ignorecase' iam_role '{ROLE}';
    """)
    assert statement == CopyStatement(
        table="public.Events",
        columns=("artist", "userid"),
        source="s3://data/in",
        iam_role=ROLE,
        json="auto ignorecase",
        manifest=True,
        region="us-east-1",
        maxerror=10,
        compression="gzip",
        noload=True,
        ignorecase=True,
        truncatecolumns=True,
        blanksasnull=True,
        emptyasnull=True,
        accept_invalid="^",
        roundec=True,
        null_as="N/A",
        timeformat="epochmillisecs",
        dateformat="auto",
    )


@pytest.mark.parametrize("table", ["#batch", "public.t", '"My Table"', "public.#batch", "db.public.t"])
def test_a_table_is_kept_as_written(table: str) -> None:
    statement = parse_copy(COPY.replace("t FROM", f"{table} FROM"))
    assert statement is not None
    assert statement.table == table


@pytest.mark.parametrize(
    ("clause", "role"),
    [
        (f"IAM_ROLE '{ROLE}'", ROLE),
        (f"IAM_ROLE '{ROLE},{ROLE}2'", f"{ROLE},{ROLE}2"),
        ("IAM_ROLE DEFAULT", "default"),
        (f"WITH CREDENTIALS AS 'aws_iam_role={ROLE}'", ROLE),
        ("CREDENTIALS 'aws_access_key_id=AKIA;aws_secret_access_key=s3cr3t;token=t0k3n'", None),
        ("ACCESS_KEY_ID 'AKIA' SECRET_ACCESS_KEY 's3cr3t' SESSION_TOKEN 't0k3n'", None),
    ],
)
def test_a_role_or_keys_authorize(clause: str, role: str | None) -> None:
    statement = parse_copy(f"COPY t FROM 's3://data/in' {clause} JSON")
    assert statement is not None
    assert (statement.iam_role, statement.json) == (role, "auto")
    assert "s3cr3t" not in repr(statement)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("COPY t FROM 's3://data/in' FORMAT AS JSON 'auto'", "no authorization"),
        ("COPY t FROM 's3://data/in' IAM_ROLE 'redshift-load' JSON 'auto'", "Invalid IAM role"),
        (f"COPY t FROM 's3://data/in' IAM_ROLE '{ROLE}'", "delimited text is not supported"),
        ("COPY t FROM 's3://data/in' IAM_ROLE JSON 'auto'", "IAM_ROLE needs a quoted value"),
        (f"{COPY} CREDENTIALS 'aws_access_key_id=AKIA;aws_secret_access_key=s3cr3t'", "not both"),
        (
            "COPY t FROM 's3://data/in' CREDENTIALS 'AKIA:s3cr3t' JSON",
            "Invalid credentials. Must be of the format",
        ),
        ("COPY t FROM 's3://data/in' ACCESS_KEY_ID 's3cr3t' JSON", "must be given together"),
        ("COPY t FROM 's3://data/in' ACCESS_KEY_ID AKIA 's3cr3t' JSON", "needs a quoted value"),
        (f"{COPY} 's3cr3t'", "a quoted value stands where an option is expected"),
        (f"{COPY} DELIMITER ','", "COPY option DELIMITER is not supported"),
        (f"{COPY} ENCRYPTED", "COPY option ENCRYPTED is not supported"),
        (f"{COPY} MAXERROR 100001", "from 0 to 100000"),
        (f"{COPY} MAXERROR many", "from 0 to 100000"),
        (f"{COPY} JSON 'auto'", "redundant options: JSON"),
        (f"{COPY} ACCEPTINVCHARS AS 'é'", "one ASCII character"),
        (COPY.replace("'auto'", "'s3cr3t'"), "must be 'auto'"),
        (COPY.replace("JSON 'auto'", "PARQUET"), "COPY format PARQUET is not supported"),
        (COPY.replace("t FROM", "FROM"), "names no table"),
        (COPY.replace("t FROM", "a b FROM"), "names no table"),
        (COPY.replace("t FROM", "t (a b) FROM"), "expected at B"),
        (COPY.replace("t FROM", "t (a, A) FROM"), "named twice"),
        (f"{COPY}; DROP TABLE t", "COPY option ; is not supported"),
    ],
)
def test_a_statement_that_is_wrong_is_refused_without_a_secret(sql: str, message: str) -> None:
    with pytest.raises(SqlError, match=re.escape(message)) as refusal:
        parse_copy(sql)
    assert "s3cr3t" not in refusal.value.message + refusal.value.hint


# values: copy-parameters-data-conversion, copy-usage_notes-copy-from-json, c_Supported_data_types

VALUES = [
    ("varchar(20)", '"plain"', "plain"),
    ("varchar(20)", '""', ""),
    ("varchar(20)", '"  "', "  "),
    ("varchar(20)", r'"tab\t, line\n, cr\r, \\"', r"tab\t, line\n, cr\r, \\"),
    ("varchar(20)", r'"\u00e9\/\"\ud83d\ude00"', 'é/"😀'),
    ("varchar(20)", "null", r"\N"),
    ("varchar(20)", "true", "true"),
    ("varchar(20)", "-12", "-12"),
    ("varchar(20)", "1.50", "1.50"),
    ("varchar(20)", "1540919166796.0", "1540919166796.0"),
    ("varchar(20)", "1E3", "1E3"),
    ("varchar(30)", "12345678901234567890123", "12345678901234567890123"),
    ("varchar(50)", '["nisi", {"id": 1}]', '["nisi",{"id":1}]'),
    ("varchar(50)", '{"é": null}', '{"é":null}'),
    ("varchar(4)", '"éé"', "éé"),
    ("char(3)", '"abc"', "abc"),
    ("smallint", "-32768", "-32768"),
    ("integer", "2147483647", "2147483647"),
    ("bigint", "-9223372036854775808", "-9223372036854775808"),
    ("bigint", "9007199254740993.0", "9007199254740993"),
    ("bigint", "1540919166796.0", "1540919166796"),
    ("integer", '" 42 "', "42"),
    ("integer", '"+7"', "7"),
    ("integer", '""', r"\N"),
    ("integer", '" "', r"\N"),
    ("double precision", "0.1", "0.1"),
    ("double precision", "3", "3.0"),
    ("double precision", '"-1.5e-3"', "-0.0015"),
    ("double precision", '""', r"\N"),
    ("real", "0.5", "0.5"),
    ("numeric(8,2)", "20.259", "20.25"),
    ("numeric(8,2)", "-20.259", "-20.25"),
    ("numeric(8,2)", "7", "7.00"),
    ("numeric(8,2)", '"20.259"', "20.25"),
    ("numeric(8,2)", "0.001", "0.00"),
    ("numeric(9,5)", "231.91465", "231.91465"),
    ("numeric(38,20)", "123456789012345678.12345678901234567890", "123456789012345678.12345678901234567890"),
    ("numeric(38,0)", "12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
    ("numeric(38,37)", "1e-7", "0.0000001000000000000000000000000000000"),
    ("numeric(5,0)", '""', r"\N"),
    ("boolean", "true", "t"),
    ("boolean", '"No"', "f"),
    ("boolean", "1", "t"),
    ("date", '"2018-11-30"', "2018-11-30"),
    ("timestamp", '"2018-11-30 19:54:24.796"', "2018-11-30 19:54:24.796000"),
    ("timestamp", '""', r"\N"),
    ("timestamptz", '"2018-11-30 19:54:24-08:00"', "2018-12-01 03:54:24+00:00"),
]


#: A member that makes a block be converted object by object.
NEEDS_CARE = r'"z": "\u0000"'


@pytest.mark.parametrize(
    "form",
    ['{{"a": {}}}', '{{\n"a":\n{}}}', f'{{{{{NEEDS_CARE}, "a": {{}}}}}}'],
    ids=["line", "lines", "care"],
)
@pytest.mark.parametrize(("definition", "value", "field"), VALUES)
def test_a_value_takes_its_columns_type(form: str, definition: str, value: str, field: str) -> None:
    assert convert(form.format(value), column(definition)) == ([field], [])


@pytest.mark.parametrize(
    ("definition", "value", "code", "message"),
    [
        ("varchar(3)", '"éé"', 1204, "String length exceeds DDL length"),
        ("char(3)", '"abcd"', 1204, "String length exceeds DDL length"),
        ("char(3)", '"é"', 1220, "Multibyte character not supported for CHAR (Hint: try using VARCHAR)"),
        ("varchar(9)", r'"a\u0000"', 1220, "String contains invalid or unsupported UTF-8 codepoints"),
        ("varchar(9)", r'"\ud800"', 1220, "String contains invalid or unsupported UTF-8 codepoints"),
        ("smallint", "32768", 1222, "Overflow, Value is out of range, Type: Short"),
        ("integer", '"99999999999999999999"', 1222, "Overflow"),
        ("bigint", "9223372036854775808", 1222, "Overflow"),
        ("bigint", "1e300", 1222, "Overflow"),
        ("integer", "1" * 5000, 1222, "Overflow"),
        ("integer", "1.5", 1207, "Invalid digit, Value '.', Pos 1, Type: Integer"),
        ("integer", '"1.0"', 1207, "Invalid digit, Value '.', Pos 1, Type: Integer"),
        ("bigint", '"x1"', 1207, "Invalid digit, Value 'x', Pos 0, Type: Long"),
        ("integer", "true", 1207, "Invalid digit, Value 't', Pos 0, Type: Integer"),
        ("integer", "[1]", 1207, "Invalid digit, Value '['"),
        ("double precision", '"x"', 1208, "Invalid digit"),
        ("double precision", '"1e400"', 1204, "Overflow"),
        ("real", "1e39", 1204, "Overflow"),
        ("numeric(4,2)", "100", 1204, "Numeric data overflow"),
        ("numeric(4,2)", '"1e999"', 1204, "Numeric data overflow"),
        ("numeric(4,2)", '"1,5"', 1207, "Invalid digit, Value ',', Pos 1, Type: Decimal"),
        ("boolean", '"maybe"', 1210, "Unknown boolean format"),
        ("date", '"30/11/2018"', 1205, "Invalid Date format or value [YYYY-MM-DD]"),
        ("date", '"2018-02-30"', 1205, "Invalid Date format or value"),
        ("timestamp", "1542845032796", 1206, "Invalid timestamp format or value [YYYY-MM-DD HH:MI:SS]"),
        ("integer not null", "null", 1213, "Missing data for not-null field"),
        ("integer not null", '""', 1213, "Missing data for not-null field"),
    ],
)
def test_a_value_that_does_not_fit_is_rejected(definition: str, value: str, code: int, message: str) -> None:
    rows, (rejected,) = convert(f'{{"a": {value}}}', column(definition))
    assert (rows, rejected.error_code, rejected.column_name) == ([], code, "a")
    assert rejected.error_message.startswith(message)


@pytest.mark.parametrize(
    ("options", "definition", "value", "field"),
    [
        ({"truncatecolumns": True}, "varchar(3)", '"éé"', "é"),
        ({"truncatecolumns": True}, "char(2)", '"abc"', "ab"),
        ({"blanksasnull": True}, "varchar(3)", '"  "', r"\N"),
        ({"blanksasnull": True}, "varchar(3)", '""', ""),
        ({"emptyasnull": True}, "varchar(3)", '""', r"\N"),
        ({"emptyasnull": True}, "varchar(3)", '" "', " "),
        ({"null_as": "N/A"}, "varchar(3)", '"N/A"', r"\N"),
        ({"null_as": "N/A"}, "varchar(3)", '"n/a"', "n/a"),
        ({"null_as": "N/A"}, "integer", '"N/A"', r"\N"),
        ({"null_as": ""}, "varchar(3)", '""', r"\N"),
        ({"roundec": True}, "numeric(8,2)", "20.259", "20.26"),
        ({"roundec": True}, "numeric(8,2)", "20.255", "20.26"),
        ({"timeformat": "epochmillisecs"}, "timestamp", "1542845032796", "2018-11-22 00:03:52.796"),
        ({"timeformat": "epochmillisecs"}, "timestamp", '"1542845032796"', "2018-11-22 00:03:52.796"),
        ({"timeformat": "epochmillisecs"}, "timestamp", "1542845032796.0", "2018-11-22 00:03:52.796"),
        ({"timeformat": "epochmillisecs"}, "timestamp", "-1", "1969-12-31 23:59:59.999"),
        ({"timeformat": "epochmillisecs"}, "timestamp", '""', r"\N"),
        ({"timeformat": "epochmillisecs"}, "timestamptz", "1", "1970-01-01 00:00:00.001+00"),
        ({"timeformat": "epochsecs"}, "timestamp", "1542845032", "2018-11-22 00:03:52.000"),
        ({"timeformat": "auto"}, "timestamp", '"2019-02-11T05:09:12.195Z"', "2019-02-11 05:09:12.195000"),
        ({"timeformat": "auto"}, "timestamptz", '"20190211T050912-0800"', "2019-02-11 13:09:12+00:00"),
        ({"timeformat": "DD.MM.YYYY HH:MI:SS"}, "timestamp", '"3.12.2018 23:59:1"', "2018-12-03 23:59:01"),
        ({"timeformat": "MM/DD/YY HH12:MI AM"}, "timestamp", '"12/03/18 12:05 am"', "2018-12-03 00:05:00"),
        ({"dateformat": "MON DD, YYYY"}, "date", '"March 31, 2003"', "2003-03-31"),
        ({"dateformat": "auto"}, "date", '"20181130"', "2018-11-30"),
    ],
)
def test_an_option_changes_the_conversion(
    options: dict[str, Any], definition: str, value: str, field: str
) -> None:
    assert convert(f'{{"a": {value}}}', column(definition), **options) == ([field], [])


@pytest.mark.parametrize("value", ["1542845032796.5", '"2018-11-22"', "99999999999999999", "true"])
def test_epochmillisecs_takes_whole_numbers_alone(value: str) -> None:
    _, (rejected,) = convert(f'{{"a": {value}}}', column("timestamp"), timeformat="epochmillisecs")
    assert (rejected.error_code, rejected.error_message) == (
        1206,
        "Invalid timestamp format or value [epochmillisecs]",
    )


@pytest.mark.parametrize("pattern", ["YYYY-MM-DD HH:MI:SS TZ", "YYYY-MM-DDOF", "HH24:MI HH12", "never"])
def test_a_pattern_that_redshift_refuses_is_refused(pattern: str) -> None:
    with pytest.raises(SqlError, match="TIMEFORMAT"):
        JsonRows([column("timestamp")], Conversion(timeformat=pattern))


@pytest.mark.parametrize("first", ["", NEEDS_CARE + ", "], ids=["line", "care"])
def test_null_becomes_the_default_of_a_column_that_is_not_null(first: str) -> None:
    """r_ALTER_TABLE#alter-table-default."""
    members = [r'"a": 1, "b": "\\D"', '"a": null, "b": ""', '"b": null', '"a": 4']
    lines = [f"{{{first}{each}}}" for each in members]
    columns = [Column(name, "varchar", 9, nullable=False, has_default=name == "a") for name in "ab"]
    rows, rejected = convert("\n".join(lines), *columns)
    assert rows == ["1\t\\\\D", "\\D\t"]
    assert [(row.line_number, row.column_name, row.error_code) for row in rejected] == [
        (3, "b", 1213),
        (4, "b", 1213),
    ]


def test_a_type_that_is_not_known_is_refused() -> None:
    with pytest.raises(SqlError, match="column a of type super is not supported"):
        JsonRows([Column("a", "super")], Conversion())


def test_invalid_utf8_is_rejected_with_its_bytes() -> None:
    """multi-byte-character-load-errors."""
    rows, (rejected,) = convert(b'{"a": "x\xa4"}\n{"a": "y"}', column("varchar(9)"))
    assert rows == ["y"]
    assert rejected.error_message.endswith("Bad UTF-8 hex sequence: a4 (error 3)")
    assert (rejected.raw_line, rejected.raw_field_value) == ('{"a": "x."}', "x.")


def test_half_of_a_surrogate_pair_is_rejected_and_the_rows_around_it_are_loaded() -> None:
    """multi-byte-character-load-errors: error 5."""
    rows, (rejected,) = convert('{"a": "x"}\n{"a": "Love \\ud83d"}\n{"a": "z"}', column("varchar(9)"))
    assert rows == ["x", "z"]
    assert rejected.line_number == 2
    assert rejected.error_message.endswith("Bad UTF-8 hex sequence: ed a0 bd (error 5)")
    assert rejected.raw_field_value == "Love ."


@pytest.mark.parametrize("compress", [lambda text: text, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_file_in_another_encoding_is_skipped_with_one_error(
    put: "Put", load: "LoadOf", encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    """copy-parameters-data-conversion#copy-encoding."""
    text = "\ufeff" + '{"a": 1}\n' * 100_000
    put({"in1": compress(b'{"a": 1}'), "in2": compress(text.encode(encoding)), "in3": compress(b'{"a": 3}')})
    started = load("MAXERROR 2" + (" GZIP" if compress is gzip.compress else ""))
    assert b"".join(started.rows()) == b"1\n3\n"
    (rejected,) = started.rejected
    assert (rejected.file_name, rejected.line_number, rejected.error_code) == ("s3://data/in2", 1, 1221)
    assert rejected.error_message.startswith("Encoding of the file is not the same")


def test_acceptinvchars_replaces_each_invalid_byte() -> None:
    assert convert(b'{"a": "x\xe0\xa1y"}', column("varchar(9)"), accept_invalid="^")[0] == ["x^^y"]


def test_invalid_utf8_outside_the_loaded_columns_does_not_matter() -> None:
    assert convert(b'{"b": "\xa4", "a": 1}', column("integer")) == (["1"], [])


# names and JSONPaths: copy-parameters-data-format#copy-json-auto, #copy-json-jsonpaths

FIRST, LAST = column("varchar(9)", "firstname"), column("varchar(9)", "lastname")


def test_auto_matches_names_by_case() -> None:
    assert convert('{"firstName": "Ava", "lastname": "R"}', FIRST, LAST)[0] == [r"\N" + "\tR"]


@pytest.mark.parametrize("form", ["{}", "\n{}\n\n{}"])
def test_auto_ignorecase_does_not(form: str) -> None:
    data = form.format('{"firstName": "Ava", "LASTNAME": "R"}', '{"FirstName": "Ava", "LastName": "R"}')
    assert set(convert(data, FIRST, LAST, ignorecase=True)[0]) == {"Ava\tR"}


def test_ignorecase_follows_names_that_change_from_line_to_line() -> None:
    data = '{"firstName": "1"}\n{"FIRSTNAME": "2"}\n{"x": 0}\n{"firstname": "4", "LastName": "L"}'
    assert convert(data, FIRST, LAST, ignorecase=True)[0] == ["1\t\\N", "2\t\\N", "\\N\t\\N", "4\tL"]


def test_a_missing_name_is_null_and_an_unknown_one_ignored() -> None:
    assert convert('{"b": 1}', column("integer")) == ([r"\N"], [])


PATHS = """
$['id'] | $['store']['book']['title'] | $['location'][0]
$.id    | $.store.book.title          | $.location[0]
"""


@pytest.mark.parametrize("line", PATHS.split("\n")[1:3])
def test_both_notations_lead_to_the_same(line: str) -> None:
    content = json.dumps({"jsonpaths": [path.strip() for path in line.split("|")]})
    paths = [("id",), ("store", "book", "title"), ("location", 0)]
    assert parse_paths(content.encode(), "s3://data/paths", 3) == tuple(paths)
    document = '{"id": 1, "location": ["x"], "store": {"book": {"title": "T", "Id": 2}}}'
    columns = [column("integer", "x"), column("varchar(9)", "y"), column("varchar(9)", "z")]
    assert convert(document, *columns, paths=list(paths)) == (["1\tT\tx"], [])


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ('{"b": [5]}', "5"),
        ("{}", r"\N"),
        ('{"b": null}', r"\N"),
        ('{"b": []}', "Invalid JSONPath format: Not an array or index out of range."),
        ('{"b": 1}', "Invalid JSONPath format: Not an array or index out of range."),
        ("[1]", "Invalid JSONPath format: Member is not an object."),
    ],
)
def test_a_missing_member_is_null_but_a_missing_element_an_error(document: str, expected: str) -> None:
    rows, rejected = convert(document, column("integer"), paths=[("b", 0)])
    assert rows + [row.error_message for row in rejected] == [expected]


def test_with_jsonpaths_each_array_is_a_row() -> None:
    columns = column("integer", "x"), column("varchar(9)", "y")
    assert convert('[1, "a"]\n[2,\n"b"][3]', *columns, paths=[(0,), (1,)])[0] == ["1\ta", "2\tb"]


def test_without_jsonpaths_an_array_is_an_error() -> None:
    rows, (rejected,) = convert('[{"a": 1}]\n{"a": 2}', column("integer"))
    assert (rows, rejected.error_message) == (["2"], "Invalid JSONPath format: Member is not an object.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("{} {}", "not valid JSON"),
        ("[]", "holds no JSON object"),
        ('{"jsonpaths": ["$.a", ""]}', "non-empty strings"),
        ('{"jsonpaths": ["$.a"]}', "JSONPath size: 1, Number of columns in table or column list: 2"),
        ("""{"jsonpaths": ["$.a", "$['b']"]}""", "Invalid JSONPath format"),
        ('{"jsonpaths": ["$.a", "$.*"]}', "Invalid JSONPath format"),
        ('{"jsonpaths": ["$.a", "b"]}', "Invalid JSONPath format"),
        ('{"jsonpaths": ["$.a", "$"]}', "Invalid JSONPath format"),
    ],
)
def test_a_wrong_jsonpaths_file_fails_the_load(content: str, message: str) -> None:
    with pytest.raises(SqlError, match=message):
        parse_paths(content.encode(), "s3://data/paths", 2)


def test_a_jsonpaths_file_of_another_name_means_auto() -> None:
    assert parse_paths(b'{"paths": []}', "s3://data/paths", 2) is None


# shapes of files: copy-parameters-data-format#copy-json-data-file


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n{"a": 2}\n',
        '{"a": 1}\n{"a": 2}',
        '{"a": 1}\r\n{"a": 2}\r\n',
        '{"a": 1}{"a": 2}',
        '  {"a": 1}\t{"a": 2}',
        '\n\n{"a": 1}\n \n{"a": 2}\n\n',
        '{\n  "a": 1\n}\n{\n  "a": 2\n}',
        '{"a":\n1}{"a"\n:2\n}',
    ],
)
def test_objects_are_separated_by_any_white_space(text: str) -> None:
    assert convert(text, column("integer")) == (["1", "2"], [])


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"])
def test_an_empty_file_has_no_rows(text: str) -> None:
    assert convert(text, column("integer")) == ([], [])


@pytest.mark.parametrize(
    ("text", "rows", "lines"),
    [
        ('{"a": 1}\n{"a": tru\n{"a": 3}', ["1", "3"], [2]),
        ('{"a": 1\n{"a": 2}\n{"a": 3}', ["2", "3"], [1]),
        ('{"a": 1}\n{"b": "x\n{"a": 3}', ["1", "3"], [2]),
        ('{"a": 1},{"a": 2}', ["1", "2"], [1]),
        ('{"a": 1}\noops\n{"a": 2}', ["1", "2"], [2]),
        ("oops 5\n", [], [1]),
        ("5\n", [], [1]),
        ('{"a": NaN}\n{"a": 2}', ["2"], [1]),
        ('{"a": 1}\n{"a": 2', ["1"], [2]),
        ('{\n "a": [\n  {"a": 9},\n  x\n ]\n}\n{\n "a": 2\n}', ["2"], [4]),
        ('  {"a": x}\n  {"a": 2}', ["2"], [1]),
        ("[" * 100_000 + '\n{"a": 2}', ["2"], [1]),
    ],
)
def test_reading_goes_on_behind_malformed_json(text: str, rows: list[str], lines: list[int]) -> None:
    found, rejected = convert(text, column("integer"))
    assert (found, [row.line_number for row in rejected]) == (rows, lines)
    assert all(row.error_code == 1216 and row.error_message.startswith("Invalid value.") for row in rejected)


@pytest.mark.parametrize("opening", ["[", '{"x":'])
def test_each_depth_of_nesting_is_loaded_or_rejected(opening: str) -> None:
    """What can be read is not always shallow enough to be written. AWS documents no limit."""
    closing = {"[": "]", '{"x":': "}"}[opening]
    for depth in (*range(900, 1100), 60_000):
        value = opening * depth + "1" + closing * depth
        rows, rejected = convert(f'{{"a": {value}}}\n{{"a": "next"}}', column("varchar(65535)"))
        assert (rows[-1], len(rows) + len(rejected)) == ("next", 2)
        assert all((row.line_number, row.error_code) == (1, 1216) for row in rejected)


def test_a_rejected_object_is_described() -> None:
    """r_STL_LOAD_ERRORS, SYS_LOAD_ERROR_DETAIL: the line number is that of the object's last line."""
    _, rejected = convert('{"a": 1}\n{\n"a": "é2"\n}\n', column("numeric(8,2)"))
    assert rejected == [
        Rejected(
            file_name="s3://data/in",
            line_number=4,
            column_name="a",
            column_type="numeric",
            column_length="8, 2",
            position=0,
            raw_line='{\n"a": ".2"\n}',
            raw_field_value=".2",
            error_code=1207,
            error_message="Invalid digit, Value 'é', Pos 0, Type: Decimal",
        )
    ]


def test_the_first_of_several_faults_is_reported() -> None:
    _, (rejected,) = convert('{"a": "x", "b": "y"}', column("integer"), column("integer", "b"))
    assert rejected.column_name == "a"


def test_raw_text_is_cut_at_1024_characters() -> None:
    _, (rejected,) = convert('{"a": "' + "x" * 2000 + '"}', column("varchar(9)"))
    assert (len(rejected.raw_line), len(rejected.raw_field_value)) == (1024, 1024)


@pytest.mark.parametrize("separator", ["\n", "", "\n\n "])
def test_a_file_longer_than_a_block_keeps_every_row(separator: str) -> None:
    objects = [f'{{"a": {i}, "b": "é}}{{{"x" * 990}"}}' for i in range(6000)]
    rows, rejected = convert(separator.join(objects), column("integer"))
    assert rows == [str(i) for i in range(6000)]
    assert rejected == []


def test_a_bad_line_in_a_long_file_is_found_at_its_line() -> None:
    lines = ['{"a": 1, "b": "' + "x" * 1000 + '"}'] * 3000
    lines[2500] = '{"a": "bad"}'
    lines[2700] = "{"
    rows, rejected = convert("\n".join(lines), column("integer"))
    assert (len(rows), [row.line_number for row in rejected]) == (2998, [2501, 2701])


NAMES = st.sampled_from(["a", "A", "b", "x", 'q"', ""])
VALUES_OF_ANY_TYPE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.integers(-10, 10)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.sampled_from(
        ["", " ", "1", "12.5", "t", "\\N", "a\tb", "\r\n", "2018-11-30", "2018-11-30 19:54:24"]
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=3,
)
COLUMN_TYPES = [
    "varchar(9)", "varchar(9) not null", "char(3)", "smallint", "integer not null", "bigint", "real",
    "double precision", "numeric(9,2)", "boolean", "date", "timestamp", "timestamptz",
]  # fmt: skip


@given(
    documents=st.lists(st.dictionaries(NAMES, VALUES_OF_ANY_TYPE, max_size=4), min_size=1, max_size=6),
    types=st.lists(st.sampled_from(COLUMN_TYPES), min_size=3, max_size=3),
    options=st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(
                ("ignorecase", "truncatecolumns", "blanksasnull", "emptyasnull", "roundec"), st.just(True)
            ),
            "timeformat": st.sampled_from(["auto", "epochsecs", "epochmillisecs"]),
            "null_as": st.sampled_from(["", "1", "t"]),
        },
    ),
    paths=st.none() | st.just([("a",), ("b", "x"), ("a",)]),
    ascii_only=st.booleans(),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_many_at_a_time_and_one_by_one_give_the_same(
    documents: list[dict[str, Any]],
    types: list[str],
    options: dict[str, Any],
    paths: list[tuple[str | int, ...]] | None,
    ascii_only: bool,
) -> None:
    columns = [column(definition, name) for definition, name in zip(types, "abx", strict=True)]
    lines = [json.dumps(document, ensure_ascii=ascii_only) for document in documents]
    with_care = [
        line[:-1] + (", " if document else "") + NEEDS_CARE + "}"
        for line, document in zip(lines, documents, strict=True)
    ]
    many, many_rejected = convert("\n".join(lines), *columns, paths=paths, **options)
    single, single_rejected = convert("\n".join(with_care), *columns, paths=paths, **options)
    assert many == single
    reasons = ("line_number", "column_name", "raw_field_value", "error_code", "error_message")
    assert [[getattr(row, name) for name in reasons] for row in many_rejected] == [
        [getattr(row, name) for name in reasons] for row in single_rejected
    ]


def test_worker_processes_end_with_a_killed_server() -> None:
    code = """
import multiprocessing
from local.redshift.json_lines import convert_later, plan
from local.redshift.json_values import Column, Conversion
print(convert_later(b'{"a": 1}', plan((Column("a", "integer"),), Conversion(), None))())
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "(1, b'1\\n')\n"
        workers = [psutil.Process(int(pid)) for pid in server.stdout.readline().split()]
        server.kill()
    assert workers
    assert not psutil.wait_procs(workers, timeout=10)[1]


@pytest.mark.parametrize("at_work", [True, False])
def test_a_killed_worker_process_costs_no_row(at_work: bool) -> None:
    task = (b'{"a": 1}', plan((column("integer"),), Conversion(), None))
    while not (workers := multiprocessing.active_children()):
        convert_later(*task)()
    for worker in workers:
        psutil.Process(worker.pid).suspend()
    results = [convert_later(*task)] if at_work else []
    for worker in workers:
        worker.kill()
        worker.join()
    results += [convert_later(*task), convert_later(*task)]
    assert [result() for result in results] == [(1, b"1\n")] * len(results)


def test_a_worker_process_killed_while_tasks_are_handed_in_costs_no_row() -> None:
    task = (b'{"a": 1}', plan((column("integer"),), Conversion(), None))
    for milliseconds in range(20):
        while not (workers := multiprocessing.active_children()):
            convert_later(*task)()
        killer = threading.Timer(milliseconds / 1000, workers[0].kill)
        killer.start()
        results: list[Callable[[], tuple[int, bytes] | None]] = []
        while killer.is_alive() or len(results) < 100:
            results.append(convert_later(*task))
        assert {result() for result in results} == {(1, b"1\n")}


@pytest.mark.parametrize("opening", ['{"a": "', '{"a": "", "b": "', '[{"b": 1}, "'])
@pytest.mark.parametrize("closing", ['"}', '"}\n', '"]', ""])
@pytest.mark.parametrize("size", [MAX_OBJECT, MAX_OBJECT + 2_000_000])
def test_an_object_above_4_mb_fails_the_load(opening: str, closing: str, size: int) -> None:
    with pytest.raises(SqlError, match=r"s3://data/in, line 2, is larger than 4 MB"):
        convert('{"a": 1}\n' + opening + "x" * size + closing, column("varchar(9)"))


def test_an_object_of_4_mb_is_loaded() -> None:
    largest = '{"a": 2, "b": "' + "x" * (MAX_OBJECT - 17) + '"}'
    assert len(largest) == MAX_OBJECT
    assert convert(f'{{"a": 1}}\n{largest}\n{{"a": 3}}', column("integer")) == (["1", "2", "3"], [])


# S3 and the load

Put = Callable[..., None]
LoadOf = Callable[..., Load]


class HangsUp(Handler):
    """Closes the connection of each unsigned request without saying so."""

    def run_wsgi(self) -> None:
        super().run_wsgi()
        self.close_connection |= "authorization" not in self.headers


@contextmanager
def serving(handler: type[MotoRequestHandler]) -> Iterator[str]:
    services = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, services, threaded=True, request_handler=handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(
    scope="module",
    params=[Handler, HangsUp, MotoRequestHandler],
    ids=["local", "hangs-up", "wants-signatures"],
)
def s3_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with serving(request.param) as url:
        yield url


@pytest.fixture
def put(s3_url: str) -> Put:
    """Upload objects, named by keyword or by a dictionary, into an empty bucket."""
    bucket = boto3.resource(
        "s3", endpoint_url=s3_url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    ).Bucket("data")
    bucket.create()
    bucket.objects.delete()

    def put(objects: dict[str, bytes]) -> None:
        for key, body in objects.items():
            bucket.put_object(Key=key, Body=body)

    return put


@pytest.fixture
def load(s3_url: str) -> LoadOf:
    """Start the load of COPY with more options into a table of one column."""

    def load(options: str = "", table: tuple[Column, ...] = (column("integer"),), **changes: str) -> Load:
        sql = f"{COPY} {options}"
        for old, new in changes.items():
            sql = sql.replace(old, new)
        statement = parse_copy(sql)
        assert statement is not None
        return start_load(statement, table, s3_url)

    return load


def test_a_prefix_loads_every_key_that_begins_with_it_in_order(put: Put, load: LoadOf) -> None:
    put({"in/2": b'{"a": 2}\n', "in/1": b'{"a": 1}', "in3": b'{"a": 3}\n{"a": 4}', "other": b'{"a": 5}'})
    started = load()
    assert b"".join(started.rows()) == b"1\n2\n3\n4\n"
    assert started.target_columns == ("a",)
    assert (started.loaded, started.rejected) == (4, [])
    assert [(file.url, file.bytes) for file in started.files] == [
        ("s3://data/in/1", 8),
        ("s3://data/in/2", 9),
        ("s3://data/in3", 17),
    ]


def test_many_small_objects_stay_in_order(put: Put, load: LoadOf) -> None:
    put({f"in/{i:03}": b'{"a": %d}' % i for i in range(100)})
    assert b"".join(load().rows()).split() == [b"%d" % i for i in range(100)]


def test_a_large_object_is_handed_out_in_pieces(put: Put, load: LoadOf) -> None:
    line = b'{"a": 1000000000, "b": "' + b"x" * 100 + b'"}\n'
    put({"in": line * 40_000})
    started = load()
    assert [len(piece) < 100_000 for piece in started.rows()].count(True) > 3
    assert (started.loaded, started.files[0].bytes) == (40_000, len(line) * 40_000)


def test_a_column_list_chooses_columns_and_their_order(put: Put, load: LoadOf) -> None:
    """copy-parameters-column-mapping."""
    put({"in": b'{"a": 1, "b": 2, "c": 3}'})
    columns = tuple(column("integer", name) for name in "abc")
    started = load(table=columns, **{"t FROM": "t (C, a) FROM"})
    assert (started.target_columns, b"".join(started.rows())) == (("c", "a"), b"3\t1\n")


def test_an_unknown_column_is_refused(load: LoadOf) -> None:
    with pytest.raises(SqlError, match='column "z" of relation "t" does not exist'):
        load(**{"t FROM": "t (z) FROM"})


def test_a_required_column_without_default_must_be_in_the_list(load: LoadOf) -> None:
    required = Column("b", "integer", nullable=False)
    with pytest.raises(SqlError, match="leaves out column b"):
        load(table=(column("integer"), required), **{"t FROM": "t (a) FROM"})
    with_default = Column("b", "integer", nullable=False, has_default=True)
    assert load(table=(column("integer"), with_default), **{"t FROM": "t (a) FROM"}).target_columns == ("a",)


def test_jsonpaths_map_by_position(put: Put, load: LoadOf) -> None:
    put({"in": b'{"Song": {"Id": 7}}', "paths": b'{"jsonpaths": ["$.Song.Id"]}'})
    assert b"".join(load(**{"'auto'": "'s3://data/paths'"}).rows()) == b"7\n"


COMPRESSIONS = pytest.mark.parametrize(
    ("option", "compress"), [("GZIP", gzip.compress), ("BZIP2", bz2.compress), ("ZSTD", zstd.compress)]
)


@COMPRESSIONS
def test_compressed_data_is_read_in_members_and_blocks(
    put: Put, load: LoadOf, option: str, compress: Callable[[bytes], bytes]
) -> None:
    text = b'{"a": 1}\n' * 300_000
    put({"in": compress(text[: 9 * 1000]) + compress(text[9 * 1000 :])})
    started = load(option)
    assert b"".join(started.rows()) == b"1\n" * 300_000
    assert started.files[0].bytes < 100_000


@COMPRESSIONS
def test_data_that_is_not_compressed_fails_the_load(
    put: Put, load: LoadOf, option: str, compress: Callable[[bytes], bytes]
) -> None:
    for data in (b'{"a": 1}', compress(b'{"a": 1}' * 100)[:-5], b""):
        put({"in": data})
        with pytest.raises(SqlError, match=rf"^failed to inflate with {option.lower()}: .*\.$") as failure:
            list(load(option).rows())
        assert "code:      9001\n  context:   S3 key being read : s3://data/in\n" in failure.value.detail
    assert failure.value.message.endswith(": unexpected end of file.")


@COMPRESSIONS
def test_compressed_data_may_be_empty(
    put: Put, load: LoadOf, option: str, compress: Callable[[bytes], bytes]
) -> None:
    put({"in1": compress(b""), "in2": compress(b'{"a": 1}')})
    assert b"".join(load(option).rows()) == b"1\n"


def manifest(*entries: Any) -> bytes:
    return json.dumps({"entries": entries}).encode()


def test_a_manifest_lists_what_is_loaded(put: Put, load: LoadOf) -> None:
    """loading-data-files-using-manifest; extra keys such as UNLOAD's meta are ignored."""
    urls = [
        {"url": "s3://data/y", "mandatory": True, "meta": {"content_length": 8}},
        {"url": "s3://data/gone", "mandatory": False},
        {"url": "s3://data/x"},
    ]
    put({"in": manifest(*urls), "x": b'{"a": 1}', "y": b'{"a": 2}', "in2": b'{"a": 3}'})
    started = load("MANIFEST")
    assert b"".join(started.rows()) == b"2\n1\n"
    assert [file.url for file in started.files] == ["s3://data/y", "s3://data/x"]


def test_a_missing_mandatory_file_fails_the_load(put: Put, load: LoadOf) -> None:
    put({"in": manifest({"url": "s3://data/x"}, {"url": "s3://data/gone", "mandatory": True}), "x": b"{}"})
    with pytest.raises(SqlError, match="Status 404,Error NoSuchKey,") as failure:
        list(load("MANIFEST").rows())
    assert "S3 key being read : s3://data/gone\n" in failure.value.detail


def test_a_missing_manifest_fails_the_load(put: Put, load: LoadOf) -> None:
    put({})
    with pytest.raises(
        SqlError,
        match=r"^Problem reading manifest file - S3ServiceException:The specified key does not exist\.,"
        r"Status 404,Error NoSuchKey,Rid .*,ExtRid .*,CanRetry 1$",
    ):
        list(load("MANIFEST").rows())


def test_a_manifest_without_an_existing_file_fails_the_load(put: Put, load: LoadOf) -> None:
    put({"in": manifest({"url": "s3://data/gone"})})
    with pytest.raises(SqlError, match="no object that exists"):
        list(load("MANIFEST").rows())


@pytest.mark.parametrize("bucket", ["büc", "a b", "a\r\nb"])
def test_a_bucket_that_cannot_exist_fails_the_load(put: Put, load: LoadOf, bucket: str) -> None:
    put({"in": manifest({"url": f"s3://{bucket}/x"})})
    with pytest.raises(SqlError, match=re.escape(f"S3 cannot be read: s3://{bucket}/x")):
        list(load("MANIFEST").rows())


def test_an_empty_file_in_a_manifest_has_no_rows(put: Put, load: LoadOf) -> None:
    put({"in": manifest({"url": "s3://data/x", "mandatory": True}), "x": b""})
    started = load("MANIFEST")
    assert list(started.rows()) == []
    assert ([file.url for file in started.files], started.rejected) == (["s3://data/x"], [])


@pytest.mark.parametrize(
    "content",
    [b"[]", b"x", b'{"entries": []}', manifest({"url": "s3://data"}), manifest({"url": "s3://data/x\0"})],
)
def test_a_malformed_manifest_fails_the_load(put: Put, load: LoadOf, content: bytes) -> None:
    put({"in": content})
    with pytest.raises(SqlError, match="The manifest s3://data/in is malformed"):
        list(load("MANIFEST").rows())


def test_a_prefix_without_objects_fails_the_load(put: Put, load: LoadOf) -> None:
    with pytest.raises(SqlError, match="The specified S3 prefix 'in' does not exist") as failure:
        list(load().rows())
    assert failure.value.hint == "no key in bucket data begins with 'in'"


@pytest.mark.parametrize("options", ["", "MANIFEST"])
def test_a_missing_bucket_is_named(load: LoadOf, options: str) -> None:
    problem = "Problem reading manifest file - " if options else ""
    with pytest.raises(SqlError, match=rf"^{problem}S3ServiceException:.*,Error NoSuchBucket,") as failure:
        list(load(options, **{"s3://data": "s3://nowhere"}).rows())
    assert "create the bucket nowhere" in failure.value.hint


def test_a_denied_access_is_named(s3_url: str, load: LoadOf) -> None:
    with Stubber(copy._client(s3_url)) as stub:
        stub.add_client_error("list_objects_v2", "AccessDenied", "Access Denied", 403)
        with pytest.raises(
            SqlError, match="S3ServiceException:Access Denied,Status 403,Error AccessDenied,"
        ) as failure:
            list(load().rows())
    assert "context:   Listing bucket=data prefix=in\n" in failure.value.detail
    assert "s3:GetObject" in failure.value.hint


@pytest.mark.parametrize("options", ["", "MANIFEST"])
def test_an_archived_object_fails_the_load_until_it_is_restored(
    put: Put, load: LoadOf, s3_url: str, options: str
) -> None:
    put({"in": manifest({"url": "s3://data/x"}) if options else b'{"a": 1}', "x": b'{"a": 1}'})
    archived = s3_backends[ACCOUNT]["aws"].get_object("data", "x" if options else "in")
    assert isinstance(archived, FakeKey)
    archived.set_storage_class("GLACIER")
    with pytest.raises(SqlError) as failure:
        list(load(options).rows())
    assert failure.value.message.startswith(
        "S3ServiceException:The operation is not valid for the object's storage class,Status 403,"
        "Error InvalidObjectState,Rid "
    )
    assert f"S3 key being read : s3://data/{archived.name}\n" in failure.value.detail
    assert failure.value.hint == "restore the object: it is archived"
    archived.restore(1)
    assert b"".join(load(options).rows()) == b"1\n"


def test_an_s3_that_is_down_is_named() -> None:
    statement = parse_copy(COPY)
    assert statement is not None
    with pytest.raises(SqlError, match="S3 cannot be read: s3://data/in") as failure:
        list(start_load(statement, [column("integer")], "http://127.0.0.1:1").rows())
    assert "python -m local status" in failure.value.hint


@pytest.mark.parametrize("lines", [1, 40_000])
def test_an_object_that_ends_early_fails_the_load(put: Put, lines: int) -> None:
    put({"in": b'{"a": 1}\n' * lines})
    stored = s3_backends[ACCOUNT]["aws"].get_object("data", "in")
    assert isinstance(stored, FakeKey)
    stored.contentsize += 1
    statement = parse_copy(COPY)
    assert statement is not None
    with serving(HangsUp) as url, pytest.raises(SqlError, match="S3 cannot be read: s3://data/in"):
        list(start_load(statement, [column("integer")], url).rows())


BAD = b'{"a": 1}\n{"a": "x"}\n{"a": 3}\n{"a": "y"}\n{"a": 5}'


@pytest.mark.parametrize(
    ("maxerror", "rejected"), [("", 1), ("MAXERROR 0", 1), ("MAXERROR 1", 1), ("MAXERROR 2", 2)]
)
def test_a_load_fails_when_maxerror_rows_are_rejected(
    put: Put, load: LoadOf, maxerror: str, rejected: int
) -> None:
    """copy-parameters-data-load#copy-maxerror."""
    put({"in": BAD})
    started = load(maxerror)
    with pytest.raises(SqlError) as failure:
        list(started.rows())
    assert failure.value.sqlstate == "XX000"
    assert failure.value.message == (
        "Load into table 't' failed.  Check 'stl_load_errors' system table for details."
    )
    assert failure.value.hint == (
        "the first is s3://data/in, line 2, column a: Invalid digit, Value 'x', Pos 0, Type: Integer"
    )
    assert len(started.rejected) == rejected


def test_a_load_with_fewer_rejected_rows_goes_on(put: Put, load: LoadOf) -> None:
    put({"in": BAD, "in2": b"{"})
    started = load("MAXERROR 4")
    assert b"".join(started.rows()) == b"1\n3\n5\n"
    assert [(row.file_name, row.line_number) for row in started.rejected] == [
        ("s3://data/in", 2),
        ("s3://data/in", 4),
        ("s3://data/in2", 1),
    ]
    assert started.loaded == 3


def test_noload_checks_and_loads_nothing(put: Put, load: LoadOf) -> None:
    put({"in": BAD})
    started = load("NOLOAD MAXERROR 9")
    assert list(started.rows()) == []
    assert (started.loaded, len(started.rejected)) == (0, 2)


# the real data

REAL_DATA = Path(os.environ.get("SPARKIFY_REAL_DATA") or Path(__file__).parents[3] / "shared" / "data")
EVENTS = """
artist varchar(512)
auth varchar(32)
firstname varchar(256)
gender varchar(1)
iteminsession integer
lastname varchar(256)
length numeric(18,5)
level varchar(16)
location varchar(256)
method varchar(8)
page varchar(64)
registration bigint
sessionid integer
song varchar(1024)
status integer
ts timestamp
useragent varchar(1024)
userid varchar(32)
"""
SONGS = """
num_songs integer
artist_id varchar(32)
artist_latitude numeric(18,8)
artist_longitude numeric(18,8)
artist_location varchar(1024)
artist_name varchar(1024)
song_id varchar(32)
title varchar(1024)
duration numeric(18,5)
year integer
"""


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real data is not here: set SPARKIFY_REAL_DATA")
@pytest.mark.parametrize(
    ("folder", "definitions", "count"), [("log_data", EVENTS, 8056), ("song_data", SONGS, 71)]
)
def test_every_row_of_the_real_data_loads_with_its_values(folder: str, definitions: str, count: int) -> None:
    columns = [
        column(definition, name)
        for name, _, definition in (line.partition(" ") for line in definitions.strip().splitlines())
    ]
    loaded = 0
    for path in sorted((REAL_DATA / folder).rglob("*.json")):
        rows, rejected = convert(path.read_bytes(), *columns, ignorecase=True, timeformat="epochmillisecs")
        assert rejected == []
        sources = [json.loads(line, parse_float=str) for line in path.read_text().splitlines()]
        for row, source in zip(rows, sources, strict=True):
            by_name = {name.lower(): value for name, value in source.items()}
            fields = dict(zip((c.name for c in columns), row.split("\t"), strict=True))
            for c in columns:
                if c.type == "varchar" and by_name[c.name] is not None:
                    assert fields[c.name].replace("\\\\", "\\") == by_name[c.name]
                elif c.type == "numeric" and by_name[c.name] is not None:
                    assert float(fields[c.name]) == float(by_name[c.name])
        loaded += len(rows)
    assert loaded == count


def copying_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("copy_")]


def test_a_load_that_fails_leaves_no_thread_and_no_request_behind(put: Put, load: LoadOf) -> None:
    # What is left to the garbage collector may end in a thread that is being started, and wait for it.
    put({f"in{number:03}": BAD for number in range(50)})
    with pytest.raises(SqlError) as failure:
        list(load("MAXERROR 1").rows())
    assert copying_threads() == []
    assert failure.value.sqlstate == "XX000"


def test_a_load_that_is_given_up_leaves_no_thread_and_no_request_behind(put: Put, load: LoadOf) -> None:
    put({f"in{number:03}": b'{"a": 1}\n' * 20_000 for number in range(50)})
    rows = load().rows()
    next(rows)
    rows.close()
    assert copying_threads() == []
