"""Live tails: clients that are sent events as they are appended, by whichever process.

One task asks the fence for all of them whether anything was committed, every quarter of a second
or as set; only then does each tail read what is new, in a thread for no longer than that takes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import structlog
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from api.composition import OpenLedger
from api.credentials import Judge
from api.event_forms import EVENT_STREAM, messages
from domain.errors import LedgerError, LedgerUnavailable, Overloaded
from projections.database import Database
from projections.feed import FeedFilters, Place, read_news
from projections.fence import NOTHING_SEEN, Fence, open_fence

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

_log = structlog.get_logger()
_COME_BACK_MILLISECONDS = 1000
_SEND_SECONDS = 5.0
"""For how long a client may take nothing, less than a server that stops waits for it."""


class Tails:
    """The live tails of one process."""

    def __init__(self, fence: Fence, *, most: int, heartbeat_seconds: float) -> None:
        """Allow for ``most`` tails, none of which is silent for longer than a heartbeat."""
        self._fence = fence
        self._most = most
        self._heartbeat_seconds = heartbeat_seconds
        self._count = 0
        self._stopping = False
        self._moved = asyncio.Event()

    def begin(
        self, database: Database, filters: FeedFilters, after: Place, judge: Judge
    ) -> "TailResponse":
        """Return the answer that sends what comes after a place, until the tail ends.

        Raises:
            Overloaded: there are as many tails as there may be, or the server stops.
        """
        if self._stopping or self._count >= self._most:
            raise Overloaded(f"this process has {self._count} live tails, and takes no more")
        self._count += 1
        return TailResponse(self._tail(database, filters, after, judge), self._end)

    def stop(self) -> None:
        """End all tails, each after what it is sending."""
        self._stopping = True
        self._wake()

    async def watch(self, *, every: float) -> None:
        """Wake the tails whenever something was committed, until cancelled.

        Args:
            every: seconds between two questions to the fence.
        """
        seen = NOTHING_SEEN
        while True:
            try:
                news = await run_in_threadpool(self._fence.news, seen)
            except LedgerUnavailable:
                # The tails find out why, and end.
                self._wake()
            else:
                if news is not None:
                    seen = news.seen
                    self._wake()
            await asyncio.sleep(every)

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _end(self) -> None:
        self._count -= 1

    async def _tail(
        self, database: Database, filters: FeedFilters, after: Place, judge: Judge
    ) -> AsyncIterator[bytes]:
        # An id without data is remembered by the client: it comes back to here, though it was
        # sent nothing yet.
        yield b"retry: %d\nid: %d\n\n" % (_COME_BACK_MILLISECONDS, after.position)
        while not self._stopping:
            # Taken before the reading: what is committed after that will set it.
            moved = self._moved
            try:
                entries, after = await run_in_threadpool(read_news, database, filters, after)
                # Judged after the reading: nothing appended after a revocation is sent.
                await judge()
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


class TailResponse(StreamingResponse):
    """An answer without an end of its own; it gives its place back, whatever ends it."""

    def __init__(self, content: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        # A proxy that kept events back for larger pieces would not be live.
        super().__init__(content, headers={"X-Accel-Buffering": "no"}, media_type=EVENT_STREAM)
        self._on_end = on_end

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Send until the tail ends, the client goes, or it takes nothing for a while."""

        async def send_in_time(message: "Message") -> None:
            async with asyncio.timeout(_SEND_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            # It comes back with the id of the last event that it has.
            _log.info("tail_dropped", seconds=_SEND_SECONDS)
        finally:
            self._on_end()


@asynccontextmanager
async def tailing(ledger: OpenLedger) -> AsyncIterator[Tails]:
    """Serve live tails until the block ends.

    Raises:
        LedgerUnavailable: there is no connection to be had for the fence.
    """
    fence = open_fence(ledger.database)
    settings = ledger.settings
    tails = Tails(fence, most=settings.tails, heartbeat_seconds=settings.tail_heartbeat_seconds)
    watching = asyncio.create_task(tails.watch(every=settings.tail_seconds))
    try:
        yield tails
    finally:
        tails.stop()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        fence.close()
