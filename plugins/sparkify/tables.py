"""The warehouse's tables, and where their SQL lies: each has its definition in ``include/sql/ddl``."""

from pathlib import Path

_PLUGINS = Path(__file__).resolve().parents[1]

#: The folder of the DAGs' SQL. ``include/`` lies beside ``plugins/`` in the repository, and within it where
#: Airflow is given nothing but DAGs and plugins, as Amazon MWAA is
#: (https://docs.aws.amazon.com/mwaa/latest/userguide/configuring-dag-import-plugins.html).
SQL_FOLDER = next(filter(Path.is_dir, (folder / "include" / "sql" for folder in (_PLUGINS, _PLUGINS.parent))))

STAGING = ("staging_events", "staging_songs")
STAR = ("fact_songplays", "dim_users", "dim_songs", "dim_artists", "dim_time")
BOOKKEEPING = ("etl_files", "etl_batches", "etl_rejected_rows", "etl_quality_results")
TABLES = (*STAGING, *STAR, *BOOKKEEPING)
