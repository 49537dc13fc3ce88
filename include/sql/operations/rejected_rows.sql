-- rejected_rows: a page of 50 rejected rows, the latest first; an empty filter matches every row.
WITH found AS (
    SELECT
        dataset,
        s3_key,
        line_number,
        column_name,
        reason,
        raw_value,
        raw_line,
        run_id,
        rejected_at,
        COUNT(*) OVER () AS all_rows,
        ROW_NUMBER() OVER (
            ORDER BY rejected_at DESC, dataset ASC, s3_key ASC, line_number ASC, column_name ASC, reason ASC
        ) AS nth_row
    FROM etl_rejected_rows
    WHERE
        (:dataset = '' OR dataset = :dataset)
        AND (:run = '' OR run_id = :run)
        AND (:file = '' OR STRPOS(s3_key, :file) > 0)
        AND (:reason = '' OR STRPOS(LOWER(reason), LOWER(:reason)) > 0)
)

SELECT
    dataset,
    s3_key,
    line_number,
    column_name,
    reason,
    raw_value,
    raw_line,
    run_id,
    rejected_at,
    all_rows
FROM found
WHERE nth_row > 50 * :page AND nth_row <= 50 * :page + 50
ORDER BY nth_row
