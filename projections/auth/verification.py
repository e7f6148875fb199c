"""Verification of tokens in an event loop: the one way for the server's endpoints.

A verification checks freshness, decides from the key cache where it can, and leaves Argon2 and slow
reads to a thread.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

from projections.auth.authentication import Answer, Authentication, TryVerify
from projections.auth.coalesced_check import CoalescedCheck, coalescing
from projections.store.database import Database

RunInThread = Callable[[Callable[[], Answer]], Awaitable[Answer]]


Then = Callable[[TryVerify | None], None]
"""Is called after a freshness check with a function to use before the event loop goes on; with
``None`` if the check failed."""


class TokenVerification:
    """Verifies tokens for the tasks and callbacks of one event loop."""

    def __init__(
        self,
        authentication: Authentication,
        clock: Callable[[], datetime],
        run_in_thread: RunInThread,
        coalesced: CoalescedCheck | None,
    ) -> None:
        """Verify with ``authentication``; coalesce freshness checks where they take a while."""
        self._authentication = authentication
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._coalesced = coalesced

    async def verify(
        self,
        text: str,
        scopes: Sequence[str],
        *,
        workspace: str | None = None,
        source: str | None = None,
    ) -> Answer:
        """Decide whether a presented token may be used.

        Args:
            text: as presented, valid or not.
            scopes: that the use requires.
            workspace: the only one whose keys exist for the caller; ``None`` for all.
            source: the address that presented it, which limits its share of Argon2.

        Raises:
            LedgerUnavailable, RowNotSealed, Overloaded, ProjectionInconsistent: as
                `Authentication.verify` does.
        """
        answer = None
        if self._coalesced is None:
            self._authentication.freshness.check()
        if self._coalesced is None or await self._coalesced.wait():
            verify = self._authentication.try_verify(now=self._clock())
            answer = verify(text, scopes, workspace=workspace)
        if answer is not None:
            return answer
        blocking = partial(self._authentication.verify, text, scopes)
        return await self._run_in_thread(
            partial(blocking, now=self._clock(), workspace=workspace, source=source)
        )

    def when_fresh(self, then: Then) -> None:
        """Check freshness for many tokens at once: all that were presented before this call.

        Args:
            then: is called once, now or after the check, and must not raise.
        """
        if self._coalesced is not None:
            self._coalesced.request(partial(self._after_check, then))
            return
        try:
            self._authentication.freshness.check()
        except Exception:  # noqa: BLE001 - `verify` checks again for each token, and raises it there
            self._after_check(then, succeeded=False)
        else:
            self._after_check(then, succeeded=True)

    def _after_check(self, then: Then, succeeded: bool) -> None:  # noqa: FBT001 - as `CoalescedCheck` calls it
        then(self._authentication.try_verify(now=self._clock()) if succeeded else None)


@asynccontextmanager
async def verifying(
    authentication: Authentication,
    database: Database,
    clock: Callable[[], datetime],
    run_in_thread: RunInThread,
) -> AsyncIterator[TokenVerification]:
    """Verify tokens in this event loop until the block ends.

    Args:
        run_in_thread: runs what blocks.
    """
    if authentication.freshness.is_immediate:
        yield TokenVerification(authentication, clock, run_in_thread, None)
        return
    async with coalescing(authentication.freshness, database) as coalesced:
        yield TokenVerification(authentication, clock, run_in_thread, coalesced)
