-- Analysts read the star and what the bookkeeping counts; README.md says what they do not read, and why.
GRANT USAGE ON SCHEMA {{ schema }} TO ROLE {{ role }};
GRANT SELECT ON fact_songplays, dim_users, dim_songs, dim_artists, dim_time TO ROLE {{ role }};
GRANT SELECT ON etl_files TO ROLE {{ role }};
GRANT SELECT (dataset, run_id, column_name, rejected_at) ON etl_rejected_rows TO ROLE {{ role }};
GRANT SELECT (run_id, check_name, table_name, severity, failed_rows, checked_at) ON etl_quality_results
TO ROLE {{ role }}
