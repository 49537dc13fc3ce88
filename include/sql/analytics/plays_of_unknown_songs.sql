-- plays_of_unknown_songs: the ten songs played most that the song catalogue lacks: whose metadata to ask for.
SELECT
    song_title,
    artist_name,
    duration,
    COUNT(*) AS plays
FROM fact_songplays
WHERE song_id IS NULL AND start_time >= :range_start AND start_time < :range_end
GROUP BY song_title, artist_name, duration
ORDER BY plays DESC, song_title ASC, artist_name ASC, duration ASC
LIMIT 10
