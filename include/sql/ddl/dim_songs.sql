-- dim_songs: one row per song_id.
CREATE TABLE IF NOT EXISTS dim_songs (
    song_id VARCHAR(64) NOT NULL,
    title VARCHAR(1024),
    artist_id VARCHAR(64),
    artist_name VARCHAR(1024),
    year INTEGER,
    duration DOUBLE PRECISION,
    PRIMARY KEY (song_id)
)
DISTSTYLE ALL
SORTKEY (song_id)
