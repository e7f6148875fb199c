"""One question to a server's fence for all that wait when it begins.

A check may answer from memory if nothing was committed before the check began. Whatever a question
that begins after that is answered does for it, and for all others that have come by then: so one is
under way at a time, and those that come meanwhile share the next (the read index of Raft: Ongaro,
"Consensus: Bridging Theory and Practice", section 6.4).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

import structlog

from api.composition import OpenLedger
from domain.errors import LedgerUnavailable
from projections.auth.authentication import Authentication
from projections.auth.freshness_async import OpenQuestion
from projections.store.database import Database

_log = structlog.get_logger()
_PATIENCE_SECONDS = 5.0

Then = Callable[[bool], None]
"""Told whether all is known now that was committed before it was asked for."""


class SharedQuestion:
    """Asks on behalf of the checks of one event loop."""

    def __init__(self, authentication: Authentication, database: Database) -> None:
        self._authentication = authentication
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._question: OpenQuestion | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._asked: list[Then] = []
        self._waiting: list[Then] = []
        self._began = 0.0
        self._patience: asyncio.TimerHandle | None = None

    def ask(self, then: Then) -> None:
        """Ask, or share the next question; ``then`` is called once, and must not raise."""
        if self._authentication.is_fresh():
            then(True)  # noqa: FBT003 - what it is told
            return
        self._waiting.append(then)
        if not self._asked:
            self._begin()

    async def answered(self) -> bool:
        """Wait for a question that begins from now on; tell whether it was answered."""
        answer: asyncio.Future[bool] = self._loop.create_future()

        def settle(known: bool) -> None:  # noqa: FBT001 - as told
            if not answer.done():
                answer.set_result(known)

        self.ask(settle)
        return await answer

    async def close(self) -> None:
        """Ask nothing any more."""
        if self._connecting is not None:
            # Not cancelled: a thread goes on all the same, and nobody would close what it opens.
            await self._connecting
        self._give_up()

    async def connect(self) -> None:
        """Connect, if that can be done now."""
        try:
            question = await asyncio.to_thread(OpenQuestion, self._database)
        except LedgerUnavailable as error:
            _log.warning("fence_not_connected", detail=str(error))
            return
        self._question = question
        self._loop.add_reader(question.fileno(), self._receive)

    def _begin(self) -> None:
        self._asked, self._waiting = self._waiting, []
        self._began = monotonic()
        if self._question is None:
            # Whoever is told so asks the slow way, in a thread, and learns what is wrong.
            self._reconnect()
            self._settle(known=False)
            return
        self._patience = self._loop.call_later(_PATIENCE_SECONDS, self._give_up)
        try:
            self._question.send(self._authentication.seen)
        except LedgerUnavailable:
            self._give_up()

    def _receive(self) -> None:
        if self._question is None:
            return
        if not self._asked:
            # A server that says something without being asked says that it ends.
            self._give_up()
            return
        try:
            answer = self._question.receive()
        except LedgerUnavailable:
            self._give_up()
            return
        if answer is not None:
            self._authentication.caught_up(answer.news, began=self._began)
            self._settle(known=True)

    def _settle(self, *, known: bool) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        asked, self._asked = self._asked, []
        for then in asked:
            then(known)
        if self._waiting and not self._asked:
            self._begin()

    def _give_up(self) -> None:
        question, self._question = self._question, None
        if question is not None:
            self._loop.remove_reader(question.fileno())
            question.close()
        self._settle(known=False)

    def _reconnect(self) -> None:
        if self._connecting is None or self._connecting.done():
            self._connecting = self._loop.create_task(self.connect())


@asynccontextmanager
async def asking(ledger: OpenLedger) -> AsyncIterator[SharedQuestion | None]:
    """Share questions until the block ends; ``None`` where a fence answers at once."""
    if ledger.authentication.answers_at_once:
        yield None
        return
    question = SharedQuestion(ledger.authentication, ledger.database)
    await question.connect()
    try:
        yield question
    finally:
        await question.close()
