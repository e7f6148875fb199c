"""The fast lane: what checks of tokens are answered with, where it takes microseconds.

A check is what this service does a thousand times for each change, and a framework's routing,
validation and dependencies take some twenty times as long as the check itself. So two kinds of
requests are answered here, before the framework sees them: a gateway's, and a ``POST /v1/verify``
of the usual form. One with anything unusual about it, or that cannot be answered at once, is left
to the application, which answers the usual ones just as well.

Checks are counted and not logged: at ten thousand a second, a line for each would take longer than
the checks.
"""

from asyncio import AbstractEventLoop
from datetime import datetime
from functools import lru_cache
from time import perf_counter
from typing import NamedTuple, Protocol

import orjson
import structlog

from api.formats.as_json import verdict_as_json
from api.http.coalesced_check import SharedQuestion
from api.http.credentials import refusal
from api.http.metrics import Metrics
from api.http.problems import refusal_answer
from api.http.protocol.messages import Message
from api.http.request_logging import checked_request_id, new_request_id
from api.http.verification import gateway
from api.http.verification.fast_requests import (
    VERIFY_PATH,
    VERIFY_TARGET,
    token_of,
    usual_request,
    wanted_by,
)
from domain.judge import AuthRow, Code, Verified
from projections.auth.authentication import Authentication
from projections.rebuild.rebuild import Clock

_log = structlog.get_logger()
_VERIFY_SCOPES = ("api-keys:verify",)
_MOST_HEADS = 10_000
_ID_GOES_HERE = "the-id-of-the-request"
_HEAD_OF_VERDICT = (
    b"content-length: %d\r\n"
    b"content-type: application/json\r\n"
    b"x-content-type-options: nosniff\r\n"
    b"cache-control: no-store\r\n"
)

Headers = list[tuple[bytes, bytes]]


class Counted(NamedTuple):
    """As what an answer is counted."""

    code: str
    method: str
    route: str
    status: int


Answered = tuple[Counted, bytes, bytes]
"""As what it is counted, lines of a head, each with its end, and a body."""

_ALLOWED = Counted("VALID", "GET", gateway.PATH, 204)
_TOLD = {code: Counted(code.value, "POST", VERIFY_PATH, 200) for code in Code}


class Held(Protocol):
    """A connection whose request is held back until it is answered."""

    def answer_held(self, message: Message, now: datetime | None) -> None:
        """Answer a request, if it is still held back.

        Args:
            now: when the ledger was known to have said nothing new, after the request had arrived;
                ``None`` if it cannot be asked.
        """

    def give_up(self) -> None:
        """End the connection after an error."""


_Waiting = tuple[Held, Message]
"""A connection, and the request that is to be answered there."""


class FastLane:
    """Answers checks for the connections of one event loop."""

    def __init__(
        self,
        authentication: Authentication,
        clock: Clock,
        metrics: Metrics,
        question: SharedQuestion | None,
    ) -> None:
        self._authentication = authentication
        self._clock = clock
        self._metrics = metrics
        self._question = question
        self._turn: list[_Waiting] = []
        self._turn_began = 0.0
        self._answered: dict[Counted, int] = {}
        # A row that was read anew is another object, and its head is written anew.
        self._heads: dict[str, tuple[AuthRow, bytes | None]] = {}
        self._default_headers: Headers = []
        self._default_lines = b""

    def hold(self, held: Held, message: Message, loop: AbstractEventLoop) -> None:
        """Let a request that has arrived whole be answered before the loop looks for more.

        Where the fence does not answer at once, it is answered when the fence has.
        """
        if not self._turn:
            self._turn_began = perf_counter()
            loop.call_soon(self._answer_turn)
        self._turn.append((held, message))

    def catch_up(self) -> datetime | None:
        """Ask the fence, for all the requests that have arrived whole.

        Returns:
            The time at which they are to be decided; ``None`` if the ledger cannot be asked, or
            not at once.
        """
        if self._question is not None:
            return None
        try:
            self._authentication.catch_up()
        except Exception:  # noqa: BLE001 - or else nobody of the turn would be answered
            # Whoever is left to the application asks again there, and is told why.
            return None
        return self._clock()

    def default_lines(self, headers: Headers) -> bytes:
        """Return the headers of every answer, such as the date, as they go over the wire.

        Args:
            headers: the server replaces the list, each second, and does not change it.
        """
        if headers is not self._default_headers:
            lines = (b"%b: %b\r\n" % (name, value) for name, value in headers)
            self._default_headers, self._default_lines = headers, b"".join(lines)
        return self._default_lines

    def answer(self, message: Message, now: datetime) -> tuple[int, bytes] | None:
        """Answer a check, if it can be done at once and by what is usual.

        Args:
            message: a request that `may_answer`.
            now: what `catch_up` returned, after the request had arrived.

        Returns:
            The status, and the rest of the answer after the date as it goes over the wire; ``None``
            if it is for the application to answer.
        """
        target, named = message.head.target, message.head.named
        if message.head.repeated is not None:
            return None
        given = named.get(b"x-request-id")
        request_id = (new_request_id() if given is None else checked_request_id(given)).encode()
        try:
            token = token_of(named)
            if target == VERIFY_TARGET:
                answer = self._verify(token, named, message.body, now)
            else:
                answer = self._allow(token, wanted_by(target), request_id, now)
        except Exception:  # noqa: BLE001 - a damaged row must not leave all others of the turn waiting
            # The application asks again, and knows how to refuse, or to tell of a bug.
            return None
        if answer is None:
            return None
        counted, head, content = answer
        self._answered[counted] = self._answered.get(counted, 0) + 1
        return counted.status, b"%bx-request-id: %b\r\n\r\n%b" % (head, request_id, content)

    def _answer_turn(self) -> None:
        turn, self._turn = self._turn, []
        began = self._turn_began
        if self._question is None:
            self._answer_all(turn, began, self.catch_up())
        else:

            def answer_all(known: bool) -> None:  # noqa: FBT001 - as told
                self._answer_all(turn, began, self._clock() if known else None)

            self._question.ask(answer_all)

    def _answer_all(self, turn: list[_Waiting], began: float, now: datetime | None) -> None:
        for held, message in turn:
            try:
                held.answer_held(message, now)
            except Exception:  # noqa: BLE001 - an error of one connection leaves the others alone
                _log.exception("failed")
                _give_up(held)
        seconds = perf_counter() - began
        answered, self._answered = self._answered, {}
        for counted, times in answered.items():
            self._metrics.checks(*counted, count=times, seconds=seconds)

    def _allow(
        self, token: str, wanted: tuple[str, ...], request_id: bytes, now: datetime
    ) -> Answered | None:
        answer = self._authentication.verify_caught_up(token, wanted, now=now)
        if answer is None:
            return None
        verdict = answer.verdict
        if type(verdict) is not Verified:
            return _refused(verdict.code, wanted).about(request_id)
        key = verdict.key
        written = self._heads.get(key.lookup_id)
        if written is None or written[0] is not key:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[key.lookup_id] = written = key, _head_of_yes(key)
        return None if written[1] is None else (_ALLOWED, written[1], b"")

    def _verify(
        self, token: str, named: dict[bytes, bytes], body: bytes, now: datetime
    ) -> Answered | None:
        asked = usual_request(named.get(b"content-type"), body)
        if asked is None:
            return None
        verify = self._authentication.verify_caught_up
        caller = verify(token, _VERIFY_SCOPES, now=now)
        if caller is None or type(caller.verdict) is not Verified:
            return None
        token, wanted = asked
        verdict = verify(token, wanted, now=now, workspace=caller.verdict.key.workspace)
        if verdict is None:
            return None
        content = orjson.dumps(verdict_as_json(verdict))
        return _TOLD[verdict.verdict.code], _HEAD_OF_VERDICT % len(content), content


def _give_up(held: Held) -> None:
    try:
        held.give_up()
    except Exception:  # noqa: BLE001 - as above
        _log.exception("failed")


class _Refusal(NamedTuple):
    """The answer to a gateway's question that is a no, without the request's id."""

    counted: Counted
    head: bytes
    before: bytes
    after: bytes

    def about(self, request_id: bytes) -> Answered:
        content = self.before + request_id + self.after
        return self.counted, b"content-length: %d\r\n%b" % (len(content), self.head), content


# A flood of wrong tokens must not cost more than honest callers do.
@lru_cache(maxsize=1024)
def _refused(code: Code, wanted: tuple[str, ...]) -> _Refusal:
    error = refusal(code, " ".join(wanted))
    answer = refusal_answer(error, _ID_GOES_HERE)
    before, _, after = bytes(answer.body).partition(_ID_GOES_HERE.encode())
    headers = [header for header in answer.raw_headers if header[0] != b"content-length"]
    return _Refusal(
        Counted(error.code, "GET", gateway.PATH, answer.status_code),
        b"".join(b"%b: %b\r\n" % header for header in (*headers, *gateway.REFUSED_HEADERS)),
        before,
        after,
    )


def _head_of_yes(key: AuthRow) -> bytes | None:
    sent = [b"%b: %b\r\n" % header for header in gateway.headers_of(key)]
    # What is in a damaged row must not become a header of its own; uvicorn knows how to refuse it.
    if any(line.count(b"\n") + line.count(b"\r") > 2 for line in sent):  # noqa: PLR2004 - its end
        return None
    return b"".join(sent)
