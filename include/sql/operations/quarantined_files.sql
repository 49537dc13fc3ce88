-- quarantined_files: one row per file whose current version is quarantined, the newest 200 first.
WITH versions AS (
    SELECT
        dataset,
        s3_key,
        status,
        reason,
        rows_read,
        rows_rejected,
        size_bytes,
        last_modified,
        loaded_at,
        run_id,
        ROW_NUMBER() OVER (PARTITION BY dataset, s3_key ORDER BY loaded_at DESC) AS recency
    FROM etl_files
)

SELECT
    dataset,
    s3_key,
    reason,
    rows_read,
    rows_rejected,
    size_bytes,
    last_modified,
    loaded_at,
    run_id
FROM versions
WHERE recency = 1 AND status = 'quarantined'
ORDER BY loaded_at DESC, dataset ASC, s3_key ASC
LIMIT 200
