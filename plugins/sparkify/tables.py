"""The warehouse's tables, and where their SQL lies: each has its definition in ``include/sql/ddl``."""

import functools
import re
from pathlib import Path
from typing import NamedTuple


def find_sql_folder(plugins: Path) -> Path:
    """
    Return the folder of the DAGs' SQL.

    ``include/`` lies beside ``plugins/`` in the repository, and within it where Airflow is given nothing but
    DAGs and plugins, as Amazon MWAA is.

    :param plugins: the plugins folder
    :raises FileNotFoundError: if it is in neither place
    """
    for folder in (plugins, plugins.parent):
        if (folder / "include" / "sql").is_dir():
            return folder / "include" / "sql"
    raise FileNotFoundError(
        f"There is no include/sql in {plugins} nor beside it: deploy include/ together with plugins/"
    )


SQL_FOLDER = find_sql_folder(Path(__file__).resolve().parents[1])
#: What is declared of each table, in ``<table>.yaml``.
CHECKS_FOLDER = SQL_FOLDER.parent / "checks"

STAGING = ("staging_events", "staging_songs")
STAR = ("fact_songplays", "dim_users", "dim_songs", "dim_artists", "dim_time")
BOOKKEEPING = (
    *("etl_batches", "etl_migrations", "etl_files", "etl_sessions"),
    *("etl_rejected_rows", "etl_quality_results"),
)
# What is locked first elsewhere is dropped first, so that no deadlock comes of it.
TABLES = (*BOOKKEEPING, *STAGING, *STAR)

#: The file of each table's definition, which is always that of its newest state.
DDL = {table: f"ddl/{table}.sql" for table in TABLES}
#: The files that bring older tables to that state, in the order of their numbers.
MIGRATIONS = {
    file.stem: f"migrations/{file.name}" for file in sorted((SQL_FOLDER / "migrations").glob("*.sql"))
}

#: What analysts are granted on the tables, for ``afterwards``: nothing as long as there is no role of theirs.
ANALYSTS_GRANTS = (
    "{% if var.value.get('sparkify_analysts_role', '') %}"
    "{% set role = identifier(var.value.sparkify_analysts_role) %}"
    "{% set schema = identifier(var.value.get('sparkify_schema', 'sparkify')) %}"
    "{% include 'grants/analysts.sql' %}"
    "{% endif %}"
)

_TYPES = {
    "VARCHAR": "character varying",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "DOUBLE PRECISION": "double precision",
    "TIMESTAMP": "timestamp without time zone",
}


class Column(NamedTuple):
    """
    A column, as SVV_COLUMNS describes it.

    :param name: its name
    :param type: its type, without length
    :param length: of a text, in bytes
    :param nullable: whether it may be null
    """

    name: str
    type: str
    length: int | None
    nullable: bool

    def __str__(self) -> str:
        length = f"({self.length})" if self.length else ""
        return f"{self.name} {self.type}{length}{'' if self.nullable else ' NOT NULL'}"


def defined_columns(ddl: str) -> list[Column]:
    """
    Return the columns of a CREATE TABLE of this project, one on each line.

    :param ddl: its text
    :raises ValueError: if a type is none that the project uses
    """
    columns = []
    for line in re.findall(r"^ {4}([a-z]\w* .+?),?$", ddl, re.MULTILINE):
        name, _, rest = line.partition(" ")
        form = re.fullmatch(r"([A-Z ]+?)(?:\((\d+)\))?( NOT NULL)?(?: DEFAULT '\w+')?", rest)
        if not form or form[1] not in _TYPES:
            raise ValueError(f"{line!r} is no column whose type is one of {', '.join(_TYPES)}")
        columns.append(Column(name, _TYPES[form[1]], int(form[2]) if form[2] else None, not form[3]))
    return columns


@functools.cache
def column_names(table: str) -> list[str]:
    """
    Return the names of a table's columns, as it is defined.

    :param table: the table
    :raises KeyError: if the project has no such table
    """
    return [column.name for column in defined_columns((SQL_FOLDER / DDL[table]).read_text())]
