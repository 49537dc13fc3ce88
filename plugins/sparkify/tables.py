"""The warehouse's tables, and where their SQL lies: each has its definition in ``include/sql/ddl``."""

from pathlib import Path


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
