-- active_users_by_day: one row per day, UTC, with its listeners, and how many of them pay.
SELECT
    TRUNC(start_time) AS listening_day,
    COUNT(DISTINCT user_id) AS listeners,
    COUNT(DISTINCT CASE WHEN level = 'paid' THEN user_id END) AS paying_listeners,
    COUNT(*) AS plays
FROM fact_songplays
WHERE start_time >= :range_start AND start_time < :range_end
GROUP BY TRUNC(start_time)
ORDER BY listening_day
