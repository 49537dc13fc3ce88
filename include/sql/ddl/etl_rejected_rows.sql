-- etl_rejected_rows: one row per input row that could not be loaded; dataset is the table that refused it.
CREATE TABLE IF NOT EXISTS etl_rejected_rows (
    dataset VARCHAR(64) NOT NULL,
    s3_key VARCHAR(1024),
    line_number BIGINT,
    column_name VARCHAR(128),
    reason VARCHAR(1024) NOT NULL,
    raw_value VARCHAR(1024),
    raw_line VARCHAR(65535),
    run_id VARCHAR(256) NOT NULL,
    rejected_at TIMESTAMP NOT NULL
)
DISTSTYLE EVEN
COMPOUND SORTKEY (rejected_at)
