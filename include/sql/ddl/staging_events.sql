-- staging_events: one row per log line of this run's files.
-- NOT NULL is the key of every event: COPY rejects a line without it, and says which file and line.
CREATE TABLE IF NOT EXISTS staging_events (
    artist VARCHAR(1024),
    auth VARCHAR(64),
    firstname VARCHAR(256),
    gender VARCHAR(16),
    iteminsession INTEGER NOT NULL,
    lastname VARCHAR(256),
    length DOUBLE PRECISION,
    level VARCHAR(16),
    location VARCHAR(512),
    method VARCHAR(16),
    page VARCHAR(64),
    registration DOUBLE PRECISION,
    sessionid BIGINT NOT NULL,
    song VARCHAR(1024),
    status INTEGER,
    ts TIMESTAMP NOT NULL,
    useragent VARCHAR(1024),
    userid VARCHAR(64)
)
DISTSTYLE EVEN
