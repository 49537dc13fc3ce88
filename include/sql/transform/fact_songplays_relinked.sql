-- fact_songplays: one row per play, loaded at any time, that matches or is linked to a song staged by this run.
WITH touched AS (
    SELECT fact_songplays.songplay_id
    FROM fact_songplays
    INNER JOIN staging_songs
        ON
            fact_songplays.song_title = staging_songs.title
            AND fact_songplays.artist_name = staging_songs.artist_name
            AND fact_songplays.duration = staging_songs.duration
    UNION ALL
    SELECT fact_songplays.songplay_id
    FROM fact_songplays
    INNER JOIN staging_songs ON fact_songplays.song_id = staging_songs.song_id
),

songs AS (
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
WHERE fact_songplays.songplay_id IN (SELECT touched.songplay_id FROM touched)
