-- Analysts read the star and what the bookkeeping counts; README.md says what they do not read, and why.
GRANT USAGE ON SCHEMA {{ schema }} TO ROLE {{ role }};
GRANT SELECT ON fact_songplays, dim_users, dim_songs, dim_artists, dim_time TO ROLE {{ role }};
-- Older releases granted the whole table, whose column "reason" may quote a row of a file.
REVOKE SELECT ON etl_files FROM ROLE {{ role }};
GRANT SELECT (
    dataset, s3_key, etag, size_bytes, last_modified, run_id, loaded_at, status, rows_read, rows_rejected
) ON etl_files TO ROLE {{ role }};
GRANT SELECT (dataset, run_id, column_name, rejected_at) ON etl_rejected_rows TO ROLE {{ role }};
GRANT SELECT (run_id, check_name, table_name, severity, failed_rows, checked_at) ON etl_quality_results
TO ROLE {{ role }}
