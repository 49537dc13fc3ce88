-- plays_by_weekday: one row per day of the week, UTC, with the plays of an average such day.
SELECT
    dim_time.weekday,
    TO_CHAR(MIN(dim_time.start_time), 'Dy') AS day_name,
    COUNT(*) AS plays,
    ROUND(1.0 * COUNT(*) / COUNT(DISTINCT TRUNC(dim_time.start_time)), 1) AS plays_per_day
FROM fact_songplays
INNER JOIN dim_time ON fact_songplays.start_time = dim_time.start_time
WHERE fact_songplays.start_time >= :range_start AND fact_songplays.start_time < :range_end
GROUP BY dim_time.weekday
ORDER BY dim_time.weekday
