-- files_by_dataset: one row per dataset that counts its files by the state of their current versions.
WITH versions AS (
    SELECT
        dataset,
        status,
        size_bytes,
        last_modified,
        loaded_at,
        ROW_NUMBER() OVER (PARTITION BY dataset, s3_key ORDER BY loaded_at DESC) AS recency
    FROM etl_files
)

SELECT
    dataset,
    COUNT(CASE WHEN status = 'loaded' THEN 1 END) AS loaded_files,
    COUNT(CASE WHEN status = 'quarantined' THEN 1 END) AS quarantined_files,
    COUNT(CASE WHEN status = 'ignored' THEN 1 END) AS ignored_files,
    SUM(CASE WHEN status = 'loaded' THEN size_bytes ELSE 0 END) AS loaded_bytes,
    MAX(last_modified) AS newest_file,
    MAX(CASE WHEN status = 'loaded' THEN loaded_at END) AS last_loaded
FROM versions
WHERE recency = 1
GROUP BY dataset
ORDER BY dataset
