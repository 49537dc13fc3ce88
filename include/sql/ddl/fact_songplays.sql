-- fact_songplays: one row per play; key songplay_id, the MD5 of session and item, which spreads rows evenly.
CREATE TABLE IF NOT EXISTS fact_songplays (
    songplay_id VARCHAR(32) NOT NULL,
    start_time TIMESTAMP NOT NULL,
    user_id VARCHAR(64) NOT NULL,
    level VARCHAR(16),
    song_id VARCHAR(64),
    artist_id VARCHAR(64),
    session_id BIGINT NOT NULL,
    item_in_session INTEGER NOT NULL,
    song_title VARCHAR(1024),
    artist_name VARCHAR(1024),
    duration DOUBLE PRECISION,
    location VARCHAR(512),
    user_agent VARCHAR(1024),
    PRIMARY KEY (songplay_id)
)
DISTSTYLE KEY
DISTKEY (songplay_id)
COMPOUND SORTKEY (start_time)
