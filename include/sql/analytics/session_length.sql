-- session_length: one row per level that a session began with; minutes run from its first play to its last.
WITH sessions AS (
    SELECT
        session_id,
        COUNT(*) AS plays,
        DATEDIFF(SECOND, MIN(start_time), MAX(start_time)) / 60.0 AS minutes,
        MIN(item_in_session) AS first_item
    FROM fact_songplays
    WHERE start_time >= :range_start AND start_time < :range_end
    GROUP BY session_id
)

SELECT
    first_plays.level,
    COUNT(*) AS sessions,
    ROUND(AVG(1.0 * sessions.plays), 1) AS mean_plays,
    MAX(sessions.plays) AS most_plays,
    ROUND(AVG(sessions.minutes), 1) AS mean_minutes,
    ROUND(MAX(sessions.minutes), 1) AS most_minutes
FROM sessions
INNER JOIN fact_songplays AS first_plays
    ON
        sessions.session_id = first_plays.session_id
        AND sessions.first_item = first_plays.item_in_session
GROUP BY first_plays.level
ORDER BY sessions DESC
