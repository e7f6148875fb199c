"""Seal events that have no seals, or seals of a secret that was lost.

Everything happens in one transaction that excludes other writers: the events are read, the root of
the tree over their entries is computed and compared with the proven one, and each event is
sealed. If the root differs, nothing is sealed. If it is interrupted, nothing was done.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from eventsourcing.persistence import StoredEvent
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from domain.audit_log import Resealed, reseal_uuid
from domain.caller import Caller
from domain.errors import HistoryInDoubt
from domain.public_event import entry_of
from domain.serialization import EventTranscoder
from projections.rebuild.rebuild import Progress, ignore_progress
from projections.recorder import append_events
from projections.store.database import POSTGRESQL, Database, lift_timeouts
from projections.store.events import decode_canonical, last_position, read_rows
from projections.store.schema import (
    console_sessions,
    events,
    key_digests,
    last_attestation,
    ledger_secret,
    projection_states,
)
from projections.store.seals import Seals
from projections.tlog.merkle import CompactRange
from projections.views import auth_lookup
from projections.views.view import View

_AT_ONCE = 2_000
_SEAL = update(events).where(events.c.id == bindparam("_id")).values(seal=bindparam("_seal"))
_LOCK = "LOCK TABLE events, entries, ledger_secret IN SHARE ROW EXCLUSIVE MODE"
_RESEALED = "sealing"


class Proven(NamedTuple):
    """What was proven about a log before it is sealed.

    Args:
        size: number of events.
        root: root of the tree over their entries.
    """

    size: int
    root: bytes


class Record(NamedTuple):
    """What the log will say about a sealing that a person asked for.

    Args:
        reason: the person's reason.
        by: the caller.
        at: the time.
    """

    reason: str
    by: Caller
    at: datetime


def write_secret(connection: Connection, seals: Seals) -> None:
    """Store the id of the secret that the ledger's seals are made with, and replace any other."""
    connection.execute(delete(ledger_secret))
    connection.execute(
        insert(ledger_secret).values(secret_id=seals.secret_id, seal=seals.ledger_secret())
    )


def events_not_sealed(database: Database, seals: Seals) -> list[int]:
    """Return the positions of events without a valid seal.

    Return none if no event has a valid seal: the ledger then has another secret, or is of a version
    without seals, so that nothing is known about any single event.
    """
    wrong: list[int] = []
    right = position = 0
    while True:
        with database.read() as connection:
            rows = read_rows(connection, after=position, limit=_AT_ONCE)
        if not rows:
            return wrong if right else []
        for place, *columns in rows:
            if seals.is_event(*columns):
                right += 1
            else:
                wrong.append(place)
        position = rows[-1].id


def seal_all(
    database: Database,
    views: Sequence[View],
    seals: Seals,
    proven: Proven,
    *,
    record: Record | None = None,
    progress: Progress = ignore_progress,
) -> Resealed | None:
    """Seal every event under a secret, which becomes the ledger's secret.

    Digests, sessions and the last integrity result are deleted: they carry seals of the old secret
    and are created again when needed. The auth lookup is marked as outdated, so that it is rebuilt
    before it is used.

    Args:
        database: opened with any seals; those of ``seals`` are written.
        proven: what the log must be.
        record: what to record in the log about it; ``None`` to record nothing.

    Returns:
        The event that records it, if any.

    Raises:
        HistoryInDoubt: the log is not what was proven; nothing was sealed.
        LedgerUnavailable: the database cannot be written.
    """
    resealed = None
    with database.append() as connection:
        lift_timeouts(connection)
        if connection.dialect.name == POSTGRESQL:
            connection.exec_driver_sql(_LOCK)
        previous = connection.scalar(select(ledger_secret.c.secret_id))
        sealed = _seal_events(connection, seals, progress)
        if sealed != proven:
            raise HistoryInDoubt(
                f"the log has {sealed.size} events and the root {sealed.root.hex()}, but"
                f" {proven.size} events with the root {proven.root.hex()} were checked; nothing"
                " was sealed: run keyledger audit verify"
            )
        for table in (console_sessions, key_digests, last_attestation):
            connection.execute(delete(table))
        write_secret(connection, seals)
        if record is not None:
            resealed = _event(record, previous, seals, proven.size)
            append_events(connection, views, seals, [_stored(resealed)])
        # The live table, and any table that an interrupted rebuild left.
        name = projection_states.c.table_name
        connection.execute(
            update(projection_states)
            .where(name.startswith(auth_lookup.VIEW.name, autoescape=True))
            .values(view_version=0)
        )
    return resealed


def _seal_events(connection: Connection, seals: Seals, progress: Progress) -> Proven:
    last = last_position(connection)
    tree = CompactRange(0, lambda _nodes: [])
    position = size = 0
    while rows := read_rows(connection, after=position, limit=_AT_ONCE):
        changes = []
        for row in rows:
            try:
                event = decode_canonical(row)
                tree.append(entry_of(event))
            except (ValueError, LookupError, AttributeError, TypeError) as error:
                raise HistoryInDoubt(
                    f"the event at position {row.id} cannot be sealed: {error}"
                ) from error
            _, key, version, topic, state, _ = row
            changes.append({"_id": row.id, "_seal": seals.event(key, version, topic, state)})
        connection.execute(_SEAL, changes)
        size += len(rows)
        position = rows[-1].id
        progress(_RESEALED, position, last)
    return Proven(size, tree.root())


def _event(record: Record, previous: str | None, seals: Seals, size: int) -> Resealed:
    return Resealed(
        originator_id=reseal_uuid(seals.secret_id, size),
        originator_version=1,
        timestamp=record.at,
        actor=record.by.actor.as_json(),
        request_id=record.by.request_id,
        source_ip=record.by.source_ip,
        reason=record.reason,
        secret_id=seals.secret_id,
        previous_secret_id=previous,
        events=size,
    )


def _stored(event: Resealed) -> StoredEvent:
    state = dict(vars(event))
    key: UUID = state.pop("originator_id")
    return StoredEvent(
        originator_id=key,
        originator_version=state.pop("originator_version"),
        topic=event.TOPIC,
        state=EventTranscoder().encode(state),
    )
