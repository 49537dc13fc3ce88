-- catalogue_coverage: one row per month with the share of plays whose song the catalogue knows.
SELECT
    DATE_TRUNC('month', start_time) AS month,
    COUNT(*) AS plays,
    COUNT(song_id) AS plays_of_known_songs,
    ROUND(100.0 * COUNT(song_id) / COUNT(*), 1) AS percent_known
FROM fact_songplays
WHERE start_time >= :range_start AND start_time < :range_end
GROUP BY DATE_TRUNC('month', start_time)
ORDER BY month
