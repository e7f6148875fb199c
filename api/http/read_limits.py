"""Limits on concurrent costly reads, per credential and per workspace."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter, fail_after
from fastapi import Request

from domain.errors import TooManyReads

OF_A_CREDENTIAL = 2
OF_A_WORKSPACE = 4
PATIENCE_SECONDS = 1.0
"""Time that a read waits for its turn. Without waiting, a client that repeats a refused request
immediately would cost more than the reads themselves."""

WAITING = 1000
"""Maximum number of requests that wait for their turn in a process."""


_Share = tuple[str, str, int]
"""Kind and name of the holder, and its limit."""


class ReadLimits:
    """Admits requests of a process: a few at a time per credential and per workspace."""

    def __init__(self, what: str) -> None:
        """Set the name of the limited requests, in the plural, for error messages."""
        self._what = what
        self._limiters: dict[tuple[str, str], CapacityLimiter] = {}
        self._waiting = 0

    @asynccontextmanager
    async def admitted(self, request: Request) -> AsyncIterator[None]:
        """Hold a place for an authenticated request until the block ends.

        Raises:
            TooManyReads: the credential or its workspace is at its limit, and none of its reads
                ended in time.
        """
        place = object()
        shares = [
            ("credential", request.state.actor, OF_A_CREDENTIAL),
            ("workspace", request.state.workspace, OF_A_WORKSPACE),
        ]
        taken = await self._take(shares, place)
        try:
            yield
        finally:
            self._give_back(taken, place)

    async def _take(self, shares: list[_Share], place: object) -> list[_Share]:
        if self._waiting >= WAITING:
            raise self._refusal()
        self._waiting += 1
        taken: list[_Share] = []
        try:
            with fail_after(PATIENCE_SECONDS):
                for share in shares:
                    kind, name, most = share
                    # Looked up each time: a limiter that is not in use is removed.
                    limiter = self._limiters.setdefault((kind, name), CapacityLimiter(most))
                    await limiter.acquire_on_behalf_of(place)
                    taken.append(share)
        except BaseException as error:
            self._give_back(taken, place)
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise
        finally:
            self._waiting -= 1
        return taken

    def _give_back(self, taken: list[_Share], place: object) -> None:
        for kind, name, _ in reversed(taken):
            limiter = self._limiters[kind, name]
            limiter.release_on_behalf_of(place)
            seen = limiter.statistics()
            if not seen.borrowed_tokens and not seen.tasks_waiting:
                del self._limiters[kind, name]

    def _refusal(self) -> TooManyReads:
        return TooManyReads(
            f"this credential or its workspace has too many {self._what} running: try again when"
            " one has ended"
        )
