"""Copy a ledger into another database, for example from SQLite to PostgreSQL.

Events are appended to the target as they are in the source, with their positions and the gaps
between them, one batch per transaction. So the target is always a prefix of the source's history.
This is how an interrupted copy is resumed, how a later copy fetches what was appended since, and
how a database with other contents is recognized and left alone. The views are rebuilt from the
events; views that exist already are updated with each batch.

The source is only read, and may be in use. The copy has the state of the source at one moment, when
it was last read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Table, delete, func, select, tuple_

from domain.errors import LedgerError, PoisonEvent
from projections.ledger_copy.verify_copy import (
    CopyRefused,
    Extent,
    check_prefix,
    check_source,
    check_target,
    compare_copy,
    extent_of,
)
from projections.rebuild.rebuild import Clock, Progress, build_outdated_views, ignore_progress
from projections.rebuild.view_states import read_state
from projections.recorder import project_appended
from projections.sealing.ledger_secret import check_secret
from projections.store.database import (
    POSTGRESQL,
    Database,
    analyze_table,
    check_owner,
    lift_timeouts,
)
from projections.store.events import decode_rows, last_position, read_rows
from projections.store.locks import task_lock
from projections.store.postgresql_tables import advance_sequence
from projections.store.schema import (
    checkpoints,
    events,
    key_digests,
    last_uses,
    ledger_secret,
    upgrade_schema,
)
from projections.views.registry import VIEWS
from projections.views.view import View, insert_in_order

AT_ONCE = 10_000
"""Rows per transaction: enough to make its fixed cost negligible, few enough for memory."""

_UUID_LENGTH = 16

BESIDE_EVENTS = (key_digests, last_uses, checkpoints, ledger_secret)
"""The durable tables that are copied besides the events.

Console sessions are not copied: someone who signs out at the source later would still be signed in
at the target. The last integrity result is not copied, because it is about the old database. Both
may be lost: everybody signs in again, and the next integrity check runs at once.
"""


class CopyRunning(LedgerError):
    """Another process is copying to this target."""

    code = "COPY_RUNNING"


@dataclass(frozen=True, slots=True)
class CopyReport:
    """The result of a copy, after it was compared with the source.

    Args:
        source, target: URLs of the databases, without passwords.
        copied: number of events copied; less than all if the target already had some.
        extent: size of the ledger, the same on both sides.
        beside_events: number of rows copied of each durable table besides the events.
        appended_since: number of events that the source has and the copy does not.
        seconds: total duration.
    """

    source: str
    target: str
    copied: int
    extent: Extent
    beside_events: Mapping[str, int]
    appended_since: int
    seconds: float


def copy_ledger(
    source: Database, target: Database, *, clock: Clock, progress: Progress = ignore_progress
) -> CopyReport:
    """Copy a ledger to an empty database, or continue an earlier copy; verify the result.

    Call this again to resume an interrupted copy, or to fetch what was appended since.

    Raises:
        CopyRefused: the source is of another version of the program, or the target contains
            anything except a prefix of the source's history. Nothing was changed.
        UnknownSchema: the target is not a ledger. Nothing was changed.
        OtherSecret: the target has the keys of another secret. Nothing was changed.
        NotOwner: only the owner of the target's tables may do this. Nothing was changed.
        CopyRunning: another process is copying to the target.
        CopyDiffers: the copy differs from the source.
        PoisonEvent: an event cannot be projected, or cannot be stored in the target.
        LedgerUnavailable: a database did not answer; call this again to resume.
    """
    started = perf_counter()
    check_source(source)
    with source.read() as connection:
        if not check_secret(connection, target.seals):
            message = f"{source.name} is not sealed yet: run first keyledger projections status"
            raise CopyRefused(message)
    check_target(source, target)
    with target.read() as connection:
        check_owner(connection, "keyledger copy")
    upgrade_schema(target)
    with task_lock(target, "copy") as alone:
        if not alone:
            message = f"another copy to {target.name} is running: wait until it ends"
            raise CopyRunning(message)
        begun = check_prefix(source, target, progress)
        copying = _Copying(source, target, begun)
        copying.catch_up(progress)
        analyze_table(target, events)
        build_outdated_views(target, VIEWS, clock=clock, progress=progress)
        copying.catch_up(progress)
        extent, beside_events = copying.finish()
        compare_copy(source, target, extent, progress, compared=begun)
    with source.read() as connection:
        appended_since = connection.scalar(
            select(func.count()).select_from(events).where(events.c.id > extent.position)
        )
    return CopyReport(
        source=source.name,
        target=target.name,
        copied=copying.copied,
        extent=extent,
        beside_events=beside_events,
        appended_since=appended_since or 0,
        seconds=perf_counter() - started,
    )


class _Copying:
    """A copy in progress."""

    def __init__(self, source: Database, target: Database, position: int) -> None:
        """Begin after the last position of the target."""
        self._source = source
        self._target = target
        self._position = position
        self.copied = 0

    def catch_up(self, progress: Progress) -> None:
        """Copy events, one batch per transaction, until a batch is not full."""
        full = True
        while full:
            with self._source.read() as connection:
                last = last_position(connection)
                rows = read_rows(connection, after=self._position, limit=AT_ONCE)
            progress("copying", self._position, last)
            with self._target.append() as connection:
                self._append(connection, rows)
            full = len(rows) == AT_ONCE
        progress("copying", self._position, last)

    def finish(self) -> tuple[Extent, dict[str, int]]:
        """Bring the target to the state of the source at one moment.

        Returns:
            The extent of the source, and the number of rows copied of each table besides the
            events.
        """
        with self._source.read() as reading:
            lift_timeouts(reading)
            with self._target.append() as writing:
                lift_timeouts(writing)
                self._append(writing, read_rows(reading, after=self._position, limit=None))
                copied = {
                    table.name: _replace(writing, table, _pages(reading, table))
                    for table in BESIDE_EVENTS
                }
            return extent_of(reading), copied

    def _append(self, connection: Connection, rows: Sequence[Row[Any]]) -> None:
        if last_position(connection) != self._position:
            message = (
                f"another program appends to {self._target.name}: stop that program, empty the"
                " database, and copy again"
            )
            raise CopyRefused(message)
        if not rows:
            return
        if connection.dialect.name == POSTGRESQL:
            insert_in_order(connection, events, [_with_uuid(row) for row in rows])
            advance_sequence(connection, events, rows[-1].id)
        else:
            insert_in_order(connection, events, [tuple(row) for row in rows])
        # None at first: building the views when all events are there takes much less time.
        built = [view for view in VIEWS if _is_built(connection, view)]
        if built:
            seals = self._target.seals
            project_appended(connection, built, decode_rows(rows, seals), seals)
        self._position = rows[-1].id
        self.copied += len(rows)


def _with_uuid(row: Row[Any]) -> tuple[object, ...]:
    position, key, *values = row
    if type(key) is not bytes or len(key) != _UUID_LENGTH:
        raise PoisonEvent(position, f"its key is not a UUID: {str(key)[:60]!r}")
    return position, UUID(bytes=key), *values


def _is_built(connection: Connection, view: View) -> bool:
    state = read_state(connection, view.name)
    return state is not None and state.view_version == view.version


def _replace(connection: Connection, table: Table, pages: Iterator[Sequence[Row[Any]]]) -> int:
    connection.execute(delete(table))
    count = 0
    for page in pages:
        insert_in_order(connection, table, [tuple(row) for row in page])
        count += len(page)
    return count


def _pages(connection: Connection, table: Table) -> Iterator[Sequence[Row[Any]]]:
    key = tuple_(*table.primary_key)
    query = select(table).order_by(*table.primary_key).limit(AT_ONCE)
    page = connection.execute(query).all()
    while page:
        yield page
        last = [page[-1]._mapping[column] for column in table.primary_key]  # noqa: SLF001
        page = connection.execute(query.where(key > tuple(last))).all()
