"""The durable tables: those that are not derived from events and so cannot be rebuilt.

Views create their own tables, because a view can be replayed. The durable tables are changed only
by the migrations under ``projections/store/migrations``.
"""

from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError

from domain.errors import LedgerError
from projections.store.column_types import aggregate_id, big_integer, text
from projections.store.database import (
    Database,
    check_granted,
    check_owner,
    lift_timeouts,
    take_schema_lock,
)

HEAD = "0007"
"""The schema revision that this version of the program needs."""

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("id", big_integer, primary_key=True),
    Column("originator_id", aggregate_id, nullable=False),
    Column("originator_version", big_integer, nullable=False),
    Column("topic", text(), nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("seal", LargeBinary(32), nullable=True),
)
Index("events_aggregate_idx", events.c.originator_id, events.c.originator_version, unique=True)
"""The event store. Replays read it, and only the recorder appends to it. ``seal`` is NULL only in a
database that an older version of the program created, until its events are sealed."""

key_digests = Table(
    "key_digests",
    metadata,
    Column("lookup_id", text(16), primary_key=True),
    Column("pepper_id", text(16), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("seal", LargeBinary(32), nullable=True),
)
"""Digests of secrets. Not a projection, because events hold no secrets; if lost, verification is
slower at first."""

last_uses = Table(
    "last_uses",
    metadata,
    Column("position", big_integer, primary_key=True, autoincrement=False),
    Column("used_at", text(27), nullable=False),
)
"""Last use of each key, to the minute. Not a projection, because a use is not an event. A key is
named by the position of its first event, as in views; a key that was never used has no row."""

console_sessions = Table(
    "console_sessions",
    metadata,
    Column("value_sha256", LargeBinary(32), primary_key=True),
    Column("key_id", text(43), nullable=False),
    Column("lookup_id", text(16), nullable=False),
    Column("created_at", text(27), nullable=False),
    Column("expires_at", text(27), nullable=False),
    Column("used_at", text(27), nullable=False),
    Column("seal", LargeBinary(32), nullable=True),
)
"""Console sessions; if they are lost, everybody signs in again."""

projection_states = Table(
    "projection_states",
    metadata,
    Column("table_name", text(63), primary_key=True),
    Column("view_version", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("position", big_integer, nullable=False),
    Column("completed_at", text(27), nullable=True),
    Column("filled_to", big_integer, nullable=True),
)
"""How far the table of each view has been filled; the shadow table of a rebuild has its own row.

A new table is first filled key by key, with all events of each key up to ``position``. Until all
keys are in, ``filled_to`` is the position of the first event of the last key; then it is ``NULL``.

``generation`` counts rebuilds of the view's table, and ``completed_at`` is the time of the last
one. ``view_version`` is the version of the code that fills the table.
"""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("origin", text(255), primary_key=True),
    Column("size", big_integer, primary_key=True, autoincrement=False),
    Column("note", text(), nullable=False),
    Column("signed_at", text(27), nullable=False),
)
"""Signed checkpoints, also kept in the file outside the database. Not a projection, because events
hold no signatures."""

last_attestation = Table(
    "last_attestation",
    metadata,
    Column("finished_at", text(27), primary_key=True),
    Column("position", big_integer, nullable=False),
    Column("events", big_integer, nullable=False),
    Column("entries", big_integer, nullable=False),
    Column("keys", big_integer, nullable=False),
    Column("checkpoints", big_integer, nullable=False),
    Column("findings", big_integer, nullable=False),
    Column("listed", LargeBinary, nullable=False),
    Column("seal", LargeBinary(32), nullable=True),
)
"""The result of the last integrity check, in one row; ``listed`` is JSON. If it is lost, the next
check runs at once."""

ledger_secret = Table(
    "ledger_secret",
    metadata,
    Column("secret_id", text(16), primary_key=True),
    Column("seal", LargeBinary(32), nullable=False),
)
"""The id of the secret that this ledger's seals are made with, in one row."""

_MAKE = "keyledger keys create --workspace root --name root --scopes '*'"
_UPGRADE = "keyledger projections status"

_revision = Table("alembic_version", MetaData(), Column("version_num", String(32)))


class UnknownSchema(LedgerError):
    """The database was created by a version of the program that this one does not know."""

    code = "UNKNOWN_SCHEMA"


def upgrade_schema(database: Database) -> None:
    """Migrate the durable tables to this version in one transaction.

    Several processes may call this at the same time; the first one does the work.

    Raises:
        UnknownSchema: the database belongs to a newer version, or is not a ledger. Nothing in it
            is changed.
        NotOwner: a migration is needed, and only the owner of the tables may run it.
    """
    with database.read() as connection:
        if current_revision(connection) == HEAD:
            return
    with database.write() as connection:
        take_schema_lock(connection)
        found = current_revision(connection)
        if found == HEAD:
            return
        check_owner(connection, _MAKE if found is None else _UPGRADE)
        if found is None and inspect(connection).get_table_names():
            message = (
                f"{database.name} has tables, but no revision of Keyledger: use an empty database"
                " or one with a ledger"
            )
            raise UnknownSchema(message)
        lift_timeouts(connection)
        try:
            _run_migrations(connection, found, database.name)
        except DBAPIError as error:
            check_granted(error)
            message = (
                f"{database.name} says that it has revision {found}, but its tables cannot be"
                f" upgraded to {HEAD}: the tables or the revision were changed; restore a backup"
            )
            raise UnknownSchema(message) from error


def has_ledger(database: Database) -> bool:
    """Return whether a database contains a ledger, of any revision.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    with database.read() as connection:
        return current_revision(connection) is not None


def current_revision(connection: Connection) -> str | None:
    """Return the revision of the durable tables; ``None`` if there are no tables."""
    if not inspect(connection).has_table(_revision.name):
        return None
    return connection.scalar(select(_revision.c.version_num))


def _run_migrations(connection: Connection, found: str | None, name: str) -> None:
    # Imported lazily: nearly every start finds the schema up to date.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        message = (
            f"{name} has revision {found}, which this version of Keyledger does not know (up to"
            f" {HEAD}): run the newer version that created it"
        )
        raise UnknownSchema(message)
    command.upgrade(config, HEAD)
