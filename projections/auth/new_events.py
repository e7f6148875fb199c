"""What a freshness check compares: the last observed state of the ledger, and the events after it.

A cached row may be used only if nothing that concerns it was committed since it was read. These
rules are the same for SQLite and PostgreSQL; how the database is asked is in
`projections.auth.freshness_sqlite` and `projections.auth.freshness_postgresql`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from projections.store.observed_state import NO_EVENT, Event, ObservedState

MAX_NEW_EVENTS = 10_000
"""With more new events than that, the whole cache is cleared."""


class Observed(NamedTuple):
    """Last observed state of the ledger.

    Args:
        version: set by the freshness check; ``None`` before the first check.
        generation: of the auth lookup's table; a rebuild increases it.
        last: the last event that was read.
    """

    version: int | None
    generation: int | None
    last: Event

    @property
    def position(self) -> int:
        """Position of the last event that was read."""
        return self.last[0]


NOTHING_OBSERVED = Observed(None, None, NO_EVENT)


class NewEvents(NamedTuple):
    """What was committed after an observed state.

    Args:
        observed: the state of the ledger now.
        keys: stored ids of the keys that the new events belong to; ``None`` if every cached row
            has to be read again.
    """

    observed: Observed
    keys: Sequence[bytes] | None


def compare(
    since: Observed, version: int, generation: int | None, events: Sequence[Event]
) -> NewEvents | None:
    """Return the new events among those that the database returned.

    Args:
        since: the state observed before.
        version: of the new state.
        generation: of the auth lookup's table now.
        events: those from the last observed one on.

    Returns:
        ``None`` if no cached row can be trusted: there are too many new events, an event was
        changed, or the table was rebuilt, and its rows may differ without a new event.
    """
    known, new = (events[:1], events[1:]) if since.position else ([NO_EVENT], events)
    if (
        list(known) != [since.last]
        or len(new) >= MAX_NEW_EVENTS
        or since.version is None
        or generation != since.generation
    ):
        return None
    last = new[-1] if new else since.last
    return NewEvents(Observed(version, generation, last), [key for _, key, _ in new])


def all_new(version: int, generation: int | None, events: Sequence[Event]) -> NewEvents:
    """Return the state after the last of the events, with the whole cache to be cleared."""
    return NewEvents(Observed(version, generation, events[-1] if events else NO_EVENT), None)


def newest_known(known: ObservedState, since: Observed) -> Event:
    """Return the newest event that the database must have; call it before asking the database."""
    return max(known.event, since.last, key=lambda event: event[0])


def check_answer(
    known: ObservedState, event: Event, events: Sequence[Event], *, is_first: bool = False
) -> None:
    """Refuse a database that lacks an event that this process has seen.

    Args:
        event: the newest one that this process had seen before it asked.
        events: those that the database returned.
        is_first: whether the query selected the event by its position. Another query, if it
            returned as many events as it may, can end before that event; then the first query is
            sent next.

    Raises:
        LedgerUnavailable: the database lacks the event.
    """
    ends_before = len(events) > MAX_NEW_EVENTS and events[-1][0] < event[0]
    if is_first or not ends_before:
        known.check_events(event, events)
        if events:
            known.note(events[-1])
