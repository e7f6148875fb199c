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

-- Adding to whatever table there will be; what else is granted by name is copied by a rebuild.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema"
    GRANT SELECT, INSERT ON TABLES TO :"server";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema"
    GRANT USAGE ON SEQUENCES TO :"server";
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO :"server";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA :"schema" TO :"server";

-- The history, its entries and what was signed of them only grow.
WITH grown AS (
    SELECT * FROM (VALUES
        ('events', 'INSERT'),
        ('entries', 'INSERT'),
        ('checkpoints', 'INSERT'),
        ('key_list', 'INSERT, UPDATE'),
        ('auth_lookup', 'INSERT, UPDATE'),
        ('key_versions', 'INSERT, UPDATE'),
        ('key_digests', 'INSERT, UPDATE'),
        ('last_uses', 'INSERT, UPDATE'),
        ('projection_states', 'INSERT, UPDATE, DELETE'),
        ('console_sessions', 'INSERT, UPDATE, DELETE'),
        ('last_attestation', 'INSERT, UPDATE, DELETE'),
        -- Which secret the seals are made with is the owner's to say.
        ('ledger_secret', 'SELECT')
    ) AS may (name, privileges)
)
SELECT format(statement, schemaname, tablename, privileges, :'server')
FROM grown
JOIN pg_tables ON schemaname = :'schema' AND tablename = name,
unnest(ARRAY[
    'REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON %1$I.%2$I FROM %4$I',
    'GRANT %3$s ON %1$I.%2$I TO %4$I'
]) WITH ORDINALITY AS each (statement, place)
ORDER BY name, place
\gexec

-- The number that tells which version made the tables is the owner's to change.
SELECT format('REVOKE INSERT ON %I.alembic_version FROM %I', schemaname, :'server')
FROM pg_tables
WHERE schemaname = :'schema' AND tablename = 'alembic_version'
\gexec

COMMIT;
