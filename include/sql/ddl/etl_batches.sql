-- etl_batches: one row per staging table: the run whose files it holds.
CREATE TABLE IF NOT EXISTS etl_batches (
    dataset VARCHAR(64) NOT NULL,
    run_id VARCHAR(256) NOT NULL,
    files BIGINT NOT NULL,
    staged_at TIMESTAMP NOT NULL,
    PRIMARY KEY (dataset)
)
DISTSTYLE ALL
SORTKEY (dataset)
