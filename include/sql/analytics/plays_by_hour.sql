-- plays_by_hour: one row per hour of the day, UTC, with its share of all plays.
SELECT
    dim_time.hour,
    COUNT(*) AS plays,
    ROUND(100.0 * COUNT(*) / SUM(COUNT(*)) OVER (), 1) AS percent_of_plays
FROM fact_songplays
INNER JOIN dim_time ON fact_songplays.start_time = dim_time.start_time
WHERE fact_songplays.start_time >= :range_start AND fact_songplays.start_time < :range_end
GROUP BY dim_time.hour
ORDER BY dim_time.hour
