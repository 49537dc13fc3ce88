-- etl_files: a file is not only loaded, but may be quarantined or ignored, with a reason.
SELECT tablename
FROM pg_table_def
WHERE schemaname = CURRENT_SCHEMA() AND tablename = 'etl_files'
GROUP BY tablename
HAVING SUM(CASE WHEN "column" = 'status' THEN 1 ELSE 0 END) = 0;

ALTER TABLE etl_files ADD COLUMN status VARCHAR(16) DEFAULT 'loaded' NOT NULL;

ALTER TABLE etl_files ADD COLUMN reason VARCHAR(2048);

ALTER TABLE etl_files ADD COLUMN rows_read BIGINT;

ALTER TABLE etl_files ADD COLUMN rows_rejected BIGINT
