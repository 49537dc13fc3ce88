-- What PostgreSQL lacks of Redshift. Run at every start by the superuser: every statement may be run again.
--
-- Functions and views that Redshift has and PostgreSQL has not are in pg_catalog, where Redshift has them and where no
-- search_path hides them. Those that PostgreSQL has with another meaning are in rs_catalog; dialect.py calls them there.
SET allow_system_table_mods = on;
SET client_min_messages = warning;

CREATE SCHEMA IF NOT EXISTS rs_catalog;
GRANT USAGE ON SCHEMA rs_catalog TO PUBLIC;

-- Users and roles, which privileges.py creates -----------------------------------------------------------------------

-- Who may log in, but for PostgreSQL's own superuser; Redshift's is the one that may create others
CREATE OR REPLACE VIEW rs_catalog.users AS
SELECT oid, rolname, rolconnlimit, rolvaliduntil, rolcreaterole AS superuser
FROM pg_roles
WHERE rolcanlogin AND NOT rolsuper;

CREATE OR REPLACE VIEW rs_catalog.roles AS
SELECT oid, rolname FROM pg_roles WHERE NOT rolcanlogin AND oid >= 16384;

CREATE OR REPLACE FUNCTION rs_catalog.is_superuser() RETURNS boolean LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND (rolcreaterole OR rolsuper));

CREATE OR REPLACE FUNCTION rs_catalog.require_superuser(purpose text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT rs_catalog.is_superuser() THEN
        RAISE insufficient_privilege USING MESSAGE = format('must be superuser to %s', purpose);
    END IF;
END;
$$;

CREATE OR REPLACE FUNCTION rs_catalog.require_users(VARIADIC names text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    missing text;
BEGIN
    SELECT name INTO missing FROM unnest(names) AS name WHERE name NOT IN (SELECT rolname FROM rs_catalog.users);
    IF FOUND THEN
        RAISE undefined_object USING MESSAGE = format('user "%s" does not exist', missing);
    END IF;
END;
$$;

CREATE OR REPLACE FUNCTION rs_catalog.require_roles(VARIADIC names text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    missing text;
BEGIN
    SELECT name INTO missing FROM unnest(names) AS name WHERE name NOT IN (SELECT rolname FROM rs_catalog.roles);
    IF FOUND THEN
        RAISE undefined_object USING MESSAGE = format('role "%s" does not exist', missing);
    END IF;
END;
$$;

-- Digests of passwords, for the server alone; a user whose password is disabled has none
CREATE TABLE IF NOT EXISTS rs_catalog.passwords (user_id oid PRIMARY KEY, digest text NOT NULL);

CREATE OR REPLACE FUNCTION rs_catalog.set_password(user_name text, new_digest text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    target rs_catalog.users := (SELECT u FROM rs_catalog.users AS u WHERE rolname = user_name);
    by_superuser boolean := (SELECT superuser FROM rs_catalog.users WHERE rolname = session_user);
BEGIN
    IF target.superuser AND new_digest IS NULL THEN
        RAISE insufficient_privilege USING MESSAGE = 'the password of a superuser cannot be disabled';
    ELSIF NOT by_superuser AND user_name <> session_user THEN
        RAISE insufficient_privilege USING MESSAGE = 'must be superuser to alter users';
    ELSIF NOT by_superuser AND (new_digest IS NULL OR target.oid NOT IN (SELECT user_id FROM rs_catalog.passwords)) THEN
        RAISE insufficient_privilege USING MESSAGE = 'must be superuser to enable or disable a password';
    END IF;
    DELETE FROM rs_catalog.passwords WHERE user_id = target.oid;
    INSERT INTO rs_catalog.passwords SELECT target.oid, new_digest WHERE new_digest IS NOT NULL;
END;
$$;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_DROP_USER.html
CREATE OR REPLACE FUNCTION rs_catalog.drop_user(name text, if_exists boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    dropped oid := (SELECT oid FROM rs_catalog.users WHERE rolname = name);
    dependency "char";
BEGIN
    IF dropped IS NULL AND if_exists THEN
        RAISE NOTICE 'user "%" does not exist, skipping', name;
        RETURN;
    END IF;
    PERFORM rs_catalog.require_users(name);
    SELECT deptype INTO dependency
    FROM pg_shdepend
    WHERE refclassid = 'pg_authid'::regclass AND refobjid = dropped
    ORDER BY deptype = 'o' DESC;
    IF FOUND THEN
        RAISE object_in_use USING MESSAGE = format('user "%s" can''t be dropped because the user %s', name,
            CASE WHEN dependency = 'o' THEN 'owns some object' ELSE 'has a privilege on some object' END);
    END IF;
    PERFORM rs_catalog.set_password(name, NULL);
    EXECUTE format('DROP ROLE %I', name);
END;
$$;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_DROP_ROLE.html
CREATE OR REPLACE FUNCTION rs_catalog.drop_role(name text, force boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    dropped oid := (SELECT oid FROM rs_catalog.roles WHERE rolname = name);
BEGIN
    PERFORM rs_catalog.require_roles(name);
    IF NOT force AND EXISTS (
        SELECT FROM pg_auth_members AS m
        INNER JOIN rs_catalog.users AS u ON u.oid = m.member
        WHERE m.roleid = dropped AND NOT u.superuser
    ) THEN
        RAISE dependent_objects_still_exist
        USING MESSAGE = 'cannot drop this role since it has been granted on a user';
    END IF;
    IF NOT force AND EXISTS (
        SELECT FROM pg_auth_members AS m
        INNER JOIN rs_catalog.roles AS r ON r.oid = m.member
        WHERE dropped IN (m.roleid, m.member)
    ) THEN
        RAISE dependent_objects_still_exist
        USING MESSAGE = 'cannot drop this role since it depends on another role';
    END IF;
    EXECUTE format('DROP ROLE %I', name);
END;
$$;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_SVV_USER_INFO.html: ordinary users see themselves
CREATE OR REPLACE VIEW pg_catalog.svv_user_info AS
SELECT
    rolname::text AS user_name,
    oid::integer AS user_id,
    superuser AS createdb,
    superuser,
    false AS catalog_update,
    CASE WHEN rolconnlimit < 0 THEN 'UNLIMITED' ELSE rolconnlimit::text END AS connection_limit,
    CASE
        WHEN superuser OR pg_has_role(oid, 'pg_read_all_stats', 'MEMBER') THEN 'UNRESTRICTED' ELSE 'RESTRICTED'
    END AS syslog_access,
    NULL::timestamp AS last_ddl_timestamp,
    0 AS session_timeout,
    NULL::text AS external_user_id
FROM rs_catalog.users
WHERE rs_catalog.is_superuser() OR rolname = current_user;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_SVV_ROLES.html
CREATE OR REPLACE VIEW pg_catalog.svv_roles AS
SELECT
    r.oid::integer AS role_id,
    r.rolname::text AS role_name,
    (SELECT u.rolname FROM rs_catalog.users AS u WHERE u.superuser ORDER BY u.oid LIMIT 1)::text AS role_owner,
    NULL::text AS external_id
FROM rs_catalog.roles AS r;

-- Privileges on columns: https://docs.aws.amazon.com/redshift/latest/dg/r_GRANT-usage-notes.html. NULL is everybody
CREATE OR REPLACE FUNCTION rs_catalog.holds(acl aclitem[], holder text, privilege text) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM aclexplode(acl) AS held
    WHERE held.privilege_type = privilege AND held.grantee = coalesce(quote_ident(holder)::regrole::oid, 0)
);

CREATE OR REPLACE FUNCTION rs_catalog.require_no_column_privileges(privileges text[], tables text[], holders text[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    target regclass;
    privilege text;
BEGIN
    SELECT c.attrelid, p INTO target, privilege
    FROM pg_attribute AS c, unnest(privileges) AS p, unnest(holders) AS holder
    WHERE c.attrelid = ANY (tables::regclass[]) AND rs_catalog.holds(c.attacl, holder, p);
    IF FOUND THEN
        RAISE invalid_grant_operation USING MESSAGE = format(
            'cannot grant %s on %s: it is granted on columns already, and has to be revoked first', privilege, target
        );
    END IF;
END;
$$;

-- All users may lock all tables, isolation.py says why; who holds nothing else would pass for one who may grant nothing
CREATE OR REPLACE FUNCTION rs_catalog.require_any_privilege(tables text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    target regclass;
BEGIN
    FOREACH target IN ARRAY tables::regclass[] LOOP
        IF NOT has_table_privilege(target, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES')
            AND NOT has_any_column_privilege(target, 'SELECT, INSERT, UPDATE, REFERENCES') THEN
            RAISE insufficient_privilege USING MESSAGE = format('permission denied for table %s', target);
        END IF;
    END LOOP;
END;
$$;

CREATE OR REPLACE FUNCTION rs_catalog.change_columns(
    verb text, privilege text, columns text[], tables text[], holders text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    names text := (SELECT string_agg(quote_ident(name), ', ') FROM unnest(columns) AS name);
    target regclass;
    holder text;
BEGIN
    FOREACH target IN ARRAY tables::regclass[] LOOP
        FOREACH holder IN ARRAY holders LOOP
            IF NOT rs_catalog.holds((SELECT relacl FROM pg_class WHERE oid = target), holder, privilege) THEN
                EXECUTE format('%s %s (%s) ON %s %s %s', verb, privilege, names, target,
                    CASE verb WHEN 'GRANT' THEN 'TO' ELSE 'FROM' END, coalesce(quote_ident(holder), 'PUBLIC'));
            ELSIF verb = 'REVOKE' THEN
                RAISE invalid_grant_operation USING MESSAGE = format(
                    'cannot revoke %s on columns of %s: it is granted on the table', privilege, target
                );
            END IF;
        END LOOP;
    END LOOP;
END;
$$;

-- The IAM roles with which users, or the users of roles, or all (0), may run COPY
CREATE TABLE IF NOT EXISTS rs_catalog.iam_role_grants (
    holder oid, iam_role text, command text, PRIMARY KEY (holder, iam_role, command)
);

CREATE OR REPLACE FUNCTION rs_catalog.change_assumerole(verb text, iam_roles text[], commands text[], holders text[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    ids oid[] := ARRAY(SELECT coalesce(quote_ident(holder)::regrole::oid, 0) FROM unnest(holders) AS holder);
BEGIN
    IF NOT (SELECT superuser FROM rs_catalog.users WHERE rolname = session_user) THEN
        RAISE insufficient_privilege USING MESSAGE = format('must be superuser to %s ASSUMEROLE', lower(verb));
    ELSIF verb = 'GRANT' THEN
        INSERT INTO rs_catalog.iam_role_grants
        SELECT id, iam_role, command
        FROM unnest(ids) AS id, unnest(iam_roles) AS iam_role, unnest(commands) AS command
        ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM rs_catalog.iam_role_grants
        WHERE holder = ANY (ids) AND iam_role = ANY (iam_roles) AND command = ANY (commands);
    END IF;
END;
$$;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_HAS_ASSUMEROLE_PRIVILEGE.html
CREATE OR REPLACE FUNCTION pg_catalog.has_assumerole_privilege(user_name text, role_arn text, cmd_type text)
RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
RETURN EXISTS (SELECT FROM rs_catalog.users WHERE rolname = user_name AND superuser) OR EXISTS (
    SELECT FROM rs_catalog.iam_role_grants
    WHERE command = upper(cmd_type) AND iam_role IN ('ALL', role_arn)
        AND (holder = 0 OR pg_has_role(user_name::name, holder, 'USAGE'))
);

CREATE OR REPLACE FUNCTION pg_catalog.has_assumerole_privilege(role_arn text, cmd_type text)
RETURNS boolean LANGUAGE sql STABLE
RETURN has_assumerole_privilege(current_user::text, role_arn, cmd_type);

CREATE OR REPLACE FUNCTION rs_catalog.require_assumerole(role_arn text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT has_assumerole_privilege(role_arn, 'COPY') THEN
        RAISE insufficient_privilege USING MESSAGE = format(
            'User %s does not have ASSUMEROLE permission on IAM role "%s" for COPY', current_user, role_arn
        );
    END IF;
END;
$$;

-- What all users of a new warehouse may do, until a superuser revokes it
-- (https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_USER.html, r_GRANT-usage-notes.html)
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM rs_catalog.passwords) THEN
        GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC;
        INSERT INTO rs_catalog.iam_role_grants
        SELECT 0, 'ALL', command FROM unnest(ARRAY['COPY', 'UNLOAD', 'EXTERNAL FUNCTION', 'CREATE MODEL']) AS command;
    END IF;
END;
$$;

-- Keys, which Redshift records and does not enforce ------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS rs_catalog.table_keys (
    table_id regclass NOT NULL,
    kind text NOT NULL,
    name text,
    columns text[] NOT NULL,
    references_table regclass,
    references_columns text[] NOT NULL
);
GRANT SELECT, INSERT ON rs_catalog.table_keys TO PUBLIC;

-- What clients see of them in information_schema, whose own views know only what PostgreSQL enforces
CREATE OR REPLACE VIEW rs_catalog.key_column_usage AS
SELECT
    current_database()::text AS table_catalog,
    n.nspname::text AS table_schema,
    c.relname::text AS table_name,
    n.nspname::text AS constraint_schema,
    coalesce(k.name, concat_ws('_', c.relname, CASE k.kind
        WHEN 'PRIMARY KEY' THEN 'pkey'
        WHEN 'UNIQUE' THEN array_to_string(k.columns, '_') || '_key'
        ELSE array_to_string(k.columns, '_') || '_fkey'
    END))::text AS constraint_name,
    k.kind AS constraint_type,
    column_name,
    ordinal_position::integer
FROM rs_catalog.table_keys AS k
INNER JOIN pg_class AS c ON c.oid = k.table_id
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN unnest(k.columns) WITH ORDINALITY AS key_column (column_name, ordinal_position);

CREATE OR REPLACE VIEW rs_catalog.table_constraints AS
SELECT DISTINCT table_catalog, table_schema, table_name, constraint_schema, constraint_name, constraint_type
FROM rs_catalog.key_column_usage;

-- How columns are encoded, distributed and sorted, which changes nothing here ------------------------------------------

DO $$
BEGIN
    IF to_regtype('rs_catalog.attributes') IS NULL THEN
        CREATE TYPE rs_catalog.attributes AS (column_name name, encoding text, distkey boolean, sortkey integer);
    END IF;
END;
$$;
CREATE TABLE IF NOT EXISTS rs_catalog.column_attributes (
    table_id regclass NOT NULL,
    column_number smallint NOT NULL,
    encoding text NOT NULL,
    distkey boolean NOT NULL,
    sortkey integer NOT NULL,
    UNIQUE (table_id, column_number)
);
GRANT SELECT, INSERT, UPDATE ON rs_catalog.column_attributes TO PUBLIC;

-- A table that was there before keeps its attributes
CREATE OR REPLACE FUNCTION rs_catalog.set_attributes(target regclass, attributes rs_catalog.attributes[]) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO rs_catalog.column_attributes
    SELECT target, c.attnum, a.encoding, a.distkey, a.sortkey
    FROM unnest(attributes) AS a
    INNER JOIN pg_attribute AS c ON c.attrelid = target AND c.attname = a.column_name
    ON CONFLICT DO NOTHING;
END;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_TABLE_NEW.html: of distribution and sort keys, and encodings
CREATE OR REPLACE FUNCTION rs_catalog.inherit_attributes(target regclass, parent regclass) RETURNS void
LANGUAGE sql
RETURN rs_catalog.set_attributes(target, (
    SELECT array_agg(ROW(c.attname, a.encoding, a.distkey, a.sortkey)::rs_catalog.attributes)
    FROM rs_catalog.column_attributes AS a
    INNER JOIN pg_attribute AS c ON c.attrelid = a.table_id AND c.attnum = a.column_number
    WHERE a.table_id = parent
));

-- https://docs.aws.amazon.com/redshift/latest/dg/r_ALTER_TABLE.html, for these four
CREATE OR REPLACE FUNCTION rs_catalog.set_distkey(target regclass, columns name[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM rs_catalog.require_columns(target, columns);
    UPDATE rs_catalog.column_attributes SET distkey = false WHERE table_id = target;
    INSERT INTO rs_catalog.column_attributes
    SELECT target, attnum, '', true, 0 FROM pg_attribute WHERE attrelid = target AND attname = ANY (columns)
    ON CONFLICT (table_id, column_number) DO UPDATE SET distkey = true;
END;
$$;

-- A column that becomes a sort key loses its compression
CREATE OR REPLACE FUNCTION rs_catalog.set_sortkey(target regclass, columns name[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM rs_catalog.require_columns(target, columns);
    UPDATE rs_catalog.column_attributes SET sortkey = 0 WHERE table_id = target;
    INSERT INTO rs_catalog.column_attributes
    SELECT target, attnum, 'none', false, array_position(columns, attname)
    FROM pg_attribute WHERE attrelid = target AND attname = ANY (columns)
    ON CONFLICT (table_id, column_number) DO UPDATE SET sortkey = excluded.sortkey, encoding = excluded.encoding;
END;
$$;

CREATE OR REPLACE FUNCTION rs_catalog.require_columns(target regclass, columns name[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    missing name;
BEGIN
    SELECT name INTO missing FROM unnest(columns) AS name
    WHERE name NOT IN (SELECT attname FROM pg_attribute WHERE attrelid = target AND attnum > 0);
    IF FOUND THEN
        RAISE undefined_column USING MESSAGE = format('column "%s" named in a distribution or sort key does not exist', missing);
    END IF;
END;
$$;

CREATE OR REPLACE FUNCTION rs_catalog.require_no_key_dropped(target regclass) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM rs_catalog.column_attributes AS a
        INNER JOIN pg_attribute AS c ON c.attrelid = a.table_id AND c.attnum = a.column_number
        WHERE a.table_id = target AND c.attisdropped AND (a.distkey OR a.sortkey <> 0)
    ) THEN
        RAISE feature_not_supported USING MESSAGE = 'cannot drop a column that is a distribution or sort key';
    END IF;
END;
$$;

-- The limit in bytes is a constraint here, which tells a VARCHAR's column from others
CREATE OR REPLACE FUNCTION rs_catalog.change_length(target regclass, changed name, limit_name text, limit_check text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    number smallint := (SELECT attnum FROM pg_attribute WHERE attrelid = target AND attname = changed);
    old_limit name := (
        SELECT conname FROM pg_constraint
        WHERE conrelid = target AND conkey = ARRAY[number] AND conname LIKE 'character varying(%'
    );
    why text := CASE
        WHEN old_limit IS NULL THEN 'it is not a VARCHAR'
        WHEN EXISTS (SELECT FROM pg_attrdef WHERE adrelid = target AND adnum = number) THEN 'it has a default value'
        WHEN EXISTS (SELECT FROM rs_catalog.table_keys WHERE table_id = target AND changed::text = ANY (columns))
            THEN 'it is part of a key'
        WHEN EXISTS (
            SELECT FROM rs_catalog.column_attributes
            WHERE table_id = target AND column_number = number
                AND encoding IN ('bytedict', 'runlength', 'text255', 'text32k')
        ) THEN 'of its encoding'
    END;
BEGIN
    IF why IS NOT NULL THEN
        RAISE feature_not_supported USING MESSAGE = format('cannot alter the type of column "%s": %s', changed, why);
    END IF;
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', target, old_limit);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', target, limit_name, limit_check);
END;
$$;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_PG_TABLE_DEF.html; where no encoding is chosen, Redshift's choice
-- (https://docs.aws.amazon.com/redshift/latest/dg/c_Compression_encodings.html)
CREATE OR REPLACE VIEW pg_catalog.pg_table_def AS
SELECT
    n.nspname AS schemaname,
    t.relname AS tablename,
    c.attname AS "column",
    format_type(c.atttypid, c.atttypmod) AS type,
    coalesce(nullif(a.encoding, ''), CASE
        WHEN a.sortkey > 0 OR c.atttypid IN ('boolean'::regtype, 'real'::regtype, 'double precision'::regtype) THEN 'none'
        WHEN c.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) THEN 'lzo'
        ELSE 'az64'
    END)::char(32) AS encoding,
    coalesce(a.distkey, false) AS distkey,
    coalesce(a.sortkey, 0) AS sortkey,
    c.attnotnull AS "notnull"
FROM pg_class AS t
INNER JOIN pg_namespace AS n ON n.oid = t.relnamespace
INNER JOIN pg_attribute AS c ON c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped
LEFT JOIN rs_catalog.column_attributes AS a ON a.table_id = t.oid AND a.column_number = c.attnum
WHERE t.relkind = 'r' AND pg_table_is_visible(t.oid);
GRANT SELECT ON pg_table_def TO PUBLIC;

-- What the server was asked ------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS rs_catalog.statements (
    started_at timestamp NOT NULL,
    client text NOT NULL,
    statement text NOT NULL,
    duration_ms double precision NOT NULL,
    rows bigint
);
CREATE TABLE IF NOT EXISTS rs_catalog.connections (
    started_at timestamp NOT NULL,
    client text NOT NULL
);

-- System tables are not part of a transaction's snapshot (https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html):
-- a connection of its own finds what came after it. The server's PostgreSQL is the foreign server "journal".
CREATE EXTENSION IF NOT EXISTS dblink SCHEMA rs_catalog;
CREATE OR REPLACE FUNCTION rs_catalog.later(row_type anyelement) RETURNS SETOF anyelement
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    RETURN QUERY SELECT (jsonb_populate_record(row_type, found.document)).* FROM rs_catalog.dblink(
        'journal',
        format(
            'SELECT to_jsonb(later) FROM %s AS later WHERE NOT pg_visible_in_snapshot(xmin::text::xid8, %L)',
            pg_typeof(row_type), pg_current_snapshot()
        )
    ) AS found (document jsonb);
END;
$$;

CREATE OR REPLACE VIEW pg_catalog.local_statements AS
SELECT * FROM rs_catalog.statements UNION ALL SELECT * FROM rs_catalog.later(NULL::rs_catalog.statements);
CREATE OR REPLACE VIEW pg_catalog.local_connections AS
SELECT * FROM rs_catalog.connections UNION ALL SELECT * FROM rs_catalog.later(NULL::rs_catalog.connections);

-- Loads --------------------------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS rs_catalog.loads (
    query_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id integer NOT NULL,
    table_id oid NOT NULL,
    table_name text NOT NULL,
    data_source text NOT NULL,
    status text NOT NULL,
    start_time timestamp NOT NULL,
    end_time timestamp NOT NULL,
    loaded_rows bigint NOT NULL,
    source_file_count integer NOT NULL,
    source_file_bytes bigint NOT NULL,
    error_count integer NOT NULL,
    error_message text
);
ALTER TABLE rs_catalog.loads ADD COLUMN IF NOT EXISTS user_id oid;
CREATE TABLE IF NOT EXISTS rs_catalog.load_errors (
    query_id bigint NOT NULL REFERENCES rs_catalog.loads,
    file_name text NOT NULL,
    line_number bigint,
    column_name text,
    column_type text,
    column_length text,
    position integer,
    raw_line text,
    raw_field_value text,
    error_code integer NOT NULL,
    error_message text NOT NULL
);
CREATE TABLE IF NOT EXISTS rs_catalog.load_files (
    query_id bigint NOT NULL,
    file_name text NOT NULL,
    bytes_scanned bigint NOT NULL,
    lines_scanned bigint NOT NULL,
    start_time timestamp NOT NULL,
    end_time timestamp NOT NULL,
    etag text NOT NULL,
    last_modified text NOT NULL
);

-- Ordinary users see their own rows: https://docs.aws.amazon.com/redshift/latest/dg/c_visibility-of-data.html
CREATE OR REPLACE FUNCTION rs_catalog.sees_rows_of(owner oid) RETURNS boolean LANGUAGE sql STABLE
RETURN owner = (SELECT oid FROM pg_roles WHERE rolname = current_user)
    OR rs_catalog.is_superuser()
    OR pg_has_role(current_user, 'pg_read_all_stats', 'MEMBER');

CREATE OR REPLACE VIEW rs_catalog.all_loads AS
SELECT * FROM rs_catalog.loads UNION ALL SELECT * FROM rs_catalog.later(NULL::rs_catalog.loads);
CREATE OR REPLACE VIEW rs_catalog.all_load_errors AS
SELECT * FROM rs_catalog.load_errors UNION ALL SELECT * FROM rs_catalog.later(NULL::rs_catalog.load_errors);
CREATE OR REPLACE VIEW rs_catalog.all_load_files AS
SELECT * FROM rs_catalog.load_files UNION ALL SELECT * FROM rs_catalog.later(NULL::rs_catalog.load_files);

-- https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_HISTORY.html
CREATE OR REPLACE VIEW pg_catalog.sys_load_history AS
SELECT
    user_id::integer AS user_id,
    query_id,
    NULL::bigint AS transaction_id,
    session_id,
    current_database()::text AS database_name,
    status,
    table_name,
    start_time,
    end_time,
    (extract(epoch FROM end_time - start_time) * 1000000)::bigint AS duration,
    data_source,
    'json'::text AS file_format,
    loaded_rows,
    source_file_count,
    source_file_bytes,
    error_count,
    error_message
FROM rs_catalog.all_loads
WHERE rs_catalog.sees_rows_of(user_id);

-- https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_ERROR_DETAIL.html
CREATE OR REPLACE VIEW pg_catalog.sys_load_error_detail AS
SELECT
    l.user_id::integer AS user_id,
    query_id,
    NULL::bigint AS transaction_id,
    l.session_id,
    current_database()::char(64) AS database_name,
    l.table_id::integer AS table_id,
    l.start_time,
    e.file_name::char(256) AS file_name,
    e.line_number,
    e.column_name::char(127) AS column_name,
    e.column_type::char(10) AS column_type,
    e.column_length::char(10) AS column_length,
    e.position,
    e.error_code,
    e.error_message::char(512) AS error_message
FROM rs_catalog.all_load_errors AS e
INNER JOIN rs_catalog.all_loads AS l USING (query_id)
WHERE rs_catalog.sees_rows_of(l.user_id);

-- https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_DETAIL.html: a line is taken to be an object, loaded or not
CREATE OR REPLACE VIEW pg_catalog.sys_load_detail AS
SELECT
    l.user_id::integer AS user_id,
    query_id,
    f.file_name::char(256) AS file_name,
    f.bytes_scanned,
    f.lines_scanned,
    f.end_time AS record_time,
    1 AS splits_scanned,
    f.start_time,
    f.end_time,
    f.etag::char(256) AS file_etag,
    to_timestamp(f.last_modified, 'Dy, DD Mon YYYY HH24:MI:SS "GMT"')::timestamp AS file_last_modified
FROM rs_catalog.all_load_files AS f
INNER JOIN rs_catalog.all_loads AS l USING (query_id)
WHERE rs_catalog.sees_rows_of(l.user_id);

-- https://docs.aws.amazon.com/redshift/latest/dg/r_STL_LOAD_ERRORS.html
CREATE OR REPLACE VIEW pg_catalog.stl_load_errors AS
SELECT
    l.user_id::integer AS userid,
    0 AS slice,
    l.table_id::integer AS tbl,
    l.start_time AS starttime,
    l.session_id AS session,
    query_id::integer AS query,
    e.file_name::char(256) AS filename,
    e.line_number,
    e.column_name::char(127) AS colname,
    e.column_type::char(10) AS type,
    e.column_length::char(10) AS col_length,
    e.position,
    e.raw_line::char(1024) AS raw_line,
    e.raw_field_value::char(1024) AS raw_field_value,
    e.error_code AS err_code,
    e.error_message::char(100) AS err_reason
FROM rs_catalog.all_load_errors AS e
INNER JOIN rs_catalog.all_loads AS l USING (query_id)
WHERE rs_catalog.sees_rows_of(l.user_id);

REVOKE SELECT ON ALL TABLES IN SCHEMA rs_catalog FROM PUBLIC;
GRANT SELECT ON
    rs_catalog.users, rs_catalog.roles, rs_catalog.table_keys, rs_catalog.key_column_usage, rs_catalog.table_constraints,
    rs_catalog.column_attributes, svv_user_info, svv_roles
TO PUBLIC;
GRANT SELECT ON
    local_statements, local_connections, sys_load_history, sys_load_error_detail, sys_load_detail, stl_load_errors
TO PUBLIC;

-- What stands in for zone maps, of a megabyte as Redshift's blocks
-- (https://docs.aws.amazon.com/redshift/latest/dg/c_columnar_storage_disk_mem_mgmnt.html), of a table that is new
CREATE OR REPLACE FUNCTION rs_catalog.create_zone_maps(sorted_table regclass, columns text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = sorted_table) THEN
        EXECUTE format(
            'CREATE INDEX ON %s USING brin (%s) WITH (pages_per_range = 128, autosummarize = on)',
            sorted_table,
            (SELECT string_agg(quote_ident(name), ', ') FROM unnest(columns) AS name)
        );
    END IF;
END;
$$;

-- https://docs.aws.amazon.com/redshift/latest/dg/PG_LAST_COPY_COUNT.html and PG_LAST_COPY_ID.html; the server sets both
CREATE OR REPLACE FUNCTION pg_catalog.pg_last_copy_count() RETURNS bigint LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('redshift.last_copy_count', true), ''), '0')::bigint;

CREATE OR REPLACE FUNCTION pg_catalog.pg_last_copy_id() RETURNS integer LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('redshift.last_copy_id', true), ''), '-1')::integer;

-- The tables that are there ------------------------------------------------------------------------------------------

-- https://docs.aws.amazon.com/redshift/latest/dg/r_SVV_TABLES.html
CREATE OR REPLACE VIEW pg_catalog.svv_tables AS
SELECT table_catalog::text, table_schema::text, table_name::text, table_type::text, NULL::text AS remarks
FROM information_schema.tables;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_SVV_COLUMNS.html
CREATE OR REPLACE VIEW pg_catalog.svv_columns AS
SELECT
    table_catalog::text,
    table_schema::text,
    table_name::text,
    column_name::text,
    ordinal_position::integer,
    column_default::text,
    is_nullable::text,
    data_type::text,
    character_maximum_length::integer,
    numeric_precision::integer,
    numeric_precision_radix::integer,
    numeric_scale::integer,
    datetime_precision::integer,
    NULL::text AS interval_type,
    NULL::text AS interval_precision,
    NULL::text AS character_set_catalog,
    NULL::text AS character_set_schema,
    NULL::text AS character_set_name,
    NULL::text AS collation_catalog,
    NULL::text AS collation_schema,
    NULL::text AS collation_name,
    NULL::text AS domain_name,
    NULL::text AS remarks
FROM information_schema.columns;

GRANT SELECT ON svv_tables, svv_columns TO PUBLIC;

-- Isolation, see isolation.py ------------------------------------------------------------------------------------------

-- SNAPSHOT is the default (https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html); ALTER DATABASE changes it
DO $$
BEGIN
    IF current_setting('redshift.isolation_level', true) IS NULL THEN
        EXECUTE format('ALTER DATABASE %I SET redshift.isolation_level = %L', current_database(), 'Snapshot Isolation');
    END IF;
END;
$$;

GRANT SET ON PARAMETER redshift.isolation_level TO PUBLIC; -- PostgreSQL lets only the owner alter a database

-- https://docs.aws.amazon.com/redshift/latest/dg/r_STV_DB_ISOLATION_LEVEL.html
CREATE OR REPLACE VIEW pg_catalog.stv_db_isolation_level AS
SELECT d.datname::char(128) AS db_name, split_part(setting, '=', 2)::char(20) AS isolation_level
FROM pg_db_role_setting AS s
INNER JOIN pg_database AS d ON d.oid = s.setdatabase
CROSS JOIN unnest(s.setconfig) AS setting
WHERE s.setrole = 0 AND split_part(setting, '=', 1) = 'redshift.isolation_level';
GRANT SELECT ON stv_db_isolation_level TO PUBLIC;

-- The tables of users that some names stand for, a view for all that it reads; and whether each is in the snapshot
CREATE OR REPLACE FUNCTION rs_catalog.user_tables(names text[]) RETURNS TABLE (id oid, is_known boolean)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY WITH RECURSIVE used AS (
        SELECT to_regclass(name)::oid AS table_id FROM unnest(names) AS name
        UNION
        SELECT d.refobjid
        FROM used
        INNER JOIN pg_rewrite AS r ON r.ev_class = used.table_id
        INNER JOIN pg_depend AS d
            ON d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
    )
    SELECT table_id, t.oid IS NOT NULL
    FROM used
    LEFT JOIN pg_class AS t ON t.oid = table_id
    WHERE table_id IS NOT NULL AND (t.oid IS NULL OR (
        t.relkind = 'r' AND t.relpersistence <> 't'
        AND t.relnamespace NOT IN ('pg_catalog'::regnamespace, 'rs_catalog'::regnamespace)
    ));
END;
$$;

-- Functions of the server --------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION rs_catalog.version() RETURNS text LANGUAGE sql IMMUTABLE
RETURN 'PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3), '
    'Redshift 1.0.0 (local)';

-- What is compared, blanks.py says where -------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION rs_catalog.comparable(value anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE
AS 'SELECT value';

CREATE OR REPLACE FUNCTION rs_catalog.comparable(value bpchar) RETURNS bpchar LANGUAGE sql IMMUTABLE RETURN value;

CREATE OR REPLACE FUNCTION rs_catalog.comparable(value varchar) RETURNS text LANGUAGE sql IMMUTABLE
RETURN rtrim(value, ' ');

CREATE OR REPLACE FUNCTION rs_catalog.comparable(value text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN rtrim(value, ' ');

-- Dates and times ----------------------------------------------------------------------------------------------------

-- The start of the statement, in seconds, in the session's time zone: https://docs.aws.amazon.com/redshift/latest/dg/r_GETDATE.html
CREATE OR REPLACE FUNCTION pg_catalog.getdate() RETURNS timestamp LANGUAGE sql STABLE
RETURN date_trunc('second', statement_timestamp()::timestamp);

-- The start of the transaction, in the session's time zone: https://docs.aws.amazon.com/redshift/latest/dg/r_SYSDATE.html
CREATE OR REPLACE FUNCTION pg_catalog.sysdate() RETURNS timestamp LANGUAGE sql STABLE
RETURN transaction_timestamp()::timestamp;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_ADD_MONTHS.html: the last day of a month stays the last day
CREATE OR REPLACE FUNCTION pg_catalog.add_months(value timestamp, months integer) RETURNS timestamp
LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN extract(month FROM value + interval '1 day') <> extract(month FROM value)
        THEN date_trunc('month', value) + make_interval(months => months + 1) - interval '1 day'
            + (value - date_trunc('day', value))
    ELSE value + make_interval(months => months)
END;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_DATEADD_function.html: April 30 plus a month is May 30
CREATE OR REPLACE FUNCTION rs_catalog.dateadd(part text, amount bigint, value timestamp) RETURNS timestamp
LANGUAGE sql IMMUTABLE
RETURN CASE part
    WHEN 'month' THEN value + amount * interval '1 month'
    WHEN 'quarter' THEN value + amount * interval '3 months'
    -- A year after February 29 is March 1
    WHEN 'year' THEN value + amount * interval '1 year' + CASE
        WHEN extract(day FROM value + amount * interval '1 year') < extract(day FROM value) THEN interval '1 day'
        ELSE interval '0 days'
    END
    WHEN 'decade' THEN value + amount * interval '10 years'
    WHEN 'century' THEN value + amount * interval '100 years'
    WHEN 'week' THEN value + amount * interval '1 week'
    WHEN 'day' THEN value + amount * interval '1 day'
    WHEN 'dow' THEN value + amount * interval '1 day'
    WHEN 'doy' THEN value + amount * interval '1 day'
    WHEN 'hour' THEN value + amount * interval '1 hour'
    WHEN 'minute' THEN value + amount * interval '1 minute'
    WHEN 'second' THEN value + amount * interval '1 second'
    WHEN 'milliseconds' THEN value + amount * interval '1 millisecond'
    WHEN 'microseconds' THEN value + amount * interval '1 microsecond'
END;

CREATE OR REPLACE FUNCTION rs_catalog.dateadd(part text, amount bigint, value time) RETURNS time
LANGUAGE sql IMMUTABLE RETURN rs_catalog.dateadd(part, amount, date '2000-01-01' + value)::time;

CREATE OR REPLACE FUNCTION rs_catalog.dateadd(part text, amount bigint, value timetz) RETURNS timetz
LANGUAGE sql IMMUTABLE RETURN rs_catalog.dateadd(part, amount, (value AT TIME ZONE 'UTC')::time) AT TIME ZONE 'UTC';

-- How many boundaries of the part lie between the two, a week beginning on Sunday:
-- https://docs.aws.amazon.com/redshift/latest/dg/r_DATEDIFF_function.html
CREATE OR REPLACE FUNCTION rs_catalog.datediff(part text, since timestamp, until timestamp) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN CASE part
    WHEN 'microseconds' THEN (extract(epoch FROM until - since) * 1000000)::bigint
    WHEN 'milliseconds'
        THEN (extract(epoch FROM date_trunc(part, until) - date_trunc(part, since)) * 1000)::bigint
    WHEN 'second' THEN extract(epoch FROM date_trunc(part, until) - date_trunc(part, since))::bigint
    WHEN 'minute' THEN extract(epoch FROM date_trunc(part, until) - date_trunc(part, since))::bigint / 60
    WHEN 'hour' THEN extract(epoch FROM date_trunc(part, until) - date_trunc(part, since))::bigint / 3600
    WHEN 'week' THEN floor((until::date - date '2000-01-02') / 7.0)::bigint
        - floor((since::date - date '2000-01-02') / 7.0)::bigint
    WHEN 'month' THEN (extract(year FROM until) - extract(year FROM since))::bigint * 12
        + (extract(month FROM until) - extract(month FROM since))::bigint
    WHEN 'quarter' THEN (extract(year FROM until) - extract(year FROM since))::bigint * 4
        + (extract(quarter FROM until) - extract(quarter FROM since))::bigint
    WHEN 'year' THEN (extract(year FROM until) - extract(year FROM since))::bigint
    WHEN 'decade' THEN (extract(decade FROM until) - extract(decade FROM since))::bigint
    WHEN 'century' THEN (extract(century FROM until) - extract(century FROM since))::bigint
    ELSE (until::date - since::date)::bigint
END;

CREATE OR REPLACE FUNCTION rs_catalog.datediff(part text, since time, until time) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN rs_catalog.datediff(part, date '2000-01-01' + since, date '2000-01-01' + until);

CREATE OR REPLACE FUNCTION rs_catalog.datediff(part text, since timetz, until timetz) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN rs_catalog.datediff(part, (since AT TIME ZONE 'UTC')::time, (until AT TIME ZONE 'UTC')::time);

-- Milliseconds and microseconds of the second, without the second itself, and decades that begin with the year 1:
-- https://docs.aws.amazon.com/redshift/latest/dg/r_Dateparts_for_datetime_functions.html
CREATE OR REPLACE FUNCTION rs_catalog.fraction(part text, value double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE
RETURN CASE part
    WHEN 'milliseconds' THEN mod(trunc(value)::bigint, 1000)
    WHEN 'microseconds' THEN mod(trunc(value)::bigint, 1000000)
    WHEN 'decade' THEN value + 1
    ELSE value
END;

CREATE OR REPLACE FUNCTION rs_catalog.date_part(part text, value timestamp) RETURNS double precision
LANGUAGE sql IMMUTABLE RETURN rs_catalog.fraction(part, pg_catalog.date_part(part, value));

CREATE OR REPLACE FUNCTION rs_catalog.date_part(part text, value timestamptz) RETURNS double precision
LANGUAGE sql STABLE RETURN rs_catalog.fraction(part, pg_catalog.date_part(part, value));

CREATE OR REPLACE FUNCTION rs_catalog.date_part(part text, value date) RETURNS double precision
LANGUAGE sql IMMUTABLE RETURN rs_catalog.fraction(part, pg_catalog.date_part(part, value::timestamp));

CREATE OR REPLACE FUNCTION rs_catalog.date_part(part text, value time) RETURNS double precision
LANGUAGE sql IMMUTABLE RETURN rs_catalog.fraction(part, pg_catalog.date_part(part, value));

CREATE OR REPLACE FUNCTION rs_catalog.date_part(part text, value interval) RETURNS double precision
LANGUAGE sql IMMUTABLE RETURN rs_catalog.fraction(part, pg_catalog.date_part(part, value));

CREATE OR REPLACE FUNCTION rs_catalog.date_part(part text, value timetz) RETURNS double precision
LANGUAGE sql IMMUTABLE RETURN rs_catalog.fraction(part, pg_catalog.date_part(part, value));

-- An integer, but of a time with zone: https://docs.aws.amazon.com/redshift/latest/dg/r_EXTRACT_function.html
CREATE OR REPLACE FUNCTION rs_catalog.extract(part text, value timestamp) RETURNS integer
LANGUAGE sql IMMUTABLE RETURN trunc(rs_catalog.date_part(part, value))::integer;

CREATE OR REPLACE FUNCTION rs_catalog.extract(part text, value timestamptz) RETURNS double precision
LANGUAGE sql STABLE RETURN trunc(rs_catalog.date_part(part, value));

CREATE OR REPLACE FUNCTION rs_catalog.extract(part text, value time) RETURNS integer
LANGUAGE sql IMMUTABLE RETURN trunc(rs_catalog.date_part(part, value))::integer;

CREATE OR REPLACE FUNCTION rs_catalog.extract(part text, value timetz) RETURNS integer
LANGUAGE sql IMMUTABLE RETURN trunc(rs_catalog.date_part(part, value))::integer;

CREATE OR REPLACE FUNCTION rs_catalog.extract(part text, value interval) RETURNS integer
LANGUAGE sql IMMUTABLE RETURN trunc(rs_catalog.date_part(part, value))::integer;

-- A timestamp without zone, also of a date: https://docs.aws.amazon.com/redshift/latest/dg/r_DATE_TRUNC.html
CREATE OR REPLACE FUNCTION pg_catalog.date_trunc(part text, value date) RETURNS timestamp
LANGUAGE sql IMMUTABLE RETURN pg_catalog.date_trunc(part, value::timestamp);

-- https://docs.aws.amazon.com/redshift/latest/dg/r_TRUNC_date.html
CREATE OR REPLACE FUNCTION pg_catalog.trunc(value timestamp) RETURNS date LANGUAGE sql IMMUTABLE RETURN value::date;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_LAST_DAY.html
CREATE OR REPLACE FUNCTION pg_catalog.last_day(value timestamp) RETURNS date LANGUAGE sql IMMUTABLE
RETURN (pg_catalog.date_trunc('month', value) + interval '1 month - 1 day')::date;

-- https://docs.aws.amazon.com/redshift/latest/dg/CONVERT_TIMEZONE.html: from UTC where no source zone is given
CREATE OR REPLACE FUNCTION pg_catalog.convert_timezone(source text, target text, value timestamp) RETURNS timestamp
LANGUAGE sql IMMUTABLE RETURN value AT TIME ZONE source AT TIME ZONE target;

CREATE OR REPLACE FUNCTION pg_catalog.convert_timezone(target text, value timestamp) RETURNS timestamp
LANGUAGE sql IMMUTABLE RETURN value AT TIME ZONE 'UTC' AT TIME ZONE target;

-- Text ---------------------------------------------------------------------------------------------------------------

-- https://docs.aws.amazon.com/redshift/latest/dg/r_CHARINDEX.html
CREATE OR REPLACE FUNCTION pg_catalog.charindex(part text, value text) RETURNS integer
LANGUAGE sql IMMUTABLE RETURN strpos(value, part);

-- A position before the text is its beginning: https://docs.aws.amazon.com/redshift/latest/dg/REGEXP_COUNT.html
CREATE OR REPLACE FUNCTION rs_catalog.regexp_count(
    value text, pattern text, place integer DEFAULT 1, parameters text DEFAULT 'c'
) RETURNS integer LANGUAGE sql IMMUTABLE
RETURN pg_catalog.regexp_count(value, pattern, greatest(place, 1), replace(parameters, 'p', ''));

-- Every match, and "$1" for a group: https://docs.aws.amazon.com/redshift/latest/dg/REGEXP_REPLACE.html
CREATE OR REPLACE FUNCTION rs_catalog.regexp_replace(
    value text, pattern text, replacement text, place integer, parameters text DEFAULT 'c'
) RETURNS text LANGUAGE sql IMMUTABLE
RETURN pg_catalog.regexp_replace(
    value,
    pattern,
    pg_catalog.regexp_replace(replacement, '\$(\d)', '\\\1', 'g'),
    greatest(place, 1),
    0,
    replace(parameters, 'p', '')
);

CREATE OR REPLACE FUNCTION rs_catalog.regexp_replace(value text, pattern text, replacement text DEFAULT '') RETURNS text
LANGUAGE sql IMMUTABLE RETURN rs_catalog.regexp_replace(value, pattern, replacement, 1);

-- No match is an empty text: https://docs.aws.amazon.com/redshift/latest/dg/REGEXP_SUBSTR.html
CREATE OR REPLACE FUNCTION rs_catalog.regexp_substr(
    value text, pattern text, place integer DEFAULT 1, occurrence integer DEFAULT 1, parameters text DEFAULT 'c'
) RETURNS text LANGUAGE sql IMMUTABLE STRICT
RETURN CASE
    WHEN occurrence BETWEEN 1 AND length(value) THEN coalesce(
        pg_catalog.regexp_substr(
            value,
            pattern,
            greatest(place, 1),
            occurrence,
            translate(parameters, 'ep', ''),
            (parameters LIKE '%e%' AND pattern ~ '(^|[^\\])\((?!\?)')::integer
        ),
        ''
    )
END;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_CHR.html: none for a number that is not ASCII's
CREATE OR REPLACE FUNCTION rs_catalog.chr(number integer) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE WHEN number BETWEEN 1 AND 127 THEN pg_catalog.chr(number) END;

-- https://docs.aws.amazon.com/redshift/latest/dg/r_QUOTE_LITERAL.html: for strings where backslashes escape
CREATE OR REPLACE FUNCTION rs_catalog.quote_literal(value text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN '''' || replace(replace(value, '\', '\\'), '''', '''''') || '''';

-- A cast counts bytes, and leaves characters whole: https://docs.aws.amazon.com/redshift/latest/dg/r_SUBSTRING.html
CREATE OR REPLACE FUNCTION rs_catalog.first_bytes(value text, bytes integer) RETURNS text LANGUAGE sql STABLE
RETURN CASE
    WHEN octet_length(value) <= bytes THEN value
    ELSE convert_from(
        substring(convert_to(value, 'UTF8') FROM 1 FOR CASE
            WHEN get_byte(convert_to(value, 'UTF8'), bytes) & 192 <> 128 THEN bytes
            WHEN get_byte(convert_to(value, 'UTF8'), bytes - 1) & 192 <> 128 THEN bytes - 1
            WHEN get_byte(convert_to(value, 'UTF8'), bytes - 2) & 192 <> 128 THEN bytes - 2
            ELSE bytes - 3
        END),
        'UTF8'
    )
END;

-- https://docs.aws.amazon.com/redshift/latest/dg/SHA2.html
CREATE OR REPLACE FUNCTION pg_catalog.sha2(value text, bits integer) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE bits
    WHEN 0 THEN encode(sha256(convert_to(value, 'UTF8')), 'hex')
    WHEN 224 THEN encode(sha224(convert_to(value, 'UTF8')), 'hex')
    WHEN 256 THEN encode(sha256(convert_to(value, 'UTF8')), 'hex')
    WHEN 384 THEN encode(sha384(convert_to(value, 'UTF8')), 'hex')
    WHEN 512 THEN encode(sha512(convert_to(value, 'UTF8')), 'hex')
    ELSE left(value, 0)
END;

-- https://docs.aws.amazon.com/redshift/latest/dg/IS_VALID_JSON.html
CREATE OR REPLACE FUNCTION pg_catalog.is_valid_json(value text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN pg_input_is_valid(value, 'json') AND value ~ '^\s*\{';

-- An empty text where there is no such path: https://docs.aws.amazon.com/redshift/latest/dg/JSON_EXTRACT_PATH_TEXT.html
CREATE OR REPLACE FUNCTION pg_catalog.json_extract_path_text(value text, VARIADIC path text[]) RETURNS text
LANGUAGE sql IMMUTABLE STRICT RETURN coalesce(value::json #>> path, '');

CREATE OR REPLACE FUNCTION rs_catalog.valid_json(value text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE WHEN pg_input_is_valid(value, 'json') THEN value END;

-- Numbers ------------------------------------------------------------------------------------------------------------

-- https://docs.aws.amazon.com/redshift/latest/dg/r_ROUND.html and r_TRUNC.html
CREATE OR REPLACE FUNCTION pg_catalog.round(value double precision, digits integer) RETURNS double precision
LANGUAGE sql IMMUTABLE RETURN pg_catalog.round(value::numeric, digits)::double precision;

CREATE OR REPLACE FUNCTION pg_catalog.trunc(value double precision, digits integer) RETURNS double precision
LANGUAGE sql IMMUTABLE RETURN pg_catalog.trunc(value::numeric, digits)::double precision;

-- The average of integers is a BIGINT: https://docs.aws.amazon.com/redshift/latest/dg/r_AVG.html. The states hold count
-- and sum, as those of PostgreSQL's own aggregates.
CREATE OR REPLACE FUNCTION rs_catalog.avg_add(state numeric[], value bigint) RETURNS numeric[]
LANGUAGE sql IMMUTABLE STRICT RETURN ARRAY[state[1] + 1, state[2] + value];

CREATE OR REPLACE FUNCTION rs_catalog.avg_result(state numeric[]) RETURNS bigint
LANGUAGE sql IMMUTABLE RETURN trunc(state[2] / nullif(state[1], 0))::bigint;

CREATE OR REPLACE FUNCTION rs_catalog.avg_result(state bigint[]) RETURNS bigint
LANGUAGE sql IMMUTABLE RETURN state[2] / nullif(state[1], 0);

CREATE OR REPLACE AGGREGATE rs_catalog.avg(smallint) (
    SFUNC = int2_avg_accum, STYPE = bigint[], INITCOND = '{0,0}', FINALFUNC = rs_catalog.avg_result
);
CREATE OR REPLACE AGGREGATE rs_catalog.avg(integer) (
    SFUNC = int4_avg_accum, STYPE = bigint[], INITCOND = '{0,0}', FINALFUNC = rs_catalog.avg_result
);
CREATE OR REPLACE AGGREGATE rs_catalog.avg(bigint) (
    SFUNC = rs_catalog.avg_add, STYPE = numeric[], INITCOND = '{0,0}', FINALFUNC = rs_catalog.avg_result
);
CREATE OR REPLACE AGGREGATE rs_catalog.avg(numeric) (
    SFUNC = numeric_avg_accum, STYPE = internal, FINALFUNC = numeric_avg
);
CREATE OR REPLACE AGGREGATE rs_catalog.avg(double precision) (
    SFUNC = float8_accum, STYPE = float8[], INITCOND = '{0,0,0}', FINALFUNC = float8_avg
);

-- A percentile of decimals, in decimals: https://docs.aws.amazon.com/redshift/latest/dg/r_PERCENTILE_CONT.html
CREATE OR REPLACE FUNCTION rs_catalog.percentile_cont(ungrouped numeric[], fraction numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
    SELECT CASE
        WHEN floor(place) = ceil(place) THEN sorted[place::integer]
        ELSE (ceil(place) - place) * sorted[floor(place)::integer] + (place - floor(place)) * sorted[ceil(place)::integer]
    END
    FROM (
        SELECT array_agg(element ORDER BY element) AS sorted, 1 + fraction * (count(*) - 1) AS place
        FROM unnest(ungrouped) AS element
        WHERE element IS NOT NULL
    ) AS numbered;
END;

CREATE OR REPLACE FUNCTION rs_catalog.median(ungrouped numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE
RETURN rs_catalog.percentile_cont(ungrouped, 0.5);

CREATE OR REPLACE FUNCTION rs_catalog.median(ungrouped double precision[]) RETURNS double precision
LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY element) FROM unnest(ungrouped) AS element;
END;

-- Aggregates that can also be window functions, unlike PostgreSQL's
CREATE OR REPLACE AGGREGATE rs_catalog.median(numeric) (
    SFUNC = array_append, STYPE = numeric[], FINALFUNC = rs_catalog.median
);
CREATE OR REPLACE AGGREGATE rs_catalog.median(double precision) (
    SFUNC = array_append, STYPE = double precision[], FINALFUNC = rs_catalog.median
);

-- Texts in a row, but empty ones: https://docs.aws.amazon.com/redshift/latest/dg/r_LISTAGG.html
CREATE OR REPLACE FUNCTION rs_catalog.listagg(elements anyarray, separator text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    list text := nullif(array_to_string(array_remove(elements::text[], ''), separator), '');
BEGIN
    IF octet_length(list) > 65535 THEN
        RAISE EXCEPTION 'Result size exceeds LISTAGG limit' USING ERRCODE = 'XX000';
    END IF;
    RETURN list;
END;
$$;
