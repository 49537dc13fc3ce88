-- etl_quality_results: one row per check per run.
CREATE TABLE IF NOT EXISTS etl_quality_results (
    run_id VARCHAR(256) NOT NULL,
    check_name VARCHAR(512) NOT NULL,
    table_name VARCHAR(128) NOT NULL,
    severity VARCHAR(16) NOT NULL,
    failed_rows BIGINT NOT NULL,
    example VARCHAR(65535),
    checked_at TIMESTAMP NOT NULL
)
DISTSTYLE EVEN
COMPOUND SORTKEY (checked_at)
