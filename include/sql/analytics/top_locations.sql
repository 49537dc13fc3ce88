-- top_locations: the ten places where most is played.
SELECT
    location,
    COUNT(*) AS plays,
    COUNT(DISTINCT user_id) AS listeners,
    COUNT(DISTINCT CASE WHEN level = 'paid' THEN user_id END) AS paying_listeners
FROM fact_songplays
WHERE start_time >= :range_start AND start_time < :range_end
GROUP BY location
ORDER BY plays DESC, location ASC
LIMIT 10
