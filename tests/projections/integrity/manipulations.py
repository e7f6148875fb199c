"""Ways to change a database by SQL, past all that the program does.

Each column of each table has one, generated from the definitions of the tables; the rest are
attacks with a name.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import URL, Column, Integer, LargeBinary

from domain.tokens import parse
from projections.integrity.schema_check import TABLES
from tests.engines import POSTGRESQL, SQLITE, address_of
from tests.raw_sql import as_dicts, edit_row, last_row_at, plant_row, raw, sql

LATER = "2099-01-01T00:00:00.000000Z"
PLANTED = "c2Vzc2lvbi1wbGFudGVkLWJ5LWFuLWF0dGFja2VyLSE"
"""The value of a session that somebody plants."""

BOTH = (SQLITE, POSTGRESQL)


@dataclass(frozen=True)
class Victim:
    """A ledger to be manipulated.

    Args:
        tokens: of its keys, by their names; the attacker has that of ``mine``.
        key_ids: of its keys.
        positions: of the first events of its keys.
    """

    place: Path
    tokens: dict[str, str]
    key_ids: dict[str, str]
    positions: dict[str, int]

    def lookup_id(self, name: str) -> str:
        token = parse(self.tokens[name])
        assert token is not None
        return token.lookup_id

    def run(self, statement: str, *parameters: object) -> None:
        for each in statement.split(";"):
            sql(address_of(self.place), each, *parameters)

    @property
    def checkpoints_file(self) -> Path:
        return self.place / "checkpoints.txt"


@dataclass(frozen=True)
class Manipulation:
    """A way to change a database.

    Args:
        name: what is done.
        act: does it.
        named: what a finding or a refusal has to say, one of these.
        harmless: why it need not be found.
        engines: where it can be done.
        by_doctor: whether ``keyledger doctor`` has to find it too.
    """

    name: str
    act: Callable[[Victim], None]
    named: tuple[str, ...] = ()
    harmless: str | None = None
    engines: tuple[str, ...] = BOTH
    by_doctor: bool = False

    def __str__(self) -> str:
        return self.name


NAMES = {
    "events": ("event at position", "entry "),
    "entries": ("entry ", "in entries"),
    "checkpoints": ("checkpoint",),
    "console_sessions": ("session",),
    "alembic_version": ("revision",),
    "key_digests": ("digest",),
    "ledger_secret": ("ledger_secret", "sealed with another secret", "sealed with the secret"),
}
"""What a finding about a row calls it; else it has the name of the table."""

COSTS_TIME = "the secret is then proved by its verifier, which costs time and nothing else"
SHOWN = "it is shown to people and decides nothing"
HARMLESS = {
    "last_uses.position": "a use of a key is no event, and no verdict depends on it",
    "last_uses.used_at": "a use of a key is no event; one of the future is found",
    "key_digests.lookup_id": COSTS_TIME,
    "key_digests.pepper_id": COSTS_TIME,
    "key_digests.digest": COSTS_TIME,
    "projection_states.view_version": "the projection is built again when the ledger is opened",
    "projection_states.generation": "it gives new indexes their names",
    "projection_states.completed_at": SHOWN,
    "checkpoints.signed_at": SHOWN,
}
"""Columns whose change need not be found, and why not."""


def changed(value: object) -> object:
    """Return another value that a column takes as well."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1000
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:] if value else b"x"
    text = str(value)
    if text.endswith("Z") and text[4:5] == "-":
        return text.replace("2026-", "2025-")
    return f"{text[:-1]}{'x' if text[-1:] != 'x' else 'y'}"


def change_column(table: str, column: str) -> Callable[[Victim], None]:
    """Return what changes one value of a column, in the table's first row."""
    return lambda victim: change_value(address_of(victim.place), table, column)


def change_value(address: URL, table: str, column: str) -> None:
    """Change one value of a column, in the table's first row."""
    with raw(address) as connection:
        found = connection.execute(f"SELECT * FROM {table} ORDER BY 1 LIMIT 1")  # noqa: S608
        names = [each[0] for each in found.description]
        row = dict(zip(names, found.fetchone(), strict=True))
    keys = [each.name for each in next(t for t in TABLES if t.name == table).primary_key]
    where = " AND ".join(f"{key} = ?" for key in keys)
    with raw(address) as connection:
        updated = connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE {where}",  # noqa: S608 - names from here
            [_other(table, column, row[column]), *(row[key] for key in keys)],
        )
        assert updated.rowcount == 1


def _other(table: str, column: str, value: object) -> object:
    if column == "originator_id" and isinstance(value, bytes):
        return UUID(bytes=bytes([value[0] ^ 1]) + value[1:])
    if (table, column) in {("auth_lookup", "revoked"), ("auth_lookup", "expired")}:
        return not value
    if value is None:
        return _in_place_of_null(next(t for t in TABLES if t.name == table).c[column])
    return changed(value)


def _in_place_of_null(column: Column[Any]) -> object:
    """Return a value that the column takes on every engine."""
    if isinstance(column.type, Integer):
        return 1
    if isinstance(column.type, LargeBinary):
        return b"x"
    longest = getattr(column.type, "length", None)
    return "2026-03-03T11:00:00.000000Z" if column.name.endswith("_at") else "planted"[:longest]


def of_every_column() -> Iterator[Manipulation]:
    """Yield a change of each column of each table, a third of them on PostgreSQL too.

    Both engines compare the same values in the same code, so PostgreSQL need not repeat all of it.
    """
    for table in TABLES:
        for number, column in enumerate(table.c):
            name = f"{table.name}.{column.name}"
            yield Manipulation(
                f"change {name}",
                change_column(table.name, column.name),
                NAMES.get(table.name, (table.name,)),
                HARMLESS.get(name),
                engines=BOTH if number % 3 == 0 else (SQLITE,),
                by_doctor=table.name in {"alembic_version", "ledger_secret"},
            )


def statement(text: str) -> Callable[[Victim], None]:
    """Return what runs one statement, or several with a semicolon between them."""

    def act(victim: Victim) -> None:
        victim.run(text.format(**{f"{name}": value for name, value in victim.positions.items()}))

    return act


def _copy_digest(victim: Victim) -> None:
    digest = "SELECT digest FROM key_digests WHERE lookup_id = ?"
    ((mine,),) = sql(address_of(victim.place), digest, victim.lookup_id("mine"))
    victim.run("DELETE FROM key_digests WHERE lookup_id = ?", victim.lookup_id("root"))
    plant_row(
        address_of(victim.place),
        "key_digests",
        lookup_id=victim.lookup_id("root"),
        digest=mine,
    )


def _copy_verifier(victim: Victim) -> None:
    victim.run("DELETE FROM key_digests")
    verifier = "(SELECT verifier FROM auth_lookup WHERE position = {mine})"
    text = f"UPDATE auth_lookup SET verifier = {verifier} WHERE position = {{root}}"  # noqa: S608 - text from here
    statement(text)(victim)


def _plant_session(victim: Victim) -> None:
    row = {
        "value_sha256": sha256(PLANTED.encode()).digest(),
        "key_id": victim.key_ids["root"],
        "lookup_id": victim.lookup_id("root"),
        "expires_at": LATER,
        "used_at": LATER,
    }
    plant_row(address_of(victim.place), "console_sessions", **row)


def _put_back_old_row(victim: Victim) -> None:
    """Let a key that was narrowed have the scopes again that its first event gave it."""
    address = address_of(victim.place)
    edit_row(
        address,
        "auth_lookup",
        last_row_at(address, "auth_lookup", victim.positions["narrowed"]),
        scopes='["mcp:read","mcp:write"]',
    )


def _move_row(victim: Victim) -> None:
    """Give the attacker's lookup id the row of the root key, seal and all."""
    address = address_of(victim.place)
    row = next(
        each
        for each in as_dicts(address, "auth_lookup")
        if each["position"] == victim.positions["root"]
    )
    mine = victim.lookup_id("mine")
    ((verifier,),) = sql(address, "SELECT verifier FROM auth_lookup WHERE lookup_id = ?", mine)
    victim.run("DELETE FROM key_digests")
    sql(address, "DELETE FROM auth_lookup WHERE lookup_id = ?", mine)
    position = last_row_at(address, "auth_lookup", victim.positions["root"])
    edit_row(address, "auth_lookup", position, lookup_id=mine, verifier=verifier)
    assert row["workspace"] == "root"


def _plant_attestation(victim: Victim) -> None:
    address = address_of(victim.place)
    plant_row(address, "last_attestation", finished_at=LATER, findings=0)


def _plant_checkpoint(victim: Victim) -> None:
    plant_row(address_of(victim.place), "checkpoints", size=1, signed_at=LATER)


def _plant_event(victim: Victim) -> None:
    address = address_of(victim.place)
    sql(
        address,
        "INSERT INTO events SELECT (SELECT max(id) + 1 FROM events), originator_id, 99, topic,"
        " state, seal FROM events WHERE id = 1",
    )


def _cut_file(victim: Victim) -> None:
    file = victim.checkpoints_file
    notes = file.read_text().split("\n\n")
    file.write_text("\n\n".join(notes[:-2]) + "\n\n")


def _lose_note_in_the_middle(victim: Victim) -> None:
    file = victim.checkpoints_file
    notes = file.read_text().split("\n\n")
    # A note has an empty line of its own.
    file.write_text("\n\n".join([*notes[:2], *notes[4:]]))


def _lose_file(victim: Victim) -> None:
    victim.checkpoints_file.unlink()


_NOTHING = "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
_ON_SQLITE = (SQLITE,)
_ON_POSTGRESQL = (POSTGRESQL,)


def _trigger(victim: Victim) -> None:
    address = address_of(victim.place)
    if address.get_backend_name() == SQLITE:
        act = "BEGIN UPDATE auth_lookup SET revoked = 0; END"
        sql(address, f"CREATE TRIGGER planted AFTER UPDATE ON auth_lookup {act}")
    else:
        sql(address, _NOTHING)
        act = "FOR EACH ROW EXECUTE FUNCTION nothing()"
        sql(address, f"CREATE TRIGGER planted BEFORE UPDATE ON auth_lookup {act}")


def _trigger_on_another_table(victim: Victim) -> None:
    sql(address_of(victim.place), "CREATE TABLE other (id int)")
    act = "BEGIN DELETE FROM events; END"
    sql(address_of(victim.place), f"CREATE TRIGGER planted AFTER INSERT ON other {act}")


def _drop_version_index(victim: Victim) -> None:
    sql(address_of(victim.place), "DROP INDEX events_aggregate_idx")


NAMED = (
    Manipulation("copy a digest to the root key", _copy_digest, harmless="it fits no other key"),
    Manipulation("delete all digests", statement("DELETE FROM key_digests"), harmless=COSTS_TIME),
    Manipulation("copy a verifier to the root key", _copy_verifier, ("auth_lookup",)),
    Manipulation("plant a session of the root key", _plant_session, ("session",)),
    Manipulation(
        "let a session never end",
        statement(
            "UPDATE console_sessions SET expires_at = '2099-01-01T00:00:00.000000Z',"
            " used_at = '2099-01-01T00:00:00.000000Z'"
        ),
        ("session",),
    ),
    Manipulation(
        "clear the mark of a revoked key",
        statement("UPDATE auth_lookup SET revoked = 0 = 1 WHERE position = {revoked}"),
        ("auth_lookup",),
    ),
    Manipulation(
        "clear the mark of an expired key",
        statement(
            "UPDATE auth_lookup SET expired = 0 = 1, expires_at = NULL WHERE position = {expired}"
        ),
        ("auth_lookup",),
    ),
    Manipulation(
        "widen scopes",
        statement("""UPDATE auth_lookup SET scopes = '["*"]' WHERE position = {mine}"""),
        ("auth_lookup",),
    ),
    Manipulation(
        "move a key to the root workspace",
        statement("UPDATE auth_lookup SET workspace = 'root' WHERE position = {mine}"),
        ("auth_lookup",),
    ),
    Manipulation("put an old row back", _put_back_old_row, ("auth_lookup",)),
    Manipulation("give a lookup id the row of another key", _move_row, ("auth_lookup",)),
    Manipulation(
        "delete a row of the auth lookup",
        statement("DELETE FROM auth_lookup WHERE position = {other}"),
        ("auth_lookup",),
    ),
    Manipulation(
        "delete the revocation",
        statement(
            "DELETE FROM events WHERE topic = 'ApiKey.Revoked';"
            "UPDATE auth_lookup SET revoked = 0 = 1 WHERE position = {revoked}"
        ),
        ("entry ",),
    ),
    Manipulation(
        "delete the last event",
        statement("DELETE FROM events WHERE id = (SELECT max(id) FROM events)"),
        ("entry ",),
    ),
    Manipulation(
        "delete the last event with all that was made of it",
        statement(
            "DELETE FROM entries WHERE position = (SELECT max(id) FROM events);"
            "DELETE FROM events WHERE id = (SELECT max(id) FROM events)"
        ),
        ("checkpoint", "key_list", "auth_lookup"),
    ),
    Manipulation("plant an event", _plant_event, ("event at position",)),
    Manipulation(
        "let two events change places",
        statement(
            "UPDATE events SET id = -2 WHERE id = 2; UPDATE events SET id = 2 WHERE id = 3;"
            "UPDATE events SET id = 3 WHERE id = -2"
        ),
        ("entry ", "event at position"),
    ),
    Manipulation(
        "delete an entry", statement("DELETE FROM entries WHERE leaf_index = 2"), ("ent",)
    ),
    Manipulation("delete all entries", statement("DELETE FROM entries"), ("entry", "checkpoint")),
    Manipulation("delete all events", statement("DELETE FROM events"), ("entry ",)),
    Manipulation(
        "delete a checkpoint",
        statement("DELETE FROM checkpoints WHERE size = (SELECT min(size) FROM checkpoints)"),
        ("checkpoint",),
    ),
    Manipulation("delete all checkpoints", statement("DELETE FROM checkpoints"), ("checkpoint",)),
    Manipulation("plant a checkpoint of 2099", _plant_checkpoint, ("checkpoint",)),
    Manipulation(
        "let a checkpoint be signed in 2099",
        statement("UPDATE checkpoints SET signed_at = '2099-01-01T00:00:00.000000Z'"),
        ("signed_at", "checkpoints"),
    ),
    Manipulation(
        "exchange the note of a checkpoint",
        statement(
            "UPDATE checkpoints SET note = (SELECT note FROM checkpoints ORDER BY size LIMIT 1)"
        ),
        ("checkpoint",),
    ),
    Manipulation("plant the last check in 2099", _plant_attestation, ("last_attestation",)),
    Manipulation(
        "let the last check end in 2099",
        statement("UPDATE last_attestation SET finished_at = '2099-01-01T00:00:00.000000Z'"),
        ("last_attestation",),
    ),
    Manipulation(
        "delete the last check",
        statement("DELETE FROM last_attestation"),
        harmless="the next one comes at once",
    ),
    Manipulation(
        "let a key be used in 2099",
        statement("UPDATE last_uses SET used_at = '2099-01-01T00:00:00.000000Z'"),
        ("last_uses",),
    ),
    Manipulation(
        "set a projection back",
        statement("UPDATE projection_states SET position = 1 WHERE table_name = 'auth_lookup'"),
        ("projection_states",),
    ),
    Manipulation(
        "let a projection be half filled",
        statement("UPDATE projection_states SET filled_to = 2 WHERE table_name = 'auth_lookup'"),
        ("projection_states",),
    ),
    Manipulation(
        "let a projection be rebuilt in 2099",
        statement("UPDATE projection_states SET completed_at = '2099-01-01T00:00:00.000000Z'"),
        ("projection_states",),
    ),
    Manipulation(
        "let a projection be of no generation",
        statement("UPDATE projection_states SET generation = -1"),
        ("projection_states",),
    ),
    Manipulation(
        "plant the state of a table that is none",
        lambda victim: plant_row(
            address_of(victim.place), "projection_states", table_name="planted"
        ),
        ("projection_states",),
    ),
    Manipulation(
        "set the revision back",
        statement("UPDATE alembic_version SET version_num = '0001'"),
        ("revision",),
        by_doctor=True,
    ),
    Manipulation(
        "set a revision that nobody knows",
        statement("UPDATE alembic_version SET version_num = '9999'"),
        ("revision",),
        by_doctor=True,
    ),
    Manipulation("plant a trigger", _trigger, ("trigger planted",), by_doctor=True),
    Manipulation(
        "drop the index of versions", _drop_version_index, ("unique index",), by_doctor=True
    ),
    Manipulation(
        "put a view in place of a table",
        statement(
            "ALTER TABLE auth_lookup RENAME TO kept;CREATE VIEW auth_lookup AS SELECT * FROM kept"
        ),
        ("it is a view",),
        by_doctor=True,
    ),
    Manipulation(
        "put a view in place of a durable table",
        statement(
            "ALTER TABLE last_uses RENAME TO kept;CREATE VIEW last_uses AS SELECT * FROM kept"
        ),
        ("it is a view",),
        by_doctor=True,
    ),
    Manipulation(
        "drop a table",
        statement("DROP TABLE key_digests"),
        ("key_digests: it is missing",),
        by_doctor=True,
    ),
    Manipulation(
        "add a column",
        statement("ALTER TABLE auth_lookup ADD COLUMN more INTEGER"),
        ("its column more",),
        by_doctor=True,
    ),
    Manipulation(
        "drop a column",
        statement("ALTER TABLE key_list DROP COLUMN revoke_reason"),
        ("its column revoke_reason is missing",),
        by_doctor=True,
    ),
    Manipulation(
        "add an index",
        statement("CREATE INDEX planted ON last_uses (used_at)"),
        ("planted",),
        by_doctor=True,
    ),
    Manipulation(
        "plant a trigger on a table of no projection",
        _trigger_on_another_table,
        ("trigger planted",),
        engines=_ON_SQLITE,
        by_doctor=True,
    ),
    *(
        Manipulation(name, statement(text), named, engines=_ON_POSTGRESQL, by_doctor=True)
        for name, text, named in (
            (
                "let a rule do nothing instead",
                "CREATE RULE planted AS ON UPDATE TO auth_lookup DO INSTEAD NOTHING",
                ("rule planted",),
            ),
            (
                "hide rows by row-level security",
                "ALTER TABLE events ENABLE ROW LEVEL SECURITY",
                ("row-level security",),
            ),
            (
                "plant a policy",
                "CREATE POLICY planted ON events USING (true)",
                ("policy planted",),
            ),
            (
                "let a table lose its rows in a crash",
                "ALTER TABLE last_uses SET UNLOGGED",
                ("UNL",),
            ),
            ("let a table inherit events", "CREATE TABLE heir () INHERITS (events)", ("heir",)),
            (
                "allow NULL",
                "ALTER TABLE auth_lookup ALTER revoked DROP NOT NULL",
                ("its column revoked",),
            ),
            (
                "give a column a default",
                "ALTER TABLE auth_lookup ALTER revoked SET DEFAULT false",
                ("its column revoked",),
            ),
            (
                "change the type of a column",
                "ALTER TABLE auth_lookup ALTER name TYPE varchar(500)",
                ("its column name",),
            ),
            (
                "plant a constraint",
                "ALTER TABLE auth_lookup ADD CONSTRAINT planted CHECK (NOT revoked) NOT VALID",
                ("constraint planted",),
            ),
            (
                "refer to a table",
                "CREATE TABLE other (id bigint REFERENCES events ON DELETE CASCADE)",
                ("refers to it",),
            ),
        )
    ),
    Manipulation(
        "cut the checkpoint file",
        _cut_file,
        ("checkpoint file",),
        engines=_ON_SQLITE,
    ),
    Manipulation(
        "lose the checkpoint file",
        _lose_file,
        ("checkpoint file",),
        engines=_ON_SQLITE,
    ),
    Manipulation(
        "lose a note in the middle of the file",
        _lose_note_in_the_middle,
        ("checkpoint file",),
        engines=_ON_SQLITE,
    ),
)
