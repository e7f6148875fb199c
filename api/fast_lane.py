"""The fast lane: what checks of tokens are answered with, where it takes microseconds.

A check is what this service does a thousand times for each change, and a framework's routing,
validation and dependencies take some twenty times as long as the check itself. So two kinds of
requests are answered here, before the framework sees them: a gateway's whose key may pass, and a
``POST /v1/verify`` of the usual form. One with anything unusual about it, or that is refused, or
that cannot be answered at once, is left to the routes, which answer the usual ones just as well.

Checks are counted and not logged: at ten thousand a second, a line for each would take longer than
the checks.
"""

from asyncio import AbstractEventLoop
from collections import Counter
from datetime import datetime
from functools import lru_cache
from time import perf_counter
from typing import Protocol

import orjson

from api import gateway
from api.credentials import CREDENTIAL_HEADERS, presented_token
from api.metrics import Metrics
from api.observed import checked_request_id, new_request_id
from api.representations import verdict_as_json
from domain import scopes
from domain.errors import Invalid, LedgerError
from domain.judge import AuthRow, Code, Verified
from projections.authentication import Authentication
from projections.rebuild import Clock

VERIFY_PATH = "/v1/verify"
_VERIFY_TARGET = VERIFY_PATH.encode()
_GATEWAY_TARGET = gateway.PATH.encode()
_VERIFY_SCOPES = ("api-keys:verify",)
_LONGEST_USUAL_BODY = 1024  # the least that the limit on bodies can be set to
_JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8"})
_HEAD_OF_VERDICT = (
    b"content-length: %d\r\n"
    b"content-type: application/json\r\n"
    b"x-content-type-options: nosniff\r\n"
    b"cache-control: no-store\r\n"
)

Headers = list[tuple[bytes, bytes]]
Asked = tuple[str, tuple[str, ...]]
"""A token, and the scopes that it is to be used for."""

Answered = tuple[bytes, bytes]
"""Lines of a head, each with its end, and a body."""


class Held(Protocol):
    """A connection whose request is held back until it is answered."""

    def answer_held(self, now: datetime | None) -> None:
        """Answer it; ``now`` is what `FastLane.catch_up` returned."""


class FastLane:
    """Answers checks for the connections of one event loop."""

    def __init__(self, authentication: Authentication, clock: Clock, metrics: Metrics) -> None:
        self._authentication = authentication
        self._clock = clock
        self._metrics = metrics
        self._turn: list[Held] = []
        self._turn_began = 0.0
        self._allowed = 0
        self._verdicts: list[Code] = []

    def hold(self, held: Held, loop: AbstractEventLoop) -> None:
        """Let a request that has arrived whole be answered before the loop looks for more."""
        if not self._turn:
            self._turn_began = perf_counter()
            loop.call_soon(self._answer_turn)
        self._turn.append(held)

    def catch_up(self) -> datetime | None:
        """Ask the fence, for all the requests that have arrived whole.

        Returns:
            The time at which they are to be decided; ``None`` if the ledger cannot be asked.
        """
        try:
            self._authentication.catch_up()
        except LedgerError:
            # Whoever is left to the application asks again there, and is told why.
            return None
        return self._clock()

    def answer(self, target: bytes, headers: Headers, body: bytes, now: datetime) -> bytes | None:
        """Answer a check, if it can be done at once and by what is usual.

        Args:
            target: of the request, which `may_answer`.
            headers: the names in lower case.
            body: all of it.
            now: what `catch_up` returned, after the request had arrived.

        Returns:
            The answer as it goes over the wire, without its status line and date; ``None`` if it
            is for the application to answer.
        """
        named = dict(headers)
        if len(named) != len(headers):
            return None
        credentials = [(name, named[name]) for name in CREDENTIAL_HEADERS if name in named]
        try:
            token = presented_token(credentials)
            if target == _VERIFY_TARGET:
                answer = self._verify(token, named, body, now)
            else:
                answer = self._allow(token, target.partition(b"?")[2], now)
        except LedgerError:
            return None
        if answer is None:
            return None
        given = named.get(b"x-request-id")
        request_id = new_request_id() if given is None else checked_request_id(given)
        head, content = answer
        return b"%bx-request-id: %b\r\n\r\n%b" % (head, request_id.encode(), content)

    def _answer_turn(self) -> None:
        turn, self._turn = self._turn, []
        now = self.catch_up()
        for held in turn:
            held.answer_held(now)
        seconds = perf_counter() - self._turn_began
        count = self._metrics.checks
        if self._allowed:
            count(Code.VALID, "GET", gateway.PATH, 204, count=self._allowed, seconds=seconds)
            self._allowed = 0
        if self._verdicts:
            for code, times in Counter(self._verdicts).items():
                count(code, "POST", VERIFY_PATH, 200, count=times, seconds=seconds)
            self._verdicts.clear()

    def _allow(self, token: str, query: bytes, now: datetime) -> Answered | None:
        wanted = gateway.wanted_scopes(gateway.PATH, query)
        verdict = self._authentication.verify_caught_up(token, wanted, now=now)
        if verdict is None or type(verdict.verdict) is not Verified:
            return None
        head = _head_of_yes(verdict.verdict.key)
        if head is None:
            return None
        self._allowed += 1
        return head, b""

    def _verify(
        self, token: str, named: dict[bytes, bytes], body: bytes, now: datetime
    ) -> Answered | None:
        asked = _usual_request(named.get(b"content-type"), body)
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
        self._verdicts.append(verdict.verdict.code)
        content = orjson.dumps(verdict_as_json(verdict))
        return _HEAD_OF_VERDICT % len(content), content


def may_answer(method: bytes, target: bytes) -> bool:
    """Tell by a request's first line whether the lane may have an answer to it."""
    if method == b"GET":
        return target.partition(b"?")[0] == _GATEWAY_TARGET
    return method == b"POST" and target == _VERIFY_TARGET


@lru_cache(maxsize=10_000)
def _head_of_yes(key: AuthRow) -> bytes | None:
    sent = [b"%b: %b\r\n" % header for header in gateway.headers_of(key)]
    # What is in a damaged row must not become a header of its own; uvicorn knows how to refuse it.
    if any(line.count(b"\n") + line.count(b"\r") > 2 for line in sent):  # noqa: PLR2004 - its end
        return None
    return b"".join(sent)


def _usual_request(content_type: bytes | None, body: bytes) -> Asked | None:
    """Return what a usual request asks; ``None`` if it is for the framework to read.

    It is plain JSON in which neither name occurs twice, nothing is written as an escape, and the
    values are of the right types; and it names no workspace.
    """
    if (
        len(body) > _LONGEST_USUAL_BODY
        or b"\\" in body
        or body.count(b'"token"') != 1
        or body.count(b'"scopes"') > 1
        or content_type is None
        or content_type.lower() not in _JSON_TYPES
    ):
        return None
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(asked) is not dict or not asked.keys() <= {"token", "scopes"}:
        return None
    token, wanted = asked.get("token"), asked.get("scopes", [])
    if type(token) is not str or type(wanted) is not list or {str} < {*map(type, wanted), str}:
        return None
    usual = _usual_scopes(tuple(wanted)) if len(wanted) <= scopes.MAX_SCOPES else None
    return None if usual is None else (token, usual)


@lru_cache(maxsize=1024)
def _usual_scopes(wanted: tuple[str, ...]) -> tuple[str, ...] | None:
    try:
        return tuple(scopes.checked(wanted)) if wanted else ()
    except Invalid:
        return None
