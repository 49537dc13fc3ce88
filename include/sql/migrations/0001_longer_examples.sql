-- etl_quality_results: a row of staging_events can take more than 4,096 bytes as an example, which failed its check.
SELECT "column"
FROM pg_table_def
WHERE
    schemaname = CURRENT_SCHEMA()
    AND tablename = 'etl_quality_results'
    AND "column" = 'example'
    AND type = 'character varying(4096)';

ALTER TABLE etl_quality_results ALTER COLUMN example TYPE VARCHAR(65535)
