-- dim_songs: one row per song_id staged by this run, the greatest of its records, staged now or before.
-- With reload_prefix, the staged records win over the one that is there.
-- Texts lose the blanks at their end, which Redshift does not see when it compares.
WITH candidates AS (
    SELECT
        RTRIM(song_id) AS song_id,
        RTRIM(title) AS title,
        NULLIF(RTRIM(artist_id), '') AS artist_id,
        RTRIM(artist_name) AS artist_name,
        year,
        duration
    FROM staging_songs
    UNION ALL
    SELECT
        song_id,
        title,
        artist_id,
        artist_name,
        year,
        duration
    FROM dim_songs
    WHERE
        song_id IN (SELECT staging_songs.song_id FROM staging_songs)
        AND {{ 'FALSE' if params.reload_prefix else 'TRUE' }}
),

ranked AS (
    SELECT
        song_id,
        title,
        artist_id,
        artist_name,
        year,
        duration,
        ROW_NUMBER() OVER (
            PARTITION BY song_id
            ORDER BY
                year DESC NULLS LAST,
                title DESC NULLS LAST,
                artist_id DESC NULLS LAST,
                artist_name DESC NULLS LAST,
                duration DESC NULLS LAST
        ) AS preference
    FROM candidates
)

SELECT
    song_id,
    title,
    artist_id,
    artist_name,
    year,
    duration
FROM ranked
WHERE preference = 1
