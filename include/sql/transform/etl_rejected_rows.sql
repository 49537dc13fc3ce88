-- etl_rejected_rows: one row per distinct staged play of this run that belongs to no user.
SELECT DISTINCT
    'fact_songplays' AS dataset,
    CAST(NULL AS VARCHAR(1024)) AS s3_key,
    CAST(NULL AS BIGINT) AS line_number,
    'userid' AS column_name,
    'a play without a user' AS reason,
    userid AS raw_value,
    'sessionid ' || CAST(sessionid AS VARCHAR) || ', iteminsession ' || CAST(iteminsession AS VARCHAR) AS raw_line,
    '{{ run_id }}' AS run_id,
    SYSDATE AS rejected_at
FROM staging_events
WHERE page = 'NextSong' AND (userid IS NULL OR userid = '')
