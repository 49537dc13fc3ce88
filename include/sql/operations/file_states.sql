-- file_states: one row per dataset and status with the number of files whose current version has that status.
WITH versions AS (
    SELECT
        dataset,
        status,
        ROW_NUMBER() OVER (PARTITION BY dataset, s3_key ORDER BY loaded_at DESC) AS recency
    FROM etl_files
)

SELECT
    dataset,
    status,
    COUNT(*) AS files
FROM versions
WHERE recency = 1
GROUP BY dataset, status
ORDER BY dataset, status
