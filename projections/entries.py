"""The entries of the audit trail: each event's canonical line, and its place in the Merkle tree.

Entry and leaf are written in the transaction that appends the event, so that what the tree says
has happened has happened. The tree needs no table of its own: with each leaf are stored the hashes
of the nodes that it completes (`projections.merkle`).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    Column,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
    insert,
    select,
)

from domain.api_key import ApiKey
from domain.audit_log import Forked, LedgerEvent
from domain.errors import PoisonEvent, ProjectionInconsistent
from domain.key_ids import to_key_id
from domain.names import ROOT_WORKSPACE
from domain.public_event import entry_of
from domain.times import to_text
from projections.merkle import (
    Growth,
    Node,
    Read,
    hash_at,
    hashes_of_leaf,
    leaf_that_completes,
)
from projections.schema import big_integer
from projections.stored_events import Recorded, first_positions
from projections.view import View

_AT_ONCE = 500

table = Table(
    "entries",
    MetaData(),
    Column("leaf_index", big_integer, primary_key=True, autoincrement=False),
    Column("position", big_integer, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("type", String(40), nullable=False),
    Column("key_id", String(43)),
    Column("workspace", String(63), nullable=False),
    Column("actor_type", String(10), nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("occurred_at", String(27), nullable=False),
)
Index("by_position", table.c.position, unique=True)
Index("by_workspace", table.c.workspace, table.c.leaf_index)
Index("by_actor", table.c.actor_id, table.c.leaf_index)
Index("by_type", table.c.type, table.c.leaf_index)
Index("by_time", table.c.occurred_at, table.c.leaf_index)


class _Line(NamedTuple):
    """An entry that has no place in the tree yet."""

    position: int
    key_uuid: UUID
    entry: bytes
    type: str
    key_id: str | None
    workspace: str | None
    """What `Created` says; the later events of a key leave it out."""

    actor_type: str
    actor_id: str
    occurred_at: str


def _fold(recorded: Iterable[Recorded]) -> list[_Line]:
    return [_line(position, event) for position, event in recorded]


def _line(position: int, event: LedgerEvent) -> _Line:
    try:
        return _Line(
            position=position,
            key_uuid=event.originator_id,
            entry=entry_of(event),
            type=event.TOPIC,
            key_id=None if isinstance(event, Forked) else to_key_id(event.originator_id),
            workspace=_workspace_in(event),
            actor_type=event.actor["type"],
            actor_id=event.actor["id"],
            occurred_at=to_text(event.timestamp),
        )
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise PoisonEvent(position, f"{table.name} fails on it: {error!r}") from error


def _workspace_in(event: LedgerEvent) -> str | None:
    if isinstance(event, Forked):
        return ROOT_WORKSPACE
    return event.workspace if isinstance(event, ApiKey.Created) else None


def _write(connection: Connection, entries: Table, lines: list[_Line]) -> None:
    if not lines:
        return
    size = size_of(connection, entries)
    read = reader(connection, entries)
    if len(lines) == 1:
        hashes = [hashes_of_leaf(size, lines[0].entry, read)]
    else:
        growth = Growth(size, read)
        hashes = [growth.append(line.entry) for line in lines]
    workspaces = _workspaces(connection, entries, lines)
    connection.execute(
        insert(entries),
        [
            {
                "leaf_index": size + number,
                "position": line.position,
                "hashes": of_leaf,
                "entry": line.entry,
                "type": line.type,
                "key_id": line.key_id,
                "workspace": workspaces[line.key_uuid],
                "actor_type": line.actor_type,
                "actor_id": line.actor_id,
                "occurred_at": line.occurred_at,
            }
            for number, (line, of_leaf) in enumerate(zip(lines, hashes, strict=True))
        ],
    )


def _workspaces(connection: Connection, entries: Table, lines: list[_Line]) -> dict[UUID, str]:
    """Return the workspaces of the lines' keys, asking the entries for those made before."""
    named = {line.key_uuid: line.workspace for line in lines if line.workspace is not None}
    older = {line.key_uuid for line in lines} - named.keys()
    if not older:
        return named
    positions = first_positions(connection, older)
    found: dict[int, str] = {}
    wanted = list(positions.values())
    for start in range(0, len(wanted), _AT_ONCE):
        rows = connection.execute(
            select(entries.c.position, entries.c.workspace).where(
                entries.c.position.in_(wanted[start : start + _AT_ONCE])
            )
        )
        found |= dict(rows.tuples().all())
    named |= {uuid: found[position] for uuid, position in positions.items() if position in found}
    if missing := older - named.keys():
        message = f"{len(missing)} keys have no first entry in {entries.name}"
        raise ProjectionInconsistent(f"{message}; run: keyledger projections rebuild {table.name}")
    return named


VIEW = View(version=1, table=table, fold=_fold, write=_write, in_order=True)


def size_of(connection: Connection, entries: Table = table) -> int:
    """Return how many entries there are, which is the size of the tree."""
    last = connection.scalar(select(func.max(entries.c.leaf_index)))
    return 0 if last is None else last + 1


def last_entry_of(connection: Connection, event_type: str) -> bytes | None:
    """Return the last entry of a type; ``None`` if there is none."""
    entry: bytes | None = connection.scalar(
        select(table.c.entry)
        .where(table.c.type == event_type)
        .order_by(table.c.leaf_index.desc())
        .limit(1)
    )
    return entry


def reader(connection: Connection, entries: Table = table) -> Read:
    """Return what reads nodes of the tree, as many as are wanted by one query.

    It raises `ProjectionInconsistent` if an entry is missing or has too few hashes.
    """

    def read(nodes: Sequence[Node]) -> list[bytes]:
        leaves = {leaf_that_completes(node) for node in nodes}
        rows = connection.execute(
            select(entries.c.leaf_index, entries.c.hashes).where(entries.c.leaf_index.in_(leaves))
        )
        hashes = dict(rows.tuples().all())
        found = []
        for node in nodes:
            of_node = hash_at(node[0], hashes.get(leaf_that_completes(node), b""))
            if not of_node:
                message = f"entry {leaf_that_completes(node)} is missing from the tree, or damaged"
                raise ProjectionInconsistent(f"{message}; run: keyledger audit verify")
            found.append(of_node)
        return found

    return read
