-- Two roles for a ledger in PostgreSQL: one that owns its tables, and one that the servers run as,
-- which can add to the history and cannot change or delete what is in it.
--
--     psql -d keyledger -f postgresql-roles.sql
--
-- The owner makes the ledger, upgrades it and rebuilds projections; the servers do all the rest.
--
-- To be run by a superuser, connected to the ledger's database: before the ledger is made, again
-- after it was made, and again after each upgrade, since what the servers may do with a new table is
-- granted here. Running it once more changes nothing. Neither role gets a password: give each one
-- with \password. For other names: psql -v owner=NAME -v server=NAME -v schema=NAME ...

\set ON_ERROR_STOP on
\if :{?owner}
\else
    \set owner keyledger_owner
\endif
\if :{?server}
\else
    \set server keyledger_server
\endif
\if :{?schema}
\else
    \set schema public
\endif

SET client_min_messages = warning;
BEGIN;

SELECT format('CREATE ROLE %I LOGIN', role)
FROM unnest(ARRAY[:'owner', :'server']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role)
\gexec

-- Nobody else is let in, and nobody makes tables beside the owner.
SELECT current_database() AS database
\gset
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"owner", :"server";
CREATE SCHEMA IF NOT EXISTS :"schema";
REVOKE ALL ON SCHEMA :"schema" FROM PUBLIC, :"server";
GRANT USAGE, CREATE ON SCHEMA :"schema" TO :"owner";
GRANT USAGE ON SCHEMA :"schema" TO :"server";

-- What another role has made until now is the owner's from now on.
SELECT format('ALTER TABLE %I.%I OWNER TO %I', schemaname, tablename, :'owner')
FROM pg_tables
WHERE schemaname = :'schema' AND tableowner <> :'owner'
\gexec

-- A schema for the tables that a server compares the projections with, which it drops again. It is
-- the last one looked into, so that nothing in it stands in for a table of the ledger, as long as the
-- server leaves its settings alone; docs/operations.md says how a URL sees to that.
CREATE SCHEMA IF NOT EXISTS :"server";
GRANT USAGE, CREATE ON SCHEMA :"server" TO :"server";
ALTER ROLE :"owner" IN DATABASE :"database" SET search_path = :"schema";
ALTER ROLE :"server" IN DATABASE :"database" SET search_path = :"schema", :"server";

-- A server reads every table. Writing is granted below, to each table by name and where possible to
-- single columns; a rebuild of a projection copies these grants to the new table.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema"
    REVOKE INSERT ON TABLES FROM :"server";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema"
    GRANT SELECT ON TABLES TO :"server";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema"
    GRANT USAGE ON SEQUENCES TO :"server";
-- To revoke a privilege on a table also revokes it on each of the table's columns.
REVOKE ALL ON ALL TABLES IN SCHEMA :"schema" FROM :"server";
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO :"server";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA :"schema" TO :"server";

-- What the program writes, and nothing else. Events, entries and checkpoints can only be added, and the
-- server does not choose the position of an event. No role but the owner writes alembic_version
-- (the version of the tables) and ledger_secret (which secret the seals are made with).
WITH written AS (
    SELECT * FROM (VALUES
        -- The views: `make docs` writes these lines.
        ('key_list', 'INSERT, UPDATE (name, scopes, status, expires_at, revoked_at, revoked_by_type,'
            ' revoked_by_id, revoke_reason, rotated_to, version)'),
        ('auth_lookup', 'INSERT, UPDATE (name, scopes, expires_at, revoked, expired, version, seal)'),
        ('entries', 'INSERT'),
        ('key_versions', 'INSERT, UPDATE (held_until)'),
        -- All other tables.
        ('events', 'INSERT (originator_id, originator_version, topic, state, seal)'),
        ('checkpoints', 'INSERT'),
        ('key_digests', 'INSERT, UPDATE (pepper_id, digest, seal)'),
        ('last_uses', 'INSERT, UPDATE (used_at)'),
        ('projection_states', 'INSERT (table_name, view_version, generation, position, filled_to),'
            ' UPDATE (position, filled_to), DELETE'),
        ('console_sessions', 'INSERT, UPDATE (used_at, seal), DELETE'),
        ('last_attestation', 'INSERT, DELETE')
    ) AS may (name, privileges)
)
SELECT format(
    'GRANT %s ON %I.%I TO %I',
    regexp_replace(privileges, '\s+', ' ', 'g'), schemaname, tablename, :'server'
)
FROM written
JOIN pg_tables ON schemaname = :'schema' AND tablename = name
ORDER BY name
\gexec

COMMIT;
