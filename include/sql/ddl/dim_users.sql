-- dim_users: one row per user seen in any event, as of the user's newest event.
CREATE TABLE IF NOT EXISTS dim_users (
    user_id VARCHAR(64) NOT NULL,
    first_name VARCHAR(256),
    last_name VARCHAR(256),
    gender VARCHAR(16),
    level VARCHAR(16),
    last_event_at TIMESTAMP NOT NULL,
    PRIMARY KEY (user_id)
)
DISTSTYLE ALL
SORTKEY (user_id)
