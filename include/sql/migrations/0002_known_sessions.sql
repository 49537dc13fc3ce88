-- etl_sessions: where the plays are that were loaded before there was such a table.
SELECT COUNT(*) AS plays
FROM fact_songplays
LEFT JOIN etl_sessions
    ON
        fact_songplays.session_id = etl_sessions.session_id
        AND DATE_TRUNC('hour', fact_songplays.start_time) = etl_sessions.start_hour
WHERE etl_sessions.session_id IS NULL
HAVING COUNT(*) > 0;

INSERT INTO etl_sessions
SELECT
    session_id,
    DATE_TRUNC('hour', start_time) AS start_hour
FROM fact_songplays
EXCEPT
SELECT
    session_id,
    start_hour
FROM etl_sessions
