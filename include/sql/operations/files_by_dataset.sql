-- files_by_dataset: one row per dataset with the files that are loaded, each of its versions counted.
SELECT
    dataset,
    COUNT(*) AS files,
    SUM(size_bytes) AS size_bytes,
    MAX(last_modified) AS newest_file,
    MAX(loaded_at) AS last_loaded
FROM etl_files
GROUP BY dataset
ORDER BY dataset
