"""Checks of tokens on the event loop: one question to the fence for all that wait for it."""

import asyncio
from collections.abc import Sequence

from fastapi.concurrency import run_in_threadpool

from projections.authentication import Answer, Authentication
from projections.rebuild import Clock


class Checks:
    """Verifies tokens for the tasks of one event loop.

    A check must see every change that was acknowledged before it began; it need not be the one
    that asks the fence. The event loop runs what is ready in the order in which it became ready.
    So when the first check of a turn asks the fence, and in the same breath queues `_end_turn`,
    all checks that run before `_end_turn` were ready, and so had begun, before the fence was
    asked, and may share its answer; whatever becomes ready later runs after it, and asks anew.
    With 32 callers at once one question serves some ten of them.
    """

    def __init__(self, authentication: Authentication, clock: Clock) -> None:
        self._authentication = authentication
        self._clock = clock
        self._caught_up = False

    async def verdict(
        self,
        token: str,
        wanted: Sequence[str],
        source: str | None,
        *,
        workspace: str | None = None,
    ) -> Answer:
        """Verify a token: here and now where that takes microseconds, else in a thread.

        Raises:
            LedgerUnavailable, Overloaded, ProjectionInconsistent: it cannot be told now.
        """
        if not self._caught_up:
            self._authentication.catch_up()
            self._caught_up = True
            asyncio.get_running_loop().call_soon(self._end_turn)
        now = self._clock()
        answer = self._authentication.verify_caught_up(token, wanted, now=now, workspace=workspace)
        if answer is not None:
            return answer
        return await run_in_threadpool(
            self._authentication.verify,
            token,
            wanted,
            now=now,
            workspace=workspace,
            source=source,
        )

    def _end_turn(self) -> None:
        self._caught_up = False
