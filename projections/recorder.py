"""The recorder: appends events and updates every view in one transaction."""

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any, cast
from uuid import UUID

from eventsourcing.persistence import PersistenceError, StoredEvent
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore, Transaction
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from sqlalchemy import Connection, bindparam, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from domain.credential import Digest
from domain.errors import EventNotSealed, LedgerUnavailable, ProjectionInconsistent
from projections.store.database import Database, check_granted, take_append_lock
from projections.store.events import Recorded, decode
from projections.store.key_digests import store_digests
from projections.store.schema import events, projection_states
from projections.store.seals import Seals
from projections.views.view import View

OnAppend = Callable[[int, float], None]
"""Called after each append with the number of events and the duration in seconds."""

# The version is matched too, so that a running program of another version, after this one has
# migrated the views, does not write rows with its own meaning into them.
_IS_OF = tuple_(projection_states.c.table_name, projection_states.c.view_version).in_(
    bindparam("versions", expanding=True)
)
_MOVE = update(projection_states).where(_IS_OF).values(position=bindparam("position"))
_APPEND = insert(events).returning(events.c.id)
_AT_VERSION = select(projection_states.c.table_name).where(_IS_OF)


def ignore_append(_events: int, _seconds: float) -> None:
    """Measure nothing."""


CheckAppend = Callable[[], None]
"""Called before each append; raises to refuse it."""


def allow_append() -> None:
    """Allow every append."""


class LedgerRecorder(SQLAlchemyApplicationRecorder):
    """Records events with SQLAlchemy, together with everything derived from them.

    The views receive events decoded from what was just stored, so a live view and a replay cannot
    see different events. If a view fails, nothing is appended.
    """

    def __init__(
        self,
        database: Database,
        views: Sequence[View],
        *,
        check_append: CheckAppend = allow_append,
        on_append: OnAppend = ignore_append,
    ) -> None:
        """Record into ``database``, unless ``check_append`` refuses, and update ``views``."""
        super().__init__(
            SQLAlchemyDatastore(session_maker=sessionmaker(database.writer)),
            events_table_name=events.name,
        )
        self._reading = SQLAlchemyDatastore(session_maker=sessionmaker(database.reader))
        self._known = database.known
        self._seals = database.seals
        self._views = views
        self._check_append = check_append
        self._on_append = on_append

    def transaction(self, commit: bool = True) -> Transaction:  # noqa: FBT001, FBT002 - theirs
        """Begin a transaction; one that commits takes the append lock, any other only reads."""
        return (self.datastore if commit else self._reading).transaction(commit=commit)

    def _lock_table(self, session: Session) -> None:
        # Not the library's LOCK TABLE: it needs the privilege to change events.
        take_append_lock(session.connection())

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        **kwargs: Any,  # noqa: ANN401 - theirs
    ) -> Sequence[int] | None:
        """Append events, all or none.

        The keyword argument ``digests`` has digests to store in the same transaction.

        Raises:
            HistoryInDoubt: appending to this log is refused.
            IntegrityError: another command has taken this version of the key.
            ProjectionInconsistent: a view contradicts the events.
            LedgerUnavailable: the role may not append, or the database lacks an event that this
                process has seen.
            PersistenceError: the database did not answer.
        """
        self._known.check()
        self._check_append()
        started = perf_counter()
        try:
            positions: Sequence[int] | None = super().insert_events(stored_events, **kwargs)
        except PersistenceError as error:
            check_granted(error)
            raise
        self._on_append(len(stored_events), perf_counter() - started)
        if positions:
            last = stored_events[-1]
            self._known.note((positions[-1], cast("UUID", last.originator_id).bytes, last.state))
        return positions

    def _insert_stored_events(
        self,
        session: Session,
        stored_events: Sequence[StoredEvent],
        *,
        digests: Iterable[Digest] = (),
        **_: Any,  # noqa: ANN401 - theirs
    ) -> Sequence[int]:
        self._lock_table(session)
        connection = session.connection()
        return append_events(connection, self._views, self._seals, stored_events, digests=digests)

    def select_events(
        self,
        originator_id: UUID | str,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,  # noqa: FBT001, FBT002 - theirs
        limit: int | None = None,
    ) -> list[StoredEvent]:
        """Read the events of an aggregate, in version order.

        Commands decide by these events, so a forged one must not be rotated into a new key.

        Raises:
            EventNotSealed: an event has no valid seal.
        """
        version = events.c.originator_version
        uuid = cast("UUID", originator_id)
        query = select(events).where(events.c.originator_id == uuid.bytes)
        if gt is not None:
            query = query.where(version > gt)
        if lte is not None:
            query = query.where(version <= lte)
        query = query.order_by(version.desc() if desc else version).limit(limit)
        with self.transaction(commit=False) as session:
            rows = session.execute(query).all()
        stored = []
        for position, key, number, topic, state, seal in rows:
            if not self._seals.is_event(key, number, topic, state, seal):
                raise EventNotSealed(position)
            stored.append(StoredEvent(uuid, number, topic, state))
        return stored


def append_events(
    connection: Connection,
    views: Sequence[View],
    seals: Seals,
    stored_events: Sequence[StoredEvent],
    *,
    digests: Iterable[Digest] = (),
) -> list[int]:
    """Append events with their seals, and update everything derived from them.

    Args:
        connection: in a transaction that holds the append lock.
        views: the views to update.
        digests: digests to store in the same transaction.

    Returns:
        The positions of the events.

    Raises:
        IntegrityError: a version of a key exists already.
        ProjectionInconsistent: a view contradicts the events.
    """
    recorded = []
    for stored in stored_events:
        uuid = cast("UUID", stored.originator_id)
        of_row = uuid.bytes, stored.originator_version, stored.topic, stored.state
        position = connection.execute(
            _APPEND,
            {
                "originator_id": of_row[0],
                "originator_version": of_row[1],
                "topic": of_row[2],
                "state": of_row[3],
                "seal": seals.event(*of_row),
            },
        ).scalar_one()
        event = decode(position, stored.topic, uuid, stored.originator_version, stored.state)
        recorded.append(Recorded(position, event))
    try:
        project_appended(connection, views, recorded, seals)
        store_digests(connection, digests, seals)
    except IntegrityError as error:
        # Must not be mistaken for a version that another command has taken.
        message = "a projection contradicts the events: run keyledger projections rebuild"
        raise ProjectionInconsistent(message) from error
    return [each.position for each in recorded]


def project_appended(
    connection: Connection, views: Sequence[View], recorded: Sequence[Recorded], seals: Seals
) -> None:
    """Update views, in the transaction that appends the events.

    Raises:
        PoisonEvent, ProjectionInconsistent: as for `View.project`.
        LedgerUnavailable: the table of a view is of another version of the program.
    """
    for view in views:
        view.project(connection, view.table, recorded, seals)
    versions = [(view.name, view.version) for view in views]
    moved = connection.execute(_MOVE, {"versions": versions, "position": recorded[-1].position})
    if moved.rowcount != len(versions):
        there = set(connection.scalars(_AT_VERSION, {"versions": versions}))
        others = " and ".join(
            f"{name} is not at version {version}" for name, version in versions if name not in there
        )
        message = f"{others} of this program: restart it"
        raise LedgerUnavailable(message)
