"""Coalesce freshness checks: one query to the server for all verifications that wait for one.

A verification may use the cache if a check that began after it found nothing new. So every
verification that waits when a check begins shares the result. One check runs at a time; the
verifications that arrive meanwhile share the next one (the read index of Raft: Ongaro, "Consensus:
Bridging Theory and Practice", section 6.4).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

import structlog

from domain.errors import LedgerUnavailable
from projections.auth.freshness import Freshness
from projections.auth.freshness_async import AsyncFreshnessCheck
from projections.store.database import Database

_log = structlog.get_logger()
_TIMEOUT_SECONDS = 5.0

Then = Callable[[bool], None]
"""Is called with whether the check succeeded."""


class CoalescedCheck:
    """Checks for the verifications of one event loop."""

    def __init__(self, freshness: Freshness, database: Database) -> None:
        self._freshness = freshness
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._check: AsyncFreshnessCheck | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._sharing: list[Then] = []
        self._waiting: list[Then] = []
        self._began = 0.0
        self._timeout: asyncio.TimerHandle | None = None

    def request(self, then: Then) -> None:
        """Begin a check, or share the next one; ``then`` is called once, and must not raise."""
        if self._freshness.is_current:
            then(True)  # noqa: FBT003 - the result
            return
        self._waiting.append(then)
        if not self._sharing:
            self._begin()

    async def wait(self) -> bool:
        """Wait for a check that begins from now on; return whether it succeeded."""
        result: asyncio.Future[bool] = self._loop.create_future()

        def settle(succeeded: bool) -> None:  # noqa: FBT001 - the result
            if not result.done():
                result.set_result(succeeded)

        self.request(settle)
        return await result

    async def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            # Not cancelled: its thread would finish all the same, and leave its connection open.
            await self._connecting
        self._disconnect()

    async def connect(self) -> None:
        """Connect; log a warning if that fails."""
        try:
            check = await asyncio.to_thread(AsyncFreshnessCheck, self._database)
        except LedgerUnavailable as error:
            _log.warning("freshness_check_not_connected", detail=str(error))
            return
        self._check = check
        self._loop.add_reader(check.fileno(), self._receive)

    def _begin(self) -> None:
        self._sharing, self._waiting = self._waiting, []
        self._began = monotonic()
        if self._check is None:
            # The callers then check in a thread, and raise what is wrong.
            self._reconnect()
            self._settle(succeeded=False)
            return
        self._timeout = self._loop.call_later(_TIMEOUT_SECONDS, self._disconnect)
        try:
            self._check.send(self._freshness.observed)
        except LedgerUnavailable:
            self._disconnect()

    def _receive(self) -> None:
        if self._check is None:
            return
        if not self._sharing:
            # A server that sends something without a query is about to close the connection.
            self._disconnect()
            return
        try:
            result = self._check.receive()
        except LedgerUnavailable:
            self._disconnect()
            return
        if result is not None:
            self._freshness.apply(result.new, began=self._began)
            self._settle(succeeded=True)

    def _settle(self, *, succeeded: bool) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
        sharing, self._sharing = self._sharing, []
        for then in sharing:
            then(succeeded)
        if self._waiting and not self._sharing:
            self._begin()

    def _disconnect(self) -> None:
        check, self._check = self._check, None
        if check is not None:
            self._loop.remove_reader(check.fileno())
            check.close()
        self._settle(succeeded=False)

    def _reconnect(self) -> None:
        if self._connecting is None or self._connecting.done():
            self._connecting = self._loop.create_task(self.connect())


@asynccontextmanager
async def coalescing(freshness: Freshness, database: Database) -> AsyncIterator[CoalescedCheck]:
    """Coalesce freshness checks until the block ends."""
    coalesced = CoalescedCheck(freshness, database)
    await coalesced.connect()
    try:
        yield coalesced
    finally:
        await coalesced.close()
