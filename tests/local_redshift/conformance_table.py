"""``python -m tests.local_redshift.conformance_table`` writes ``docs/local-redshift.md`` from the suite."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import REPOSITORY
from tests.local_redshift.conformance import GROUPS

PAGE = REPOSITORY / "docs" / "local-redshift.md"
AWS = "https://docs.aws.amazon.com/redshift/latest/dg"
INTRODUCTION = f"""\
# What the local Redshift does, and what it refuses

Every line is a case of `tests/local_redshift/conformance`, from which this page is made: a statement that
`make test` runs, and the page of Amazon's documentation that says what has to come of it. What is not here
may well be refused: a statement runs only if each of its parts is known. "Supported" and "refused" are what
Redshift does, too; "differs" is what it would run.

Refused are also all of [Amazon's reserved words]({AWS}/r_pg_keywords.html) as names, unless quoted.

What differs and shows in no statement's result:

- A SELECT that reads no table takes the transaction's snapshot, too, and PostgreSQL's own catalog is part of
  it. Changing a row that another transaction has changed since ends with 1023 at SNAPSHOT, too; how Redshift
  words it is not documented.
- LOCK takes any table of anybody's: to ask for a privilege would take the snapshot, which LOCK does not.
- PostgreSQL plans and runs the statements, so their times say nothing about a cluster's.
- How many digits a quotient of decimals has [is documented]({AWS}/r_numeric_computations201.html), how the
  last is made is not. It is cut here, as means [are in Amazon's
  examples]({AWS}/r_FROM_clause-pivot-unpivot-examples.html).
- Comparisons do not see blanks at the end of a text, except of a parameter's value, in NULLIF and in JOIN …
  USING. What grouping, DISTINCT and EXCEPT make of them on Redshift is not documented; here they see them.
- LIKE tells É from é, which [Amazon says]({AWS}/r_patternmatching_condition_like.html) it does of letters of
  one byte alone; ILIKE does of none.
- A text that a query makes has no length: CREATE TABLE AS gives it a VARCHAR of any, Redshift of the least.
- A number within an object or an array that COPY stores as text loses zeros at its end: 2.50 becomes 2.5.
- Amazon does not document some faults of files. Here COPY rejects anything that it cannot read, and goes on
  with the next object: a UTF-8 byte order mark (the object after it is loaded), an object nested about 1,000
  levels deep, a file that is not JSON (often in several pieces). An object above 4 MB and a broken compressed
  file fail the load whatever MAXERROR says, without a row in SYS_LOAD_ERROR_DETAIL.
- There is one database, and no queues. The only superuser is `sparkify`; not even it may give a table to a
  user who may not create tables in that schema. Only owners may alter and drop a table, whatever is granted.
- Errors about privileges have PostgreSQL's words where Amazon does not document Redshift's.

Clients may use TLS: `redshift-ca.pem` in the stack's folder, `.local`, is the certificate of the CA, new with
each start. `"iam": true` works with the cluster identifier `sparkify` and the local S3's address as
`endpoint_url`; Amazon's driver, which then insists on TLS, takes the CA from the variable `SSL_CERT_FILE`.
"""

ISOLATION = """\
## Several sessions at once

The database is at SNAPSHOT, as those of new clusters and workgroups are, until `ALTER DATABASE sparkify
ISOLATION LEVEL SERIALIZABLE`. Each line is a case of `tests/local_redshift/isolation.yaml`.
"""
CASES = yaml.safe_load(Path(__file__).with_name("isolation.yaml").read_text())


def page() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *(section(group) for group in GROUPS.values()), isolation()])


def section(group: dict[str, Any]) -> str:
    """Return one group as a heading and a table."""
    rows = "\n".join(sorted(set(lines(group)), key=lambda line: (line.lower(), line)))
    return f"## {group['group']}\n\n| statement | result | documented in |\n|---|---|---|\n{rows}\n"


def isolation() -> str:
    """Return the cases of several sessions as a heading and a table."""
    rows = "\n".join(
        f"| {case['it']} | {case.get('levels', ['both'])[0]} | [{case['page']}]({AWS}/{case['page']}.html) |"
        for case in CASES
    )
    return f"{ISOLATION}\n| what happens | isolation level | documented in |\n|---|---|---|\n{rows}\n"


def lines(group: dict[str, Any]) -> Iterator[str]:
    """Return a line of the table for each case; what a case does before its statement is what it is about."""
    for case in group["cases"]:
        objects = (f"{key}: {text}; " for key, text in case.get("objects", {}).items())
        statements = "".join(objects) + "; ".join([*case.get("given", []), case["statement"]])
        statement = " ".join(statements.split()).replace("|", "\\|")
        result = f"refused: {case['error']}" if "error" in case else "supported"
        if group.get("differs"):
            result = f"differs: {result}"
        yield f"| `` {statement} `` | {result} | [{case['page']}]({AWS}/{case['page']}.html) |"


if __name__ == "__main__":
    PAGE.write_text(page())
