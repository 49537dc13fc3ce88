-- free_against_paid: one row per level, as it was at the time of the play.
SELECT
    level,
    COUNT(*) AS plays,
    COUNT(DISTINCT user_id) AS listeners,
    COUNT(DISTINCT session_id) AS sessions,
    ROUND(1.0 * COUNT(*) / COUNT(DISTINCT session_id), 1) AS plays_per_session,
    ROUND(SUM(duration) / 3600.0, 1) AS hours_of_music
FROM fact_songplays
WHERE start_time >= :range_start AND start_time < :range_end
GROUP BY level
ORDER BY plays DESC
