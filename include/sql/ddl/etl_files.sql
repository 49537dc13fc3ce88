-- etl_files: one row per object version (S3 key, ETag and date) that a run has loaded, quarantined or ignored.
CREATE TABLE IF NOT EXISTS etl_files (
    dataset VARCHAR(64) NOT NULL,
    s3_key VARCHAR(1024) NOT NULL,
    etag VARCHAR(256) NOT NULL,
    size_bytes BIGINT NOT NULL,
    last_modified TIMESTAMP NOT NULL,
    run_id VARCHAR(256) NOT NULL,
    loaded_at TIMESTAMP NOT NULL,
    status VARCHAR(16) NOT NULL DEFAULT 'loaded',
    reason VARCHAR(2048),
    rows_read BIGINT,
    rows_rejected BIGINT,
    PRIMARY KEY (dataset, s3_key, etag, last_modified)
)
DISTSTYLE EVEN
COMPOUND SORTKEY (last_modified)
