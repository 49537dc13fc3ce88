-- plays_by_day: one row per day, UTC, with its plays on each level.
SELECT
    TRUNC(start_time) AS listening_day,
    COUNT(CASE WHEN level = 'paid' THEN 1 END) AS paid_plays,
    COUNT(CASE WHEN level = 'free' THEN 1 END) AS free_plays
FROM fact_songplays
WHERE start_time >= :range_start AND start_time < :range_end
GROUP BY TRUNC(start_time)
ORDER BY listening_day
