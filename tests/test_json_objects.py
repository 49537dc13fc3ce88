"""A file's text is split into its JSON objects, however they are laid out, and whatever is between them."""

import json
import re
import time
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.redshift.json_rows import JsonRows, Rejected
from local.redshift.json_values import Column, Conversion
from sparkify import json_objects
from sparkify.json_objects import count_values, split_values, values_on_lines


def split(text):
    return [(value.text, value.first_line, value.last_line, value.fields) for value in split_values(text)]


def test_an_object_has_its_lines_its_text_and_its_fields():
    pretty = '{\n  "a": [1, {"b": "}{"}],\n  "c": 77.0\n}'
    assert split(f'\n{{"a": 1}}\n{pretty}\n') == [
        ('{"a": 1}', 2, 2, {"a": "1"}),
        (pretty, 3, 6, {"a": ["1", {"b": "}{"}], "c": "77.0"}),
    ]


def test_several_objects_may_be_on_a_line():
    assert split('{"a": 1}{"a": 2} {\n"a": 3} {"a": 4}') == [
        ('{"a": 1}', 1, 1, {"a": "1"}),
        ('{"a": 2}', 1, 1, {"a": "2"}),
        ('{\n"a": 3}', 1, 2, {"a": "3"}),
        ('{"a": 4}', 2, 2, {"a": "4"}),
    ]


@pytest.mark.parametrize(("end", "lines"), [("\n", [1, 2]), ("\r\n", [1, 2]), ("\r", [1, 1])])
def test_lines_end_with_line_feeds_as_copy_counts_them(end, lines):
    found = split(f'\ufeff{{"a": 1}}{end}{{"a": 2}}{end}')
    assert [value[:2] for value in found] == [('{"a": 1}', lines[0]), ('{"a": 2}', lines[1])]


MALFORMED = [
    '{"a": oops}',
    '{"a": "no end',
    '{"a": {"b": 1}',
    '{"a": [1, 2',
    '{"a": 1,}',
    '{"a": "\\x"}',
    '{"a": "\\u12"}',
    '{"a": "tab\tand control \x01"}',
    '{"a": 1}}',
    "{",
    "[1, 2",
    "oops",
    "]}",
    "\x00",
    '"text"',
    "{'a': 1}",
    ",",
    '{"a": "half a pair \udcff',
    '{"a":' * 60_000,
    '{"a":' * 60_000 + "1" + "}" * 60_000,
]


@pytest.mark.parametrize("malformed", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_line_does_not_hide_the_lines_around_it(malformed):
    found = split(f'{{"a": 1}}\n{malformed}\n{{"a": 2}}\n')
    assert found[0] == ('{"a": 1}', 1, 1, {"a": "1"})
    assert found[-1] == ('{"a": 2}', 3, 3, {"a": "2"})
    assert "".join(text for text, *_ in found[1:-1]) == malformed
    assert {line for _, *lines, _ in found[1:-1] for line in lines} == {2}


def test_a_malformed_object_of_several_lines_is_one():
    malformed = '{\n  "a": {\n    "b": yesterday\n  },\n  "c": [\n    {"d": 1}\n  ]\n}'
    assert split(f'{malformed}\n{{\n  "a": 2\n}}') == [
        (malformed, 1, 8, None),
        ('{\n  "a": 2\n}', 9, 11, {"a": "2"}),
    ]


def test_an_array_is_one_value_without_fields():
    array = '[\n{"a": 1},\n{"a": 2}\n]'
    assert split(f'{array}\n{{"a": 3}}') == [(array, 1, 4, None), ('{"a": 3}', 5, 5, {"a": "3"})]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("\n", 0),
        (" \t\r\n\n ", 0),
        ("\ufeff", 0),
        ("\ufeff\n", 0),
        ('{"a": 1}', 1),
        ('{"a": {"b": 1}}{"a": 2}\n{"a": 3', 3),
        ('[{"a": 1}, {"a": 2}]', 1),
        ("{}", 1),
        ("oops", 1),
    ],
)
def test_values_are_counted_unless_blank(text, count):
    assert count_values(text) == count == len(split(text))


def test_a_number_of_any_length_is_text():
    digits = "9" * 5000
    (value,) = split_values(f'{{"a": {digits}, "b": -1.50e400, "c": true, "d": NaN}}')
    assert value.fields == {"a": digits, "b": "-1.50e400", "c": True, "d": "NaN"}


def test_a_line_is_found_in_the_value_that_it_is_part_of_or_follows():
    values = list(split_values('\n{"a":\n1}\n\n{"a": 2} {"a":\n3}\n\n'))
    found = [(line, value.text) for line, value in values_on_lines(values, [9, 1, 2, 3, 4, 5, 6, 5])]
    first, second, third = (value.text for value in values)
    assert sorted(found) == sorted(
        [(2, first), (3, first), (4, first), (5, second), (5, third), (6, third), (9, third)]
    )
    assert list(values_on_lines([], [1])) == []


texts = st.text(st.sampled_from('ab"\\{}[]:, \n\r\t\ud83d\udc80é😀\x00'), max_size=8)
contents = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, contents, max_size=3)
layouts = st.sampled_from([{}, {"indent": 2}, {"indent": "\t"}, {"separators": (",", ":")}])
gaps = st.sampled_from(["\n", "\r\n", "\r", "", " ", "\n\n", " \n "])


@given(st.lists(st.tuples(objects, layouts, gaps), max_size=6), st.sampled_from(["", "\ufeff", "\n"]))
def test_well_formed_objects_are_found_in_any_layout(drawn, beginning):
    written = [(json.dumps(content, **layout), gap) for content, layout, gap in drawn]
    text = beginning + "".join(object_ + gap for object_, gap in written)
    found = list(split_values(text))
    assert [value.text for value in found] == [object_ for object_, _ in written]
    for value in found:
        assert value.fields is not None
        assert value.fields.keys() == json.loads(value.text).keys()
    assert count_values(text) == len(drawn)


pieces = st.sampled_from(
    [*MALFORMED[:-2], '{"a": 1}', "[{}]", "{\n", " {", '"a":', "\n", "\n", "\r", "1", "}"]
)


@settings(max_examples=300)
@given(st.lists(pieces, max_size=12).map("".join), st.sampled_from([4, 8, 4096]))
def test_every_character_that_is_not_blank_belongs_to_one_value(text, window):
    with patch.object(json_objects, "_FIRST_WINDOW", window):
        found = list(split_values(text))
    position, line = 0, 1
    for value in found:
        start = text.index(value.text, position)
        assert text[position:start].strip(" \t\r\n") == ""
        assert value.text == value.text.strip(" \t\r\n") != ""
        assert value.first_line == (line := line + text.count("\n", position, start))
        position = start + len(value.text)
        assert value.last_line == (line := line + value.text.count("\n"))
    assert text[position:].strip(" \t\r\n") == ""
    assert count_values(text) == len(found)


rows = st.sampled_from(
    [
        *('{"a": 1, "b": "x"}', '{"a": "x"}', '{"a": 99999999999}', '{"b": "long"}', '{\n "a": 1\n}'),
        *('{\n  "a": "x",\n  "b": {\n    "c": 1\n  }\n}', '{"a": oops}', '{"a": 1', "oops", '[{"a": 1}]'),
        *('{"a": 1} {"a": "x"}', '{\n"a": 1}{"a": "x"\n}', '{\n  "a": "x",\n  "b": oops\n}', ""),
    ]
)


@given(st.lists(rows, max_size=6).map("\n".join))
def test_a_line_that_copy_reports_is_one_of_the_object_that_it_rejects(text):
    rejected: list[Rejected] = []
    columns = [Column("a", "integer", nullable=False), Column("b", "varchar", 3)]
    list(JsonRows(columns, Conversion()).convert([("file", [text.encode()])], rejected.append))
    found = list(values_on_lines(split_values(text), [row.line_number for row in rejected]))
    for row in rejected:
        texts = [value.text for line, value in found if line == row.line_number]
        assert any(re.sub(r"\s", "", row.raw_line) in re.sub(r"\s", "", text) for text in texts), row


HOSTILE = [
    '{"a": 1, "b": "some text", "c": null}\n',
    '{"a": 1, "b": "some text", "c": null}',
    '{\n  "a": 1,\n  "b": "some text"\n}\n',
    '{"a": "no end\n',
    '{"a": {"b": 1}\n',
    '{"a": [1,\n',
    '{"a":\n',
    '{"a":',
    "{\n",
    "[",
    "[\n",
    ", ",
    '"',
    '{"',
    "\r",
    " {",
    "\\",
]


@pytest.mark.parametrize("piece", HOSTILE, ids=range(len(HOSTILE)))
def test_the_time_grows_with_the_size_of_the_text(piece):
    def seconds(size):
        text, took = piece * (size // len(piece)), []
        for _ in range(3):
            began = time.thread_time()
            count_values(text)
            took.append(time.thread_time() - began)
        return min(took)

    assert seconds(500_000) < 50 * max(seconds(50_000), 0.001)
