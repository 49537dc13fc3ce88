"""The warehouse's tables: each has its definition in ``include/sql/ddl``."""

STAGING = ("staging_events", "staging_songs")
STAR = ("fact_songplays", "dim_users", "dim_songs", "dim_artists", "dim_time")
BOOKKEEPING = ("etl_files", "etl_batches", "etl_rejected_rows", "etl_quality_results")
TABLES = (*STAGING, *STAR, *BOOKKEEPING)
