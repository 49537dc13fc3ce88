-- top_songs: the ten songs that are played most, known to the song catalogue or not.
SELECT
    song_title,
    artist_name,
    COUNT(*) AS plays,
    COUNT(DISTINCT user_id) AS listeners
FROM fact_songplays
WHERE start_time >= :range_start AND start_time < :range_end
GROUP BY song_title, artist_name
ORDER BY plays DESC, listeners DESC, song_title ASC, artist_name ASC
LIMIT 10
