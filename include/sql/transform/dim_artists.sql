-- dim_artists: one row per artist_id staged by this run, the best of its records, staged now or before:
-- with coordinates, then with a location, then with the shortest name (an artist's own, not "feat." somebody).
-- With reload_prefix, the staged records win over the one that is there.
-- Texts lose the blanks at their end, which Redshift does not see when it compares.
WITH candidates AS (
    SELECT
        RTRIM(artist_id) AS artist_id,
        RTRIM(artist_name) AS name,
        NULLIF(RTRIM(artist_location), '') AS location,
        artist_latitude AS latitude,
        artist_longitude AS longitude
    FROM staging_songs
    WHERE artist_id <> ''
    UNION ALL
    SELECT
        artist_id,
        name,
        location,
        latitude,
        longitude
    FROM dim_artists
    WHERE
        artist_id IN (SELECT staging_songs.artist_id FROM staging_songs)
        AND {{ 'FALSE' if params.reload_prefix else 'TRUE' }}
),

ranked AS (
    SELECT
        artist_id,
        name,
        location,
        latitude,
        longitude,
        ROW_NUMBER() OVER (
            PARTITION BY artist_id
            ORDER BY
                CASE WHEN latitude IS NOT NULL AND longitude IS NOT NULL THEN 0 ELSE 1 END ASC,
                CASE WHEN location IS NOT NULL THEN 0 ELSE 1 END ASC,
                LEN(name) ASC NULLS LAST,
                name ASC,
                location ASC,
                latitude ASC NULLS FIRST,
                longitude ASC NULLS FIRST
        ) AS preference
    FROM candidates
)

SELECT
    artist_id,
    name,
    location,
    latitude,
    longitude
FROM ranked
WHERE preference = 1
