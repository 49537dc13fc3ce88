-- etl_sessions: one row per session and hour in which a play of it began, so that a play whose time is corrected
-- is found in fact_songplays: that is sorted by time, and a listener who comes back may bring an old session_id.
CREATE TABLE IF NOT EXISTS etl_sessions (
    session_id BIGINT NOT NULL,
    start_hour TIMESTAMP NOT NULL,
    PRIMARY KEY (session_id, start_hour)
)
DISTSTYLE KEY
DISTKEY (session_id)
SORTKEY (session_id)
