"""A member of the source that no column takes is noticed, at a cost that does not depend on the source."""

import gzip
import io
import json
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from sparkify.files import S3Object
from sparkify.members import BYTES, FILES, look_at_members

COLUMNS = ["userid", "song", "length"]
EVENT = {"userId": "15", "song": "Setanta matins", "length": None}


class Bucket(S3Hook):
    """Stands in for S3: objects in memory, and what was asked of them."""

    def __init__(self, *contents):
        super().__init__()
        self.contents = {f"log/{n}.json": content for n, content in enumerate(contents)}
        self.asked = []

    def get_conn(self):
        return SimpleNamespace(get_object=self.get_object)

    def get_object(self, *, Bucket, Key, Range):
        first, last = (int(number) for number in Range.removeprefix("bytes=").split("-"))
        part = self.contents[Key][first : last + 1]
        self.asked.append((Key, len(part)))
        return {"Body": io.BytesIO(part)}

    def objects(self):
        return [
            S3Object("input", key, "etag", len(content), datetime(2018, 11, 1) + timedelta(hours=n))
            for n, (key, content) in enumerate(self.contents.items())
        ]


def lines(*objects):
    return "\n".join(map(json.dumps, objects)).encode()


def look(*contents, option="auto ignorecase"):
    bucket = Bucket(*contents)
    return look_at_members(bucket, bucket.objects(), option)


def test_members_that_have_a_column_are_silent():
    members = look(lines(EVENT))
    assert (members.values.keys(), members.unknown(COLUMNS)) == (EVENT.keys(), [])


def test_a_member_without_a_column_is_told_with_a_value():
    members = look(lines(EVENT, EVENT | {"device": "phone"}, EVENT | {"device": "tablet"}))
    assert members.unknown(COLUMNS) == ["device"]
    assert members.describe(COLUMNS) == (
        "1 members of the newest objects have no column and are not loaded: 'device' (such as 'phone')"
    )


def test_only_the_beginning_of_a_value_is_told():
    described = look(lines(EVENT | {"mail": "lily.koch@example.com", "card": {"number": 4111111111111111}}))
    assert "'mail' (such as 'lily.koch@ex'…)" in described.describe(COLUMNS)
    assert "4111" not in described.describe(COLUMNS)


def test_a_value_is_told_rather_than_a_null():
    members = look(lines({"device": None}, {"device": "phone"}, {"device": None}))
    assert members.values == {"device": "'phone'"}


def test_a_column_that_lost_its_member_is_told_along_with_an_unknown_member_alone():
    assert look(lines({"userId": "15"})).unknown(COLUMNS) == []
    renamed = look(lines({"user_id": "15", "song": None, "length": None}))
    assert renamed.describe(COLUMNS).endswith("None of these objects has userid: was one renamed?")


def test_case_counts_where_it_counts_for_copy():
    assert look(lines(EVENT), option="auto").unknown(COLUMNS) == ["userId"]


def test_with_a_jsonpaths_file_its_paths_tell_what_is_taken():
    bucket = Bucket(lines({"user": {"id": 15}, "song": "x", "song.title": "x", "Length": 1, "device": "x"}))
    paths = ["$.user.id", "$['song.title']", '$["Length"]', "$.song[0]", "$.other"]
    bucket.contents["paths.json"] = json.dumps({"jsonpaths": paths}).encode()
    members = look_at_members(bucket, bucket.objects()[:1], "s3://input/paths.json")
    assert members.unknown(COLUMNS) == ["device"]
    assert members.describe(COLUMNS).endswith("None of these objects has other: was one renamed?")


def test_what_was_appended_last_is_looked_at():
    old, new = lines(*[EVENT] * 1000), lines(EVENT | {"device": "phone"})
    assert look(old + b"\n" + new).unknown(COLUMNS) == ["device"]


def test_the_newest_files_are_looked_at():
    other = lines(EVENT | {"device": "phone"})
    assert look(other, *[lines(EVENT)] * FILES).unknown(COLUMNS) == []
    assert look(*[lines(EVENT)] * FILES, other).unknown(COLUMNS) == ["device"]


def test_fifteen_thousand_files_cost_as_much_as_five():
    bucket = Bucket(*[lines(*[EVENT] * 1000)] * 15_000)
    assert look_at_members(bucket, bucket.objects(), "auto ignorecase").values
    assert len(bucket.asked) == FILES
    assert sum(size for _, size in bucket.asked) <= FILES * BYTES


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00\xff\xfe not JSON", id="binary"),
        pytest.param(b"{" + b'"a": ' * 3_000, id="no end"),
        pytest.param(b'{"song": ' + b"[" * 16_000, id="too deep"),
        pytest.param(b'{"song": ' + b"9" * 16_000 + b"}", id="too large a number"),
        pytest.param(b'["device"]\n"device"\nnull\n1', id="no objects"),
        pytest.param(gzip.compress(lines(EVENT | {"device": "phone"})), id="gzip"),
        pytest.param(lines({"device": "x" * 100_000}), id="too long a line"),
        pytest.param(lines(EVENT)[:-5], id="cut off"),
    ],
)
def test_a_file_that_cannot_be_read_so_does_no_harm(content):
    assert look(content, lines(EVENT)).values.keys() == EVENT.keys()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param('\ufeff{"device": 1}'.encode(), id="byte order mark"),
        pytest.param(json.dumps({"device": 1}, indent=1).encode(), id="several lines"),
        pytest.param(b'{"song": 1}{"device": 1}', id="one line"),
        pytest.param(
            "\n".join([json.dumps({"nested": {"x": {"y": 1}}, "device": 1}, indent=2)] * 500).encode(),
            id="several lines, cut",
        ),
    ],
)
def test_the_fields_of_objects_in_any_layout_are_found(content):
    names = look(content).values.keys()
    assert "device" in names
    assert names <= {"device", "song", "nested"}


def test_a_hostile_name_is_cut_and_cannot_forge_a_line_of_the_log():
    described = look(lines({"x" * 1000: 1, "a\nERROR b": "c\x1b[31m", "a\u202eb": 1})).describe(COLUMNS)
    assert f"'{'x' * 64}'… (such as '1')" in described
    assert described.isprintable()


def test_of_many_members_some_are_told():
    members = look(lines({f"m{n}": n for n in range(500)}))
    assert len(members.unknown(COLUMNS)) == 500
    assert "'m19' (such as '19'), and 480 more" in members.describe(COLUMNS)
    assert "m20" not in members.describe(COLUMNS)


def test_a_store_that_fails_does_no_harm(caplog):
    bucket = Bucket(lines(EVENT))
    objects = bucket.objects()
    bucket.contents.clear()
    with caplog.at_level("INFO"):
        assert look_at_members(bucket, objects, "auto").values == {}
    assert "were not looked at" in caplog.text
