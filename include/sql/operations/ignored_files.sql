-- ignored_files: one row per dataset and rule by which files are ignored, with the number of files and an example.
WITH versions AS (
    SELECT
        dataset,
        s3_key,
        status,
        reason,
        last_modified,
        ROW_NUMBER() OVER (PARTITION BY dataset, s3_key ORDER BY loaded_at DESC) AS recency
    FROM etl_files
)

SELECT
    dataset,
    reason,
    COUNT(*) AS files,
    MIN(s3_key) AS example_key,
    MAX(last_modified) AS newest_file
FROM versions
WHERE recency = 1 AND status = 'ignored'
GROUP BY dataset, reason
ORDER BY dataset, reason
