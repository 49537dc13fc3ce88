-- The tables as they were before the first migration, when they were created without a record of migrations.

CREATE TABLE staging_events (
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
DISTSTYLE EVEN;

CREATE TABLE staging_songs (
    num_songs INTEGER,
    artist_id VARCHAR(64),
    artist_latitude DOUBLE PRECISION,
    artist_longitude DOUBLE PRECISION,
    artist_location VARCHAR(1024),
    artist_name VARCHAR(1024),
    song_id VARCHAR(64) NOT NULL,
    title VARCHAR(1024),
    duration DOUBLE PRECISION,
    year INTEGER
)
DISTSTYLE EVEN;

CREATE TABLE fact_songplays (
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
COMPOUND SORTKEY (start_time);

CREATE TABLE dim_users (
    user_id VARCHAR(64) NOT NULL,
    first_name VARCHAR(256),
    last_name VARCHAR(256),
    gender VARCHAR(16),
    level VARCHAR(16),
    last_event_at TIMESTAMP NOT NULL,
    PRIMARY KEY (user_id)
)
DISTSTYLE ALL
SORTKEY (user_id);

CREATE TABLE dim_songs (
    song_id VARCHAR(64) NOT NULL,
    title VARCHAR(1024),
    artist_id VARCHAR(64),
    artist_name VARCHAR(1024),
    year INTEGER,
    duration DOUBLE PRECISION,
    PRIMARY KEY (song_id)
)
DISTSTYLE ALL
SORTKEY (song_id);

CREATE TABLE dim_artists (
    artist_id VARCHAR(64) NOT NULL,
    name VARCHAR(1024),
    location VARCHAR(1024),
    latitude DOUBLE PRECISION,
    longitude DOUBLE PRECISION,
    PRIMARY KEY (artist_id)
)
DISTSTYLE ALL
SORTKEY (artist_id);

CREATE TABLE dim_time (
    start_time TIMESTAMP NOT NULL,
    hour INTEGER NOT NULL,
    day INTEGER NOT NULL,
    week INTEGER NOT NULL,
    month INTEGER NOT NULL,
    year INTEGER NOT NULL,
    weekday INTEGER NOT NULL,
    PRIMARY KEY (start_time)
)
DISTSTYLE KEY
DISTKEY (start_time)
SORTKEY (start_time);

CREATE TABLE etl_files (
    dataset VARCHAR(64) NOT NULL,
    s3_key VARCHAR(1024) NOT NULL,
    etag VARCHAR(256) NOT NULL,
    size_bytes BIGINT NOT NULL,
    last_modified TIMESTAMP NOT NULL,
    run_id VARCHAR(256) NOT NULL,
    loaded_at TIMESTAMP NOT NULL,
    PRIMARY KEY (dataset, s3_key, etag, last_modified)
)
DISTSTYLE EVEN
COMPOUND SORTKEY (last_modified);

CREATE TABLE etl_batches (
    dataset VARCHAR(64) NOT NULL,
    run_id VARCHAR(256) NOT NULL,
    files BIGINT NOT NULL,
    staged_at TIMESTAMP NOT NULL,
    PRIMARY KEY (dataset)
)
DISTSTYLE ALL
SORTKEY (dataset);

CREATE TABLE etl_rejected_rows (
    dataset VARCHAR(64) NOT NULL,
    s3_key VARCHAR(1024),
    line_number BIGINT,
    column_name VARCHAR(128),
    reason VARCHAR(1024) NOT NULL,
    raw_value VARCHAR(1024),
    raw_line VARCHAR(65535),
    run_id VARCHAR(256) NOT NULL,
    rejected_at TIMESTAMP NOT NULL
)
DISTSTYLE EVEN
COMPOUND SORTKEY (rejected_at);

CREATE TABLE etl_quality_results (
    run_id VARCHAR(256) NOT NULL,
    check_name VARCHAR(512) NOT NULL,
    table_name VARCHAR(128) NOT NULL,
    severity VARCHAR(16) NOT NULL,
    failed_rows BIGINT NOT NULL,
    example VARCHAR(4096),
    checked_at TIMESTAMP NOT NULL
)
DISTSTYLE EVEN
COMPOUND SORTKEY (checked_at);
