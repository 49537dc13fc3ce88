-- dim_time: one row per distinct start_time of the sessions whose plays this run loaded, UTC; weekday 0 is Sunday.
WITH start_times AS (
    SELECT DISTINCT start_time
    FROM fact_songplays
    WHERE {{ loaded_plays(ti) }}
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
