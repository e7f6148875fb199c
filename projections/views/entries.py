"""The entries of the audit log: each event's canonical line, and its place in the Merkle tree.

Entry and leaf are written in the transaction that appends the event, so they never disagree with
it. The tree needs no table of its own: each leaf is stored with the hashes of the nodes that it
completes (`projections.tlog.merkle`).
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    Select,
    Table,
    bindparam,
    func,
    select,
)

from domain.api_key import ApiKey
from domain.audit_log import Forked, LedgerEvent, LogEvent
from domain.errors import PoisonEvent, ProjectionInconsistent
from domain.names import ROOT_WORKSPACE
from domain.public_event import canonical_line, public_event
from projections.store.column_types import big_integer, text
from projections.store.events import Recorded, decode_rows, read_rows
from projections.store.schema import events
from projections.store.seals import Seals
from projections.tlog.merkle import (
    HASH_LENGTH,
    CompactRange,
    Node,
    Read,
    hash_at,
    hashes_of_leaf,
    leaf_that_completes,
)
from projections.views.view import View, insert_in_order

_AT_ONCE = 1_000

table = Table(
    "entries",
    MetaData(),
    Column("leaf_index", big_integer, primary_key=True, autoincrement=False),
    Column("position", big_integer, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("type", text(40), nullable=False),
    Column("key_id", text(43)),
    Column("workspace", text(63), nullable=False),
    Column("actor_type", text(10), nullable=False),
    Column("actor_id", text(), nullable=False),
    Column("occurred_at", text(27), nullable=False),
)
Index("by_position", table.c.position, unique=True)
Index("by_workspace", table.c.workspace, table.c.leaf_index)
Index("by_actor", table.c.actor_id, table.c.leaf_index)
Index("by_type", table.c.type, table.c.leaf_index)
Index("by_time", table.c.occurred_at, table.c.leaf_index)


class _Line(NamedTuple):
    """An entry that is not in the tree yet."""

    position: int
    key: bytes
    key_id: str | None
    entry: bytes
    type: str
    workspace: str | None
    """Workspace from `Created`; later events of the key do not have it."""

    actor_type: str
    actor_id: str
    occurred_at: str


def _fold(recorded: Iterable[Recorded]) -> list[_Line]:
    return [_line(position, event) for position, event in recorded]


def _line(position: int, event: LedgerEvent) -> _Line:
    try:
        public = public_event(event)
        return _Line(
            position=position,
            key=event.originator_id.bytes,
            key_id=public["key_id"],
            entry=canonical_line(public),
            type=public["type"],
            workspace=_workspace_in(event),
            actor_type=public["actor"]["type"],
            actor_id=public["actor"]["id"],
            occurred_at=public["occurred_at"],
        )
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise PoisonEvent(position, f"{table.name} fails on it: {error!r}") from error


def _workspace_in(event: LedgerEvent) -> str | None:
    if isinstance(event, LogEvent):
        return ROOT_WORKSPACE
    return event.workspace if isinstance(event, ApiKey.Created) else None


def _write(connection: Connection, entries: Table, lines: list[_Line], _seals: Seals) -> None:
    if not lines:
        return
    size = size_of(connection, entries)
    read = reader(connection, entries)
    if len(lines) == 1:
        hashes = [hashes_of_leaf(size, lines[0].entry, read)]
    else:
        growth = CompactRange(size, read)
        hashes = [growth.append(line.entry) for line in lines]
    workspaces = _workspaces(connection, entries, lines)
    insert_in_order(
        connection,
        entries,
        [
            (
                size + number,
                line.position,
                of_leaf,
                line.entry,
                line.type,
                line.key_id,
                workspaces[line.key],
                line.actor_type,
                line.actor_id,
                line.occurred_at,
            )
            for number, (line, of_leaf) in enumerate(zip(lines, hashes, strict=True))
        ],
    )


def _workspaces(connection: Connection, entries: Table, lines: list[_Line]) -> dict[bytes, str]:
    """Return the workspaces of the lines' keys, from earlier entries if necessary."""
    named = {line.key: line.workspace for line in lines if line.workspace is not None}
    older = list({line.key for line in lines} - named.keys())
    for start in range(0, len(older), _AT_ONCE):
        rows = connection.execute(
            _queries(entries).workspaces, {"keys": older[start : start + _AT_ONCE]}
        )
        named |= dict(rows.tuples().all())
    if missing := set(older) - named.keys():
        message = f"{len(missing)} keys have no first entry in {entries.name}"
        raise ProjectionInconsistent(f"{message}: run keyledger projections rebuild {table.name}")
    return named


VIEW = View(version=1, table=table, fold=_fold, write=_write, in_order=True)


def size_of(connection: Connection, entries: Table = table) -> int:
    """Return the number of entries, which is the size of the tree."""
    last = connection.scalar(_queries(entries).last_index)
    return 0 if last is None else last + 1


def last_fork(connection: Connection) -> Forked | None:
    """Return the event that gave the log its current name; ``None`` if it was never forked.

    Raises:
        PoisonEvent, ProjectionInconsistent: the entries have such an event, and the store does not.
    """
    position = connection.scalar(
        select(table.c.position)
        .where(table.c.type == Forked.TOPIC)
        .order_by(table.c.leaf_index.desc())
        .limit(1)
    )
    if position is None:
        return None
    (recorded,) = decode_rows(read_rows(connection, after=position - 1, limit=1)) or (None,)
    if recorded is None or not isinstance(recorded.event, Forked):
        message = f"the entry of position {position} is a fork, but its event is not"
        raise ProjectionInconsistent(f"{message}: run keyledger audit verify")
    return recorded.event


def reader(connection: Connection, entries: Table = table) -> Read:
    """Return a function that reads nodes of the tree, all of a call with one query.

    It raises `ProjectionInconsistent` if an entry is missing or its hashes are malformed.
    """

    def read(nodes: Sequence[Node]) -> list[bytes]:
        leaves = [leaf_that_completes(node) for node in nodes]
        rows = connection.execute(_queries(entries).hashes, {"leaves": leaves})
        hashes = dict(rows.tuples().all())
        return [_hash_of(node, hashes.get(leaf_that_completes(node))) for node in nodes]

    return read


def _hash_of(node: Node, hashes: object) -> bytes:
    # Someone who can change the table may have stored values that are not hashes, or not bytes.
    of_node = hash_at(node[0], hashes) if isinstance(hashes, bytes) else b""
    if len(of_node) != HASH_LENGTH:
        message = f"entry {leaf_that_completes(node)} is missing from the tree, or damaged"
        raise ProjectionInconsistent(f"{message}: run keyledger audit verify")
    return of_node


class _Queries(NamedTuple):
    """Queries of the entries, built once: building a query takes longer than running it."""

    last_index: Select[tuple[int]]
    hashes: Select[tuple[int, bytes]]
    workspaces: Select[tuple[bytes, str]]


@cache
def _queries(entries: Table) -> _Queries:
    return _Queries(
        last_index=select(func.max(entries.c.leaf_index)),
        hashes=select(entries.c.leaf_index, entries.c.hashes).where(
            entries.c.leaf_index.in_(bindparam("leaves", expanding=True))
        ),
        workspaces=select(events.c.originator_id, entries.c.workspace)
        .join(entries, entries.c.position == events.c.id)
        .where(
            events.c.originator_id.in_(bindparam("keys", expanding=True)),
            events.c.originator_version == 1,
        ),
    )
