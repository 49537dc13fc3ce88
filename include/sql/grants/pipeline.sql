-- The pipeline's user owns a schema, where its statements' names are looked up, and may have temporary tables.
-- Nothing else: COPY's role is granted beside it, where that is not everybody's.
CREATE SCHEMA IF NOT EXISTS {{ schema }} AUTHORIZATION {{ user }};
ALTER USER {{ user }} SET search_path TO {{ schema }};
GRANT TEMP ON DATABASE {{ database }} TO {{ user }}
