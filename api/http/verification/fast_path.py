"""The fast path: answers to verifications that take microseconds.

This service verifies a thousand tokens for each change, and a framework's routing, validation and
dependencies take some twenty times as long as a verification. So two kinds of requests are answered
here, before the framework sees them: a gateway's, and a ``POST /v1/verify`` of the usual form. An
unusual request, or one that cannot be answered at once, goes to the application, which also answers
the usual ones in the same way.

Verifications are counted and not logged: at ten thousand a second, a log line for each would take
longer than the verification.
"""

from asyncio import AbstractEventLoop
from functools import lru_cache, partial
from time import perf_counter
from typing import NamedTuple, Protocol

import orjson
import structlog

from api.formats.as_json import verdict_as_json
from api.http.credentials import default_workspace, refusal
from api.http.metrics import Fast, Metrics
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
from domain.verdict import AuthRow, Code, Verified
from projections.auth.authentication import TryVerify
from projections.auth.verification import TokenVerification

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


Answered = tuple[Fast, bytes, bytes]
"""How it is counted, the lines of the head with their line ends, and the body."""


class Held(Protocol):
    """A connection that holds a request until it is answered."""

    def answer_held(self, message: Message, verify: TryVerify | None) -> None:
        """Answer a request, if it is still held.

        Args:
            verify: verifies tokens, after a freshness check that began after the request had
                arrived; ``None`` if the check failed.
        """

    def give_up(self) -> None:
        """End the connection after an error."""


_Waiting = tuple[Held, Message]
"""A connection, and its request."""


class FastPath:
    """Answers verifications for the connections of one event loop."""

    def __init__(self, verification: TokenVerification, metrics: Metrics) -> None:
        self._verification = verification
        self._metrics = metrics
        self._turn: list[_Waiting] = []
        self._turn_began = 0.0
        self._answered: dict[Fast, int] = {}
        # A row that was read again is another object, so its head is written again.
        self._heads: dict[str, tuple[AuthRow, bytes | None, Fast]] = {}
        self._default_headers: Headers = []
        self._default_lines = b""

    def hold(self, held: Held, message: Message, loop: AbstractEventLoop) -> None:
        """Answer a complete request in this turn of the loop, after one freshness check for all.

        Where the freshness check takes a round trip, answer it after that.
        """
        if not self._turn:
            self._turn_began = perf_counter()
            loop.call_soon(self._answer_turn)
        self._turn.append((held, message))

    def default_lines(self, headers: Headers) -> bytes:
        """Return the headers of every answer, such as the date, as bytes.

        Args:
            headers: the server replaces this list each second, and does not change it.
        """
        if headers is not self._default_headers:
            lines = (b"%b: %b\r\n" % (name, value) for name, value in headers)
            self._default_headers, self._default_lines = headers, b"".join(lines)
        return self._default_lines

    def answer(self, message: Message, verify: TryVerify) -> tuple[int, bytes] | None:
        """Answer a usual request that can be answered at once.

        Args:
            message: a request that `may_answer`.
            verify: as for `Held.answer_held`.

        Returns:
            The status, and the bytes of the answer after the date; ``None`` if the application has
            to answer.
        """
        target, named = message.head.target, message.head.named
        if message.head.repeated is not None:
            return None
        given = named.get(b"x-request-id")
        request_id = (new_request_id() if given is None else checked_request_id(given)).encode()
        try:
            token = token_of(named)
            if target == VERIFY_TARGET:
                answer = self._verify(token, named, message.body, verify)
            else:
                answer = self._allow(token, wanted_by(target), request_id, verify)
        except Exception:  # noqa: BLE001 - one damaged row must not stop the other requests
            # The application verifies again, and answers with the error.
            return None
        if answer is None:
            return None
        counted, head, content = answer
        self._answered[counted] = self._answered.get(counted, 0) + 1
        return counted.status, b"%bx-request-id: %b\r\n\r\n%b" % (head, request_id, content)

    def _answer_turn(self) -> None:
        turn, self._turn = self._turn, []
        self._verification.when_fresh(partial(self._answer_all, turn, self._turn_began))

    def _answer_all(self, turn: list[_Waiting], began: float, verify: TryVerify | None) -> None:
        for held, message in turn:
            try:
                held.answer_held(message, verify)
            except Exception:  # noqa: BLE001 - an error of one connection must not stop the others
                _log.exception("failed")
                _give_up(held)
        seconds = perf_counter() - began
        answered, self._answered = self._answered, {}
        for counted, times in answered.items():
            self._metrics.turn(counted, count=times, seconds=seconds)

    def _allow(
        self, token: str, wanted: tuple[str, ...], request_id: bytes, verify: TryVerify
    ) -> Answered | None:
        answer = verify(token, wanted)
        if answer is None:
            return None
        verdict = answer.verdict
        if type(verdict) is not Verified:
            refused = _refused(verdict.code, wanted)
            counted = self._metrics.fast(verdict, token, "GET", gateway.PATH, refused.status)
            return counted, *refused.about(request_id)
        key = verdict.key
        written = self._heads.get(key.lookup_id)
        if written is None or written[0] is not key:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            allowed = self._metrics.fast(verdict, token, "GET", gateway.PATH, 204)
            self._heads[key.lookup_id] = written = key, _head_of_yes(key), allowed
        return None if written[1] is None else (written[2], written[1], b"")

    def _verify(
        self, token: str, named: dict[bytes, bytes], body: bytes, verify: TryVerify
    ) -> Answered | None:
        asked = usual_request(named.get(b"content-type"), body)
        if asked is None:
            return None
        caller = verify(token, _VERIFY_SCOPES)
        if caller is None or type(caller.verdict) is not Verified:
            return None
        token, wanted = asked
        workspace = default_workspace(caller.verdict.key.workspace)
        answer = verify(token, wanted, workspace=workspace)
        if answer is None:
            return None
        counted = self._metrics.fast(answer.verdict, token, "POST", VERIFY_PATH, 200)
        content = orjson.dumps(verdict_as_json(answer))
        return counted, _HEAD_OF_VERDICT % len(content), content


def _give_up(held: Held) -> None:
    try:
        held.give_up()
    except Exception:  # noqa: BLE001 - as above
        _log.exception("failed")


class _Refusal(NamedTuple):
    """A refusal for a gateway, without the request's id."""

    status: int
    head: bytes
    before: bytes
    after: bytes

    def about(self, request_id: bytes) -> tuple[bytes, bytes]:
        content = self.before + request_id + self.after
        return b"content-length: %d\r\n%b" % (len(content), self.head), content


# A flood of wrong tokens must not cost more than honest callers do.
@lru_cache(maxsize=1024)
def _refused(code: Code, wanted: tuple[str, ...]) -> _Refusal:
    error = refusal(code, " ".join(wanted))
    answer = refusal_answer(error, _ID_GOES_HERE)
    before, _, after = bytes(answer.body).partition(_ID_GOES_HERE.encode())
    headers = [header for header in answer.raw_headers if header[0] != b"content-length"]
    return _Refusal(
        answer.status_code,
        b"".join(b"%b: %b\r\n" % header for header in (*headers, *gateway.REFUSED_HEADERS)),
        before,
        after,
    )


def _head_of_yes(key: AuthRow) -> bytes | None:
    sent = [b"%b: %b\r\n" % header for header in gateway.headers_of(key)]
    # A line end in a damaged row must not become another header; uvicorn refuses it.
    if any(line.count(b"\n") + line.count(b"\r") > 2 for line in sent):  # noqa: PLR2004 - its end
        return None
    return b"".join(sent)
