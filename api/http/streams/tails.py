"""Live tails: clients that are sent events as they are appended, by whichever process.

One task checks for all of them whether anything was committed, every quarter of a second
or as set; only then does each tail read what is new, in a thread for no longer than that takes.
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
from api.http.credentials import Judge
from api.http.work import Threads, Work
from domain.errors import LedgerError, LedgerUnavailable, Overloaded, TooManyReads
from projections.auth.freshness import FreshnessCheck, open_freshness_check
from projections.auth.new_events import NOTHING_OBSERVED
from projections.queries.feed import FeedFilters, Place, read_news
from projections.store.database import Database

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

_log = structlog.get_logger()
_COME_BACK_MILLISECONDS = 1000
_SEND_SECONDS = 5.0
"""For how long a client may take nothing, less than a server that stops waits for it."""


Share = tuple[str, str]
"""The kind and the name of who holds tails."""

_ALL: Share = ("all", "")
_PARTS = {"credential": 4, "workspace": 2}


class Tails:
    """The live tails of one process."""

    def __init__(
        self, check: FreshnessCheck, threads: Threads, *, most: int, heartbeat_seconds: float
    ) -> None:
        """Allow for ``most`` tails, none of which is silent for longer than a heartbeat."""
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
        judge: Judge,
        *,
        holder: tuple[str, str],
    ) -> "TailResponse":
        """Return the answer that sends what comes after a place, until the tail ends.

        Args:
            holder: the credential that asks, and its workspace. A credential gets a quarter of all
                tails at most, and a workspace half of them.

        Raises:
            TooManyReads: the credential or its workspace has its share.
            Overloaded: there are as many tails as there may be, or the server stops.
        """
        count = self._held[_ALL]
        if self._stopping or count >= self._most:
            raise Overloaded(f"this process has {count} live tails, and takes no more")
        shares = [_ALL, ("credential", holder[0]), ("workspace", holder[1])]
        for share in shares[1:]:
            most = math.ceil(self._most / _PARTS[share[0]])
            if self._held[share] >= most:
                raise TooManyReads(
                    f"this {share[0]} has {most} live tails in this process, which is its share"
                )
        self._held.update(shares)
        return TailResponse(self._tail(database, filters, after, judge), partial(self._end, shares))

    def stop(self) -> None:
        """End all tails, each after what it is sending."""
        self._stopping = True
        self._wake()

    async def watch(self, *, every: float) -> None:
        """Wake the tails whenever something was committed, until cancelled.

        Args:
            every: seconds between two freshness checks.
        """
        observed = NOTHING_OBSERVED
        while True:
            try:
                new = await asyncio.to_thread(self._check.new_events, observed)
            except LedgerUnavailable:
                # The tails find out why, and end.
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
        # Leave out those that are zero by now: there may be a new credential for each tail.
        self._held = +self._held

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
                entries, after = await self._threads.run(
                    Work.TAIL, read_news, database, filters, after
                )
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
async def tailing(ledger: OpenLedger, threads: Threads) -> AsyncIterator[Tails]:
    """Serve live tails until the block ends.

    Raises:
        LedgerUnavailable: the freshness check cannot connect.
    """
    check = open_freshness_check(ledger.database)
    settings = ledger.settings
    tails = Tails(
        check, threads, most=settings.tails, heartbeat_seconds=settings.tail_heartbeat_seconds
    )
    watching = asyncio.create_task(tails.watch(every=settings.tail_seconds))
    try:
        yield tails
    finally:
        tails.stop()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        check.close()
