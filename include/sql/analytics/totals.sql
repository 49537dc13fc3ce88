-- totals: one row with what was played, by how many, and the share of plays whose song the catalogue knows.
SELECT
    COUNT(*) AS plays,
    COUNT(DISTINCT user_id) AS listeners,
    COUNT(DISTINCT CASE WHEN level = 'paid' THEN user_id END) AS paying_listeners,
    COUNT(DISTINCT session_id) AS sessions,
    ROUND(SUM(duration) / 3600.0, 1) AS hours_of_music,
    COUNT(song_id) AS plays_of_known_songs
FROM fact_songplays
WHERE start_time >= :range_start AND start_time < :range_end
