-- etl_rejected_rows: one row per staged play that belongs to no user, with the values by which its line is found.
SELECT
    'userid' AS column_name,
    'a play without a user' AS reason,
    sessionid,
    iteminsession,
    page,
    userid
FROM staging_events
WHERE page = 'NextSong' AND (userid IS NULL OR userid = '')
