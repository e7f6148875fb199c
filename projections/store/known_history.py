"""The newest state of the ledger that this process has seen.

A process that has seen an event must not answer from a database without that event. Such a
database is an older state of the ledger: a former primary that came back after a failover, a
restored backup, a file that was replaced by an older copy. A key that was revoked since may be
valid in it. So verification is refused until the event is there again, unchanged.

On PostgreSQL a second sign is the timeline. Each promotion of a standby begins a new timeline with
a higher number (PostgreSQL documentation, "Timelines"). A process that was connected to timeline 2
does not use a server that is still on timeline 1, even before any event tells the two apart.
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from domain.errors import LedgerUnavailable

_log = structlog.get_logger()

Event = tuple[int, bytes, bytes]
"""A position, the id of a key as it is stored, and what was stored."""

NO_EVENT: Event = (0, b"", b"")

RESTART = (
    "connect the primary again that has it; if the ledger was restored from a backup on purpose,"
    " restart this server"
)


class Timeline(NamedTuple):
    """The timeline of a PostgreSQL server.

    Args:
        cluster: the system identifier of the database cluster; timelines of two clusters cannot
            be compared.
        number: of the timeline.
    """

    cluster: str
    number: int


class KnownHistory:
    """The newest event and timeline that this process has seen; for any number of threads."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = threading.Lock()
        self._event = NO_EVENT
        self._timelines: dict[str, int] = {}
        self._refusal: str | None = None

    @property
    def event(self) -> Event:
        """The newest event that was seen; take it before asking what `check_events` is to check."""
        return self._event

    @property
    def refusal(self) -> str | None:
        """Why verification is refused; ``None`` while the database has what was seen."""
        return self._refusal

    def note(self, event: Event) -> None:
        """Note an event that is committed."""
        if event[0] > self._event[0]:
            with self._lock:
                self._event = max(self._event, event, key=lambda each: each[0])

    def note_timeline(self, timeline: Timeline | None) -> bool:
        """Note the timeline of a server; return whether it is the newest one that was seen.

        Args:
            timeline: ``None`` if the server does not tell it.
        """
        if timeline is None:
            return True
        with self._lock:
            newest = self._timelines.get(timeline.cluster, 0)
            self._timelines[timeline.cluster] = max(newest, timeline.number)
        return timeline.number >= newest

    def is_outdated(self, timeline: Timeline | None) -> bool:
        """Tell whether a newer timeline was seen than this one."""
        return timeline is not None and timeline.number < self._timelines.get(timeline.cluster, 0)

    def check(self) -> None:
        """Refuse to go on if the database lacked what was seen when it was last asked.

        Raises:
            LedgerUnavailable: it did.
        """
        if self._refusal is not None:
            raise LedgerUnavailable(self._refusal)

    def check_events(self, event: Event, events: Sequence[Event]) -> None:
        """Refuse to go on unless an event is among those that the database has.

        Args:
            event: the value of `event` before the database was asked.
            events: what the database was found to have; it includes the event's position.

        Raises:
            LedgerUnavailable: the event is missing, or another one is in its place.
        """
        if event[0] and event not in events:
            raise self.refuse(
                f"this server has seen the event at position {event[0]}, and the database does not"
                f" have it: it is an older or another state of the ledger; {RESTART}"
            )
        self._accept()

    def refuse(self, refusal: str) -> LedgerUnavailable:
        """Refuse verification from now on; log why, once; return the error to raise."""
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
