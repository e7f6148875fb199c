"""What all requests have in common: request id, log line, metrics, and response headers."""

import itertools
import re
import secrets
from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import structlog
from starlette.datastructures import MutableHeaders

from api.http.methods import METHOD_ASKED
from api.http.metrics import Metrics
from api.http.problems import FAILURE, failure_answer
from domain.token_text import contains_token

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = structlog.get_logger()
# The id is logged and stored in events; `checked_request_id` rejects one that contains a token.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")
_PROCESS = secrets.token_hex(10)
_count = itertools.count(1)
_UNOBSERVED_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})


class Observed:
    """Outermost middleware, which also handles unexpected errors.

    Each request has an ``X-Request-Id``, its own or a new one, which appears in the answer, the log
    line and the events. The log has the route but neither path nor query, which may contain a token
    by mistake.
    """

    def __init__(self, app: "ASGIApp", metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        request_id = state["request_id"] = request_id_of(scope["headers"])
        status = 0

        async def send_observed(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                if scope["path"].startswith("/v1/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception:
            _log.exception("failed", request_id=request_id)
            state["outcome"] = FAILURE
            if status:
                # The answer has begun; it can only be aborted.
                raise
            await failure_answer(request_id)(scope, receive, send_observed)
        finally:
            seconds = perf_counter() - started
            method = str(state.get(METHOD_ASKED) or scope["method"])
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.request(method, route, status, seconds)
            self._metrics.outcome(state.get("outcome", "OK"))
            if route not in _UNOBSERVED_ROUTES:
                _log.info(
                    "request",
                    method=method,
                    route=route,
                    status=status,
                    outcome=state.get("outcome", "OK"),
                    actor=state.get("actor"),
                    request_id=request_id,
                    milliseconds=round(seconds * 1000, 3),
                )


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the request's id if it can be logged, and a new one otherwise."""
    given = [value for name, value in headers if name == b"x-request-id"]
    return checked_request_id(given[0]) if len(given) == 1 else new_request_id()


def checked_request_id(given: bytes) -> str:
    """Return this request id if it can be logged, and a new one otherwise."""
    if not _REQUEST_ID.fullmatch(given):
        return new_request_id()
    request_id = given.decode("ascii")
    return new_request_id() if contains_token(request_id) else request_id


def new_request_id() -> str:
    """Return a unique request id."""
    return f"req_{_PROCESS}{next(_count):012x}"
