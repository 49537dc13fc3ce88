-- top_artists: the ten artists that are played most, by the name that the play carries.
SELECT
    artist_name,
    COUNT(*) AS plays,
    COUNT(DISTINCT song_title) AS songs,
    COUNT(DISTINCT user_id) AS listeners
FROM fact_songplays
WHERE start_time >= :range_start AND start_time < :range_end
GROUP BY artist_name
ORDER BY plays DESC, listeners DESC, artist_name ASC
LIMIT 10
