-- span_of_plays: one row with the number of plays, the oldest and the newest of them.
SELECT
    COUNT(*) AS plays,
    MIN(start_time) AS oldest_play,
    MAX(start_time) AS newest_play
FROM fact_songplays
