"""The newest state of the ledger that this process has seen.

A process that has seen an event must not answer from a database without that event. Such a database
is an older state of the ledger: a former primary that came back after a failover, a restored
backup, or a file that was replaced by an older copy. A key that has been revoked since may be valid
in it. So verification is refused until the database has the event again, unchanged.

On PostgreSQL the timeline is a second sign. Each promotion of a standby begins a new timeline with
a higher number (PostgreSQL documentation, "Timelines"). A process that was connected to timeline 2
does not use a server on timeline 1, even before any event differs.
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from domain.errors import LedgerUnavailable

_log = structlog.get_logger()

Event = tuple[int, bytes, bytes]
"""A position, a key's stored id, and the stored event."""

NO_EVENT: Event = (0, b"", b"")

RESTART = (
    "connect the primary that has it; if the ledger was restored from a backup on purpose,"
    " restart this server"
)


class Timeline(NamedTuple):
    """The timeline of a PostgreSQL server.

    Args:
        cluster: system identifier of the database cluster; timelines of different clusters
            cannot be compared.
        number: number of the timeline.
    """

    cluster: str
    number: int


class ObservedState:
    """The newest event and timeline that this process has seen; thread-safe."""

    def __init__(self) -> None:
        """Begin without any knowledge."""
        self._lock = threading.Lock()
        self._event = NO_EVENT
        self._timelines: dict[str, int] = {}
        self._refusal: str | None = None

    @property
    def event(self) -> Event:
        """The newest event seen; read it before querying the events to pass to `check_events`."""
        return self._event

    @property
    def refusal(self) -> str | None:
        """Why verification is refused; ``None`` if it is not."""
        return self._refusal

    def note(self, event: Event) -> None:
        """Record an event that is committed."""
        if event[0] > self._event[0]:
            with self._lock:
                self._event = max(self._event, event, key=lambda each: each[0])

    def note_timeline(self, timeline: Timeline | None) -> bool:
        """Record a server's timeline; return whether none newer was seen before.

        Args:
            timeline: ``None`` if the server does not report it.
        """
        if timeline is None:
            return True
        with self._lock:
            newest = self._timelines.get(timeline.cluster, 0)
            self._timelines[timeline.cluster] = max(newest, timeline.number)
        return timeline.number >= newest

    def is_outdated(self, timeline: Timeline | None) -> bool:
        """Return whether a newer timeline has been seen."""
        return timeline is not None and timeline.number < self._timelines.get(timeline.cluster, 0)

    def check(self) -> None:
        """Raise if the last `check_events` found that the database lacks an event.

        Raises:
            LedgerUnavailable: it does.
        """
        if self._refusal is not None:
            raise LedgerUnavailable(self._refusal)

    def check_events(self, event: Event, events: Sequence[Event]) -> None:
        """Raise unless the database has an event.

        Args:
            event: the value of `event` before the database was queried.
            events: events of the database, including the one at the event's position.

        Raises:
            LedgerUnavailable: the event is missing, or another one has its position.
        """
        if event[0] and event not in events:
            raise self.refuse(
                f"this server has seen the event at position {event[0]}, but the database does"
                f" not have it: it is an older or another state of the ledger; {RESTART}"
            )
        self._accept()

    def refuse(self, refusal: str) -> LedgerUnavailable:
        """Refuse verification from now on; log the reason once; return the error to raise."""
        with self._lock:
            is_news, self._refusal = self._refusal is None, refusal
        if is_news:
            _log.error("ledger_went_back", detail=refusal)
        return LedgerUnavailable(refusal)

    def _accept(self) -> None:
        if self._refusal is None:
            return
        with self._lock:
            was_refused, self._refusal = self._refusal is not None, None
        if was_refused:
            _log.info("ledger_is_current_again", position=self._event[0])
