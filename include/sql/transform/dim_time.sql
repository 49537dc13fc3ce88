-- dim_time: one row per distinct start_time of the plays that this run staged, in UTC; weekday 0 is Sunday.
WITH start_times AS (
    SELECT DISTINCT start_time
    FROM fact_songplays
    WHERE start_time IN (
        SELECT staging_events.ts
        FROM staging_events
        WHERE staging_events.page = 'NextSong'
    )
)

SELECT
    start_time,
    EXTRACT(HOUR FROM start_time) AS hour,
    EXTRACT(DAY FROM start_time) AS day,
    EXTRACT(WEEK FROM start_time) AS week,
    EXTRACT(MONTH FROM start_time) AS month,
    EXTRACT(YEAR FROM start_time) AS year,
    EXTRACT(DOW FROM start_time) AS weekday
FROM start_times
