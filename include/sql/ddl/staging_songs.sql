-- staging_songs: one row per song object of this run's files.
CREATE TABLE IF NOT EXISTS staging_songs (
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
DISTSTYLE EVEN
