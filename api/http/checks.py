"""Checks of tokens for the tasks of an event loop."""

from collections.abc import Sequence

from api.http.coalesced_check import SharedQuestion
from api.http.work import Threads, Work
from projections.auth.authentication import Answer, Authentication
from projections.rebuild.rebuild import Clock


class Checks:
    """Verifies tokens: here and now where that takes microseconds, else in a thread."""

    def __init__(
        self,
        authentication: Authentication,
        clock: Clock,
        question: SharedQuestion | None,
        threads: Threads,
    ) -> None:
        self._authentication = authentication
        self._threads = threads
        self._clock = clock
        self._question = question

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
        answer = None
        if self._question is None:
            self._authentication.catch_up()
        if self._question is None or await self._question.answered():
            answer = self._authentication.verify_caught_up(
                token, wanted, now=self._clock(), workspace=workspace
            )
        if answer is not None:
            return answer
        return await self._threads.run(
            Work.VERIFY,
            self._authentication.verify,
            token,
            wanted,
            now=self._clock(),
            workspace=workspace,
            source=source,
        )
