"""Checks of tokens for the tasks of an event loop."""

from collections.abc import Sequence

from fastapi.concurrency import run_in_threadpool

from projections.authentication import Answer, Authentication
from projections.rebuild import Clock


class Checks:
    """Verifies tokens: here and now where that takes microseconds, else in a thread."""

    def __init__(self, authentication: Authentication, clock: Clock) -> None:
        self._authentication = authentication
        self._clock = clock

    async def verdict(
        self,
        token: str,
        wanted: Sequence[str],
        source: str | None,
        *,
        workspace: str | None = None,
    ) -> Answer:
        """Verify a token.

        Raises:
            LedgerUnavailable, Overloaded, ProjectionInconsistent: it cannot be told now.
        """
        now = self._clock()
        answer = self._authentication.verify_at_once(token, wanted, now=now, workspace=workspace)
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
