-- etl_migrations: one row per migration of include/sql/migrations that the tables have, applied or created with it.
CREATE TABLE IF NOT EXISTS etl_migrations (
    migration VARCHAR(128) NOT NULL,
    run_id VARCHAR(256) NOT NULL,
    recorded_at TIMESTAMP NOT NULL,
    PRIMARY KEY (migration)
)
DISTSTYLE ALL
SORTKEY (migration)
