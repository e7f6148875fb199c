"""The durable tables: what is not derived from events, and cannot be thrown away.

The views make their own tables, for a view can be replayed; these can only be migrated, by the
steps under ``projections/store/migrations``.
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
    take_as_long_as_needed,
    take_schema_lock,
)

HEAD = "0007"
"""The revision that this version of the program works with."""

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
"""The event store, as read by replays; appended to by the recorder alone. ``seal`` is NULL only in
a database that an older version of the program made, until it is sealed."""

key_digests = Table(
    "key_digests",
    metadata,
    Column("lookup_id", text(16), primary_key=True),
    Column("pepper_id", text(16), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("seal", LargeBinary(32), nullable=True),
)
"""Digests of secrets: no projection, for no event has a secret. Can be lost at the cost of time."""

last_uses = Table(
    "last_uses",
    metadata,
    Column("position", big_integer, primary_key=True, autoincrement=False),
    Column("used_at", text(27), nullable=False),
)
"""When each key was last used, to the minute: no projection, for a use is no event. A key is named
by the position of its first event, as in the views; one that was never used has no row."""

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
"""Who is signed in to the console; can be lost, and everybody signs in again."""

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
"""How far each view's table has come; a rebuild's shadow table has a row of its own.

A new table is first filled key by key, each with all its events up to ``position``; ``filled_to``
is the position of the first event of the last key in it, and ``NULL`` when all are.

``generation`` counts how often the view's table was made anew, ``completed_at`` says when it last
was; ``view_version`` is the version of the code that fills it.
"""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("origin", text(255), primary_key=True),
    Column("size", big_integer, primary_key=True, autoincrement=False),
    Column("note", text(), nullable=False),
    Column("signed_at", text(27), nullable=False),
)
"""The signed checkpoints, as they are in the file outside the database too: no projection, for no
event has a signature."""

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
"""What the last attestation found, in one row, of which ``listed`` is JSON; can be lost, and the
next attestation is made at once."""

ledger_secret = Table(
    "ledger_secret",
    metadata,
    Column("secret_id", text(16), primary_key=True),
    Column("seal", LargeBinary(32), nullable=False),
)
"""The id of the secret that the seals of this ledger are made with, in one row."""

_MAKE = "keyledger keys create --workspace root --name root --scopes '*'"
_UPGRADE = "keyledger projections status"

_revision = Table("alembic_version", MetaData(), Column("version_num", String(32)))


class UnknownSchema(LedgerError):
    """The database was made by a version of the program that this one does not know."""

    code = "UNKNOWN_SCHEMA"


def upgrade_schema(database: Database) -> None:
    """Bring the durable tables to this version, all the way or not at all.

    Several processes may do it at the same time: the first does the work.

    Raises:
        UnknownSchema: the database belongs to a newer version, or is none of ours. What is in it
            is left exactly as it was.
        NotOwner: it is not at this version, and only the owner of the tables may bring it there.
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
                f"{database.name} has tables, but none of Keyledger's revisions; give an empty"
                " database or a ledger's"
            )
            raise UnknownSchema(message)
        take_as_long_as_needed(connection)
        try:
            _run_migrations(connection, found, database.name)
        except DBAPIError as error:
            check_granted(error)
            message = (
                f"{database.name} says that it is at revision {found}, and its tables cannot be"
                f" brought from there to {HEAD}: they are not those of that revision, or the"
                " revision was changed; restore a backup"
            )
            raise UnknownSchema(message) from error


def has_ledger(database: Database) -> bool:
    """Tell whether there is a ledger in a database, of whatever revision.

    Raises:
        LedgerUnavailable: it cannot be asked.
    """
    with database.read() as connection:
        return current_revision(connection) is not None


def current_revision(connection: Connection) -> str | None:
    """Return the revision of the durable tables; ``None`` where there are none."""
    if not inspect(connection).has_table(_revision.name):
        return None
    return connection.scalar(select(_revision.c.version_num))


def _run_migrations(connection: Connection, found: str | None, name: str) -> None:
    # Imported when needed: nearly every start finds its database up to date.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        message = (
            f"{name} is at revision {found}, which this version of Keyledger does not know (it"
            f" knows up to {HEAD}); run the newer version that made it"
        )
        raise UnknownSchema(message)
    command.upgrade(config, HEAD)
