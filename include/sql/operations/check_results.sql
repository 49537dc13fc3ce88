-- check_results: one row per check of each of the last 20 runs, with how many rows broke it.
WITH runs AS (
    SELECT
        run_id,
        MAX(checked_at) AS last_checked
    FROM etl_quality_results
    GROUP BY run_id
    ORDER BY last_checked DESC
    LIMIT 20
)

SELECT
    results.table_name,
    results.check_name,
    results.severity,
    results.run_id,
    results.failed_rows,
    results.checked_at
FROM runs
INNER JOIN etl_quality_results AS results ON runs.run_id = results.run_id
ORDER BY runs.last_checked DESC, results.table_name ASC, results.check_name ASC, results.checked_at DESC
