"""The project's tables and transforms, as PostgreSQL and DuckDB take them."""

import re
from pathlib import Path

SQL = Path(__file__).parents[2] / "include" / "sql"
STAGING = ("staging_events", "staging_songs")
#: In the order in which they are filled.
STAR = ("dim_users", "dim_songs", "dim_artists", "fact_songplays", "dim_time")


def create_table(table: str) -> str:
    """
    Return the statement that creates a table, without what only Redshift knows, and without a key.

    Redshift enforces no key, and neither competitor may lose time by an index.

    :param table: a table of ``include/sql/ddl``
    """
    ddl = (SQL / "ddl" / f"{table}.sql").read_text(encoding="utf-8")
    ddl = re.sub(r",\s*PRIMARY KEY \(.*?\)", "", ddl)
    return ddl[: ddl.rindex("\n)") + 2]


def fill_table(table: str) -> str:
    """
    Return the statement that fills an empty table of the star from what is staged.

    :param table: a table of ``include/sql/transform``
    """
    select = (SQL / "transform" / f"{table}.sql").read_text(encoding="utf-8")
    everything = re.sub(r"{{ loaded_plays\(ti\) }}", "TRUE", select)
    return f"INSERT INTO {table}\n{everything.replace('LEN(', 'LENGTH(')}"


def columns(table: str) -> dict[str, str]:
    """
    Return a table's columns and their types.

    :param table: a table of ``include/sql/ddl``
    """
    body = create_table(table).partition("(\n")[2]
    found = re.findall(r"^    (\w+) ([A-Z ]+(?:\(\d+\))?)", body, re.MULTILINE)
    return {name: data_type.removesuffix("NOT NULL").strip() for name, data_type in found}
