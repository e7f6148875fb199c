"""Server-sent events: live streams of the events that any process appends.

One task checks for all streams whether anything was committed, every quarter of a second by
default. Only then does each stream read what is new, in a thread that it holds only for the read.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog
from fastapi.responses import StreamingResponse

from api.composition import OpenLedger
from api.formats.event_formats import EVENT_STREAM, messages
from api.http.credentials import Authorize
from api.http.work import Threads, Work
from domain.errors import LedgerError, LedgerUnavailable, Overloaded, TooManyReads
from projections.auth.freshness import FreshnessCheck, open_freshness_check
from projections.auth.new_events import NOTHING_OBSERVED
from projections.queries.feed import FeedFilters, Place, read_new_entries
from projections.store.database import Database

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

_log = structlog.get_logger()
_RECONNECT_MILLISECONDS = 1000
_SEND_SECONDS = 5.0
"""Time in which a client must read something; shorter than a stopping server waits for it."""


Share = tuple[str, str]
"""Kind and name of a holder of streams."""

_ALL: Share = ("all", "")
_PARTS = {"credential": 4, "workspace": 2}


class LiveStreams:
    """The live event streams of a process."""

    def __init__(
        self, check: FreshnessCheck, threads: Threads, *, most: int, heartbeat_seconds: float
    ) -> None:
        """Allow ``most`` streams, each of which sends something at least once per heartbeat."""
        self._check = check
        self._threads = threads
        self._held: Counter[Share] = Counter()
        self._most = most
        self._heartbeat_seconds = heartbeat_seconds
        self._stopping = False
        self._moved = asyncio.Event()

    def begin(
        self,
        database: Database,
        filters: FeedFilters,
        after: Place,
        authorize: Authorize,
        *,
        holder: tuple[str, str],
    ) -> "LiveStreamResponse":
        """Return an answer that sends the events after a place until the stream ends.

        Args:
            holder: the credential and its workspace. A credential may hold a quarter of all
                streams, and a workspace half of them.

        Raises:
            TooManyReads: the credential or its workspace is at its limit.
            Overloaded: the process is at its limit, or the server stops.
        """
        count = self._held[_ALL]
        if self._stopping or count >= self._most:
            raise Overloaded(f"this process has {count} live streams, the maximum: try again later")
        shares = [_ALL, ("credential", holder[0]), ("workspace", holder[1])]
        for share in shares[1:]:
            most = math.ceil(self._most / _PARTS[share[0]])
            if self._held[share] >= most:
                raise TooManyReads(
                    f"this {share[0]} has {most} live streams in this process, the maximum: close"
                    " one first"
                )
        self._held.update(shares)
        return LiveStreamResponse(
            self._stream(database, filters, after, authorize), partial(self._end, shares)
        )

    def stop(self) -> None:
        """End all streams, each after what it is sending."""
        self._stopping = True
        self._wake()

    async def watch(self, *, every: float) -> None:
        """Wake the streams whenever something was committed, until cancelled.

        Args:
            every: seconds between two freshness checks.
        """
        observed = NOTHING_OBSERVED
        while True:
            try:
                new = await asyncio.to_thread(self._check.new_events, observed)
            except LedgerUnavailable:
                # The streams get the same error when they read, and end.
                self._wake()
            else:
                if new is not None:
                    observed = new.observed
                    self._wake()
            await asyncio.sleep(every)

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _end(self, shares: list[Share]) -> None:
        self._held.subtract(shares)
        # Drop holders without streams; otherwise each new credential would stay for ever.
        self._held = +self._held

    async def _stream(
        self, database: Database, filters: FeedFilters, after: Place, authorize: Authorize
    ) -> AsyncIterator[bytes]:
        # The client remembers an id even without data, so it reconnects at this place although it
        # was sent no event yet.
        yield b"retry: %d\nid: %d\n\n" % (_RECONNECT_MILLISECONDS, after.position)
        while not self._stopping:
            # Taken before reading: a later commit sets it.
            moved = self._moved
            try:
                entries, after = await self._threads.run(
                    Work.LIVE_STREAM, read_new_entries, database, filters, after
                )
                # Authorize after reading, so that nothing appended after a revocation is sent.
                await authorize()
            except LedgerError as error:
                yield b": ended: %b\n\n" % error.code.encode()
                return
            if entries:
                yield messages(entries)
            elif not await self._is_set_in_time(moved):
                yield b": still here\nid: %d\n\n" % after.position

    async def _is_set_in_time(self, moved: asyncio.Event) -> bool:
        if self._stopping:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._heartbeat_seconds):
                await moved.wait()
                return True
        return False


class LiveStreamResponse(StreamingResponse):
    """An endless answer; it releases its place however it ends."""

    def __init__(self, content: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        # Prevents proxies from buffering, which would delay events.
        super().__init__(content, headers={"X-Accel-Buffering": "no"}, media_type=EVENT_STREAM)
        self._on_end = on_end

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Send until the stream ends, the client disconnects, or it reads nothing for too long."""

        async def send_in_time(message: "Message") -> None:
            async with asyncio.timeout(_SEND_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            # It reconnects with the id of the last event that it received.
            _log.info("tail_dropped", seconds=_SEND_SECONDS)
        finally:
            self._on_end()


@asynccontextmanager
async def serving_live_streams(ledger: OpenLedger, threads: Threads) -> AsyncIterator[LiveStreams]:
    """Serve live event streams until the block ends.

    Raises:
        LedgerUnavailable: the freshness check cannot connect.
    """
    check = open_freshness_check(ledger.database)
    settings = ledger.settings
    streams = LiveStreams(
        check, threads, most=settings.tails, heartbeat_seconds=settings.tail_heartbeat_seconds
    )
    watching = asyncio.create_task(streams.watch(every=settings.tail_seconds))
    try:
        yield streams
    finally:
        streams.stop()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        check.close()
