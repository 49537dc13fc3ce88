-- fact_songplays: one row per play that this run staged; copies of one play collapse into the greatest.
-- Texts lose the blanks at their end, which Redshift does not see when it compares.
WITH events AS (
    SELECT
        ts,
        RTRIM(userid) AS userid,
        RTRIM(level) AS level,
        sessionid,
        iteminsession,
        RTRIM(song) AS song,
        RTRIM(artist) AS artist,
        length,
        RTRIM(location) AS location,
        RTRIM(useragent) AS useragent
    FROM staging_events
    WHERE page = 'NextSong' AND userid <> ''
),

plays AS (
    SELECT
        MD5(CAST(sessionid AS VARCHAR) || '-' || CAST(iteminsession AS VARCHAR)) AS songplay_id,
        ts AS start_time,
        userid AS user_id,
        level,
        sessionid AS session_id,
        iteminsession AS item_in_session,
        song AS song_title,
        artist AS artist_name,
        length AS duration,
        location,
        useragent AS user_agent,
        ROW_NUMBER() OVER (
            PARTITION BY sessionid, iteminsession
            ORDER BY
                ts DESC,
                userid DESC,
                level DESC NULLS LAST,
                song DESC NULLS LAST,
                artist DESC NULLS LAST,
                length DESC NULLS LAST,
                location DESC NULLS LAST,
                useragent DESC NULLS LAST
        ) AS copy_number
    FROM events
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
    plays.songplay_id,
    plays.start_time,
    plays.user_id,
    plays.level,
    songs.song_id,
    songs.artist_id,
    plays.session_id,
    plays.item_in_session,
    plays.song_title,
    plays.artist_name,
    plays.duration,
    plays.location,
    plays.user_agent
FROM plays
LEFT JOIN songs
    ON
        plays.song_title = songs.title
        AND plays.artist_name = songs.artist_name
        AND plays.duration = songs.duration
        AND songs.preference = 1
WHERE plays.copy_number = 1
