-- plays_by_weekday_and_hour: one row per hour of the week, UTC, 0 being Sunday, with its plays.
SELECT
    dim_time.weekday,
    dim_time.hour,
    COUNT(*) AS plays
FROM fact_songplays
INNER JOIN dim_time ON fact_songplays.start_time = dim_time.start_time
WHERE fact_songplays.start_time >= :range_start AND fact_songplays.start_time < :range_end
GROUP BY dim_time.weekday, dim_time.hour
ORDER BY dim_time.weekday, dim_time.hour
