-- dim_artists: one row per artist_id.
CREATE TABLE IF NOT EXISTS dim_artists (
    artist_id VARCHAR(64) NOT NULL,
    name VARCHAR(1024),
    location VARCHAR(1024),
    latitude DOUBLE PRECISION,
    longitude DOUBLE PRECISION,
    PRIMARY KEY (artist_id)
)
DISTSTYLE ALL
SORTKEY (artist_id)
