-- rejected_by_reason: one row per reason for which rows were rejected, the latest first.
SELECT
    dataset,
    column_name,
    reason,
    COUNT(*) AS rejected_rows,
    COUNT(DISTINCT s3_key) AS files,
    MAX(rejected_at) AS last_rejected
FROM etl_rejected_rows
GROUP BY dataset, column_name, reason
ORDER BY last_rejected DESC, rejected_rows DESC, dataset ASC, column_name ASC, reason ASC
LIMIT 50
