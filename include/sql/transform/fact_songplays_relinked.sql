-- fact_songplays: one row per play, loaded at any time, that is linked to another song than dim_songs now has for it.
WITH songs AS (
    SELECT
        song_id,
        artist_id,
        title,
        artist_name,
        duration,
        ROW_NUMBER() OVER (PARTITION BY title, artist_name, duration ORDER BY song_id) AS preference
    FROM dim_songs
)

SELECT
    fact_songplays.songplay_id,
    fact_songplays.start_time,
    fact_songplays.user_id,
    fact_songplays.level,
    songs.song_id,
    songs.artist_id,
    fact_songplays.session_id,
    fact_songplays.item_in_session,
    fact_songplays.song_title,
    fact_songplays.artist_name,
    fact_songplays.duration,
    fact_songplays.location,
    fact_songplays.user_agent
FROM fact_songplays
LEFT JOIN songs
    ON
        fact_songplays.song_title = songs.title
        AND fact_songplays.artist_name = songs.artist_name
        AND fact_songplays.duration = songs.duration
        AND songs.preference = 1
WHERE
    COALESCE(fact_songplays.song_id, '') <> COALESCE(songs.song_id, '')
    OR COALESCE(fact_songplays.artist_id, '') <> COALESCE(songs.artist_id, '')
