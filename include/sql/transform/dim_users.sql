-- dim_users: one row per user staged by this run, as of the user's newest event, staged now or before.
-- With reload_prefix, staged events win over a row that is there, unless that is later than all staged events.
-- Texts lose the blanks at their end, which Redshift does not see when it compares.
WITH candidates AS (
    SELECT
        RTRIM(userid) AS user_id,
        RTRIM(firstname) AS first_name,
        RTRIM(lastname) AS last_name,
        RTRIM(gender) AS gender,
        RTRIM(level) AS level,
        ts AS last_event_at
    FROM staging_events
    WHERE userid <> ''
    UNION ALL
    SELECT
        user_id,
        first_name,
        last_name,
        gender,
        level,
        last_event_at
    FROM dim_users
    WHERE
        user_id IN (SELECT staging_events.userid FROM staging_events)
        AND (
            {{ 'FALSE' if params.reload_prefix else 'TRUE' }}
            OR last_event_at > (SELECT MAX(staging_events.ts) FROM staging_events)
        )
),

ranked AS (
    SELECT
        user_id,
        first_name,
        last_name,
        gender,
        level,
        last_event_at,
        ROW_NUMBER() OVER (
            PARTITION BY user_id
            ORDER BY
                last_event_at DESC,
                level DESC NULLS LAST,
                first_name DESC NULLS LAST,
                last_name DESC NULLS LAST,
                gender DESC NULLS LAST
        ) AS recency
    FROM candidates
)

SELECT
    user_id,
    first_name,
    last_name,
    gender,
    level,
    last_event_at
FROM ranked
WHERE recency = 1
