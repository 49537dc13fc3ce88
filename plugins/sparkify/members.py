"""
Which members the source's new JSON objects have, so that one that no column takes is noticed.

COPY skips such a member silently. Only the ends of the newest files are looked at, where a change of
the source shows first, so that it costs the same for 15,000 files as for five.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from sparkify.files import S3Object, split_url
from sparkify.json_objects import split_values

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

log = logging.getLogger(__name__)

FILES = 5
BYTES = 16_384
# A value may be personal data: enough of it to tell what it is, and no more.
VALUE_LENGTH = 12
NAME_LENGTH = 64
SHOWN = 20

# The member that a JSONPath begins with, in either notation
# (https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-format.html#copy-json-jsonpaths)
_FIRST_STEP = re.compile(r"""\$(?:\.([^.\[]+)|\[(?:'([^']+)'|"([^"]+)")\])""")
_NULL = "null"


@dataclass(frozen=True)
class Members:
    """
    The members of the newest objects, and which of them COPY takes.

    :param values: of each member, the beginning of a value
    :param paths: the members that a JSONPaths file takes; None if COPY goes by the names of the columns
    :param ignore_case: whether it does so in any case
    """

    values: Mapping[str, str]
    paths: frozenset[str] | None = None
    ignore_case: bool = False

    def unknown(self, columns: Iterable[str]) -> list[str]:
        """
        Return the members that COPY skips.

        :param columns: the names of the table's columns
        """
        taken = self._taken(columns)
        return [name for name in self.values if self._folded(name) not in taken]

    def describe(self, columns: Iterable[str]) -> str:
        """
        Return a line of text about the members that COPY skips, with the beginnings of their values.

        It names what COPY takes and no object has, as the name that one of them may have had before. That
        alone is no reason for a warning: a source may leave out what is null.

        :param columns: the names of the table's columns
        """
        unknown = self.unknown(columns)
        shown = [f"{_cut(name, NAME_LENGTH)} (such as {self.values[name]})" for name in unknown[:SHOWN]]
        more = [f"and {len(unknown) - SHOWN} more"] if len(unknown) > SHOWN else []
        absent = sorted(self._taken(columns) - {self._folded(name) for name in self.values})
        return (
            f"{len(unknown)} members of the newest objects have no column and are not loaded: "
            + ", ".join([*shown, *more])
            + (f". None of these objects has {', '.join(absent)}: was one renamed?" if absent else "")
        )

    def _taken(self, columns: Iterable[str]) -> frozenset[str]:
        return frozenset(columns) if self.paths is None else self.paths

    def _folded(self, name: str) -> str:
        return name.lower() if self.ignore_case else name


def look_at_members(s3: "S3Hook", objects: Iterable[S3Object], json_option: str) -> Members:
    """
    Find the fields of the newest files' last objects.

    :param s3: the hook of the AWS connection
    :param objects: the new files
    :param json_option: COPY's: ``auto``, ``auto ignorecase``, or ``s3://…`` of a JSONPaths file
    :return: no members if that fails, which must not matter: COPY reads the same, and tells what is wrong
    """
    values: dict[str, str] = {}
    try:
        paths = _members_of_paths(s3, json_option) if json_option.startswith("s3://") else None
        for item in nlargest(FILES, objects, key=lambda item: item.last_modified):
            start = max(item.size - BYTES, 0)
            text = _read(s3, item.url, start, BYTES)
            if start:  # which may be inside of an object: the next one begins a line
                text = "".join(text.partition("\n{")[1:])
            for name, value in _members(text):
                if values.get(name, _NULL) == _NULL:
                    values[name] = _beginning(value)
    except Exception as error:
        log.info("The members of the new objects were not looked at: %s", error)
        return Members({})
    return Members(values, paths, ignore_case=json_option == "auto ignorecase")


def _members_of_paths(s3: "S3Hook", url: str) -> frozenset[str]:
    paths = json.loads(_read(s3, url, 0, 64 * BYTES))["jsonpaths"]
    steps = (_FIRST_STEP.match(path) for path in paths)
    return frozenset(step[1] or step[2] or step[3] for step in steps if step)


def _read(s3: "S3Hook", url: str, start: int, length: int) -> str:
    bucket, key = split_url(url)
    part = s3.get_conn().get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{start + length - 1}")
    return part["Body"].read(length).decode("utf-8", "replace")


def _members(text: str) -> Iterator[tuple[str, Any]]:
    for value in split_values(text):
        yield from (value.fields or {}).items()


def _beginning(value: Any) -> str:
    if value is None:
        return _NULL
    return _cut(value if isinstance(value, str) else json.dumps(value), VALUE_LENGTH)


def _cut(text: str, length: int) -> str:
    """Return a text as a literal, whose control characters do no harm in a log."""
    return repr(text) if len(text) <= length else f"{text[:length]!r}…"
