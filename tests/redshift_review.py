"""
``python -m tests.redshift_review`` writes ``docs/redshift-review.md`` from ``redshift_review.yaml``.

A line stands for all statements of a kind. ``?`` is any value, ``(?)`` a list of values, ``near(column)``
what :class:`sparkify.ranges.Ranges` makes, ``<name>`` a name, the same wherever it stands, ``…`` anything.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "redshift-review.md"
NOTES = REPOSITORY / "tests" / "redshift_review_notes.md"
AWS = "https://docs.aws.amazon.com/redshift/latest/dg"
GROUPS: list[dict[str, Any]] = yaml.safe_load((REPOSITORY / "tests" / "redshift_review.yaml").read_text())
LINES: list[str] = [line["statement"] for group in GROUPS for line in group["statements"]]
INTRODUCTION = """\
# What Redshift makes of each statement

Every kind of statement that the DAGs and the questions of analysts send, one line each: why it is right on
Amazon Redshift, which locks it takes, what it costs there, and where Amazon says so. `make test` runs all of
them and compares each statement that was sent with this list, so none is missing and none is too many.

The local Redshift shows what statements return. This page is about what only a cluster could show: it is
reasoned from Amazon's documentation, and was not tried on one. All of it holds for provisioned clusters and
for Serverless.

`?` is a value, `(?)` a list of values, `<name>` any name, `…` anything. `near(column)` is a condition of
constants: the column is between the first and the last value of a batch, widened to whole hours or to
thousands of sessions, and, where the values have wide gaps, in one of up to eight ranges between those.

Locks last until the end of the transaction
([lock modes](https://repost.aws/knowledge-center/prevent-locks-blocking-queries-redshift)). *Reads* is
AccessShareLock, which keeps out DDL and LOCK alone. *Writes* is ShareRowExclusiveLock: other writers of the
table wait, readers go on and see the last commit. *Turn* is ACCESS EXCLUSIVE on etl_batches, which the notes
below are about.
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *map(section, GROUPS), NOTES.read_text()])


def section(group: dict[str, Any]) -> str:
    """Return one group as a heading and a table."""
    head = (
        "| statement | sent by | on Redshift | locks | costs | documented in |\n|---|---|---|---|---|---|\n"
    )
    return f"## {group['group']}\n\n{head}" + "\n".join(lines(group)) + "\n"


def lines(group: dict[str, Any]) -> Iterator[str]:
    """Return a line of the table for each statement."""
    for line in group["statements"]:
        pages = ", ".join(f"[{name}]({AWS}/{name}.html)" for name in line["pages"])
        cells = (
            f"`` {line['statement']} ``",
            *(line[column] for column in ("sent_by", "right", "lock", "cost")),
            pages,
        )
        yield f"| {' | '.join(cell.strip().replace('|', chr(92) + '|') for cell in cells)} |"


def kind(statement: str) -> str:
    """Return what is left of a statement without its values."""
    text = " ".join(re.sub(r"--[^\n]*\n", " ", statement).split())
    text = re.sub(r"'[^']*'|\$\d+|(?<![\w.])-?\d+(\.\d+)?\b", "?", text)
    text = re.sub(r"\(\?(, \?)*\)(, \(\?(, \?)*\))*", "(?)", text)
    near = r"([\w.]+) > \? AND \1 < \?"
    return re.sub(
        rf"{near}( AND \(\({near.replace('1', '3')}\)( OR \(\1 > \? AND \1 < \?\))+\))?", r"near(\1)", text
    )


def matching(statement: str) -> list[str]:
    """Return the review's lines that stand for a statement."""
    text = kind(statement)
    return [line for line in LINES if re.fullmatch(_pattern(line), text)]


def _pattern(line: str) -> str:
    names: set[str] = set()

    def name(match: re.Match[str]) -> str:
        again = match[1] in names
        names.add(match[1])
        return f"(?P={match[1]})" if again else rf"(?P<{match[1]}>\w+)"

    text = re.sub(r"<(\w+)>", "\0\\1\1", line)
    text = re.escape(text).replace("…", ".*").replace("\\ .*\\ ", "\\ .*\\ ?")
    return re.sub("\0(\\w+)\1", name, text)


if __name__ == "__main__":
    PAGE.write_text(page())
