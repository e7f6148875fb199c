"""What is the same for every request: its id, its log line, its metrics, its common headers."""

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
# It goes into the log and into events; `checked_request_id` takes none that contains a token.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")
_PROCESS = secrets.token_hex(10)
_count = itertools.count(1)
_UNOBSERVED_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})


class Observed:
    """Middleware around everything, errors included.

    A request brings its ``X-Request-Id`` or gets one; the answer, the log line and the events of
    the request all carry it. The log names the route and never the path or the query, where
    somebody may have put a token by mistake.
    """

    def __init__(self, app: "ASGIApp", metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
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
                # The answer has begun and cannot be taken back, only broken off.
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
    """Return the id that a request brings, if it is one that can be logged, else a new one."""
    given = [value for name, value in headers if name == b"x-request-id"]
    return checked_request_id(given[0]) if len(given) == 1 else new_request_id()


def checked_request_id(given: bytes) -> str:
    """Return an id that a request brings, if it is one that can be logged, else a new one."""
    if not _REQUEST_ID.fullmatch(given):
        return new_request_id()
    request_id = given.decode("ascii")
    return new_request_id() if contains_token(request_id) else request_id


def new_request_id() -> str:
    """Return an id that no other request has."""
    return f"req_{_PROCESS}{next(_count):012x}"
