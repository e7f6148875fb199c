"""The fast lane: checks of tokens, answered without the framework.

A check is what this service does a thousand times for each change, and a framework's routing,
validation and dependencies take some twenty times as long as the check itself. So two kinds of
requests are answered here, as by a plain ASGI application, before the framework sees them: a
gateway's, and a ``POST /v1/verify`` of the usual form. One with anything unusual about it goes on
to the framework's route, which answers the usual ones just as well.

Checks are counted, and logged only at the level debug: at ten thousand a second, a line for each
would take longer than the checks.
"""

import logging
from functools import lru_cache
from time import perf_counter

import orjson
import structlog
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from api import gateway
from api.checks import Checks
from api.credentials import presented_token, refusal
from api.metrics import Metrics
from api.observed import request_id_of
from api.problems import FAILURE, failure_answer, refusal_answer
from api.representations import verdict_as_json
from domain import scopes
from domain.errors import Invalid, LedgerError
from domain.judge import Code, Verified

VERIFY_PATH = "/v1/verify"
_VERIFY_SCOPES = ("api-keys:verify",)
_LONGEST_USUAL_BODY = 1024  # the least that the limit on bodies can be set to
_JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8"})
_JSON = (b"content-type", b"application/json")
_COMMON_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]

_log = logging.getLogger("keyledger.checks")

Headers = list[tuple[bytes, bytes]]
Asked = tuple[str, tuple[str, ...]]
"""A token, and the scopes that it is to be used for."""


async def serve_check(app: Starlette, scope: Scope, receive: Receive, send: Send) -> Receive | None:
    """Serve a request if it is one for the fast lane.

    Returns:
        ``None`` if it was served; else what gives the request's body to whoever serves it.
    """
    path = scope["path"]
    if gateway.is_for_gateway(path):
        await _answer(app, scope, send, None)
        return None
    if path != VERIFY_PATH or scope["method"] != "POST" or scope["query_string"]:
        return receive
    message = await receive()
    asked = _usual_request(scope["headers"], message)
    if asked is None:
        return _replay(message, receive)
    await _answer(app, scope, send, asked)
    return None


async def _answer(app: Starlette, scope: Scope, send: Send, asked: Asked | None) -> None:
    started = perf_counter()
    checks: Checks = app.state.checks
    metrics: Metrics = app.state.metrics
    request_id = request_id_of(scope["headers"])
    route = gateway.PATH if asked is None else VERIFY_PATH
    code: str = Code.VALID
    status, body = 204, b""
    refused = None
    try:
        if asked is None:
            status, headers = await gateway.allow(checks, scope)
            headers.append((b"x-request-id", request_id.encode()))
        else:
            code, body = await _verify(checks, scope, asked)
            status = 200
            headers = _headers(request_id, [_JSON, (b"content-length", b"%d" % len(body))])
    except LedgerError as error:
        code = error.code
        refused = refusal_answer(error, request_id)
    except Exception:  # noqa: BLE001 - as in `Observed`, which a check does not come by
        structlog.get_logger().exception("failed", request_id=request_id)
        code = FAILURE
        refused = failure_answer(request_id)
    if refused is not None:
        status, body = refused.status_code, bytes(refused.body)
        headers = _headers(request_id, refused.raw_headers)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    metrics.check(code, scope["method"], route, status, perf_counter() - started)
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("%s %s %s %s", route, status, code, request_id)


def _headers(request_id: str, headers: Headers) -> Headers:
    return [*headers, *_COMMON_HEADERS, (b"x-request-id", request_id.encode())]


async def _verify(checks: Checks, scope: Scope, asked: Asked) -> tuple[str, bytes]:
    token, wanted = asked
    source = scope["client"] and scope["client"][0]
    presented = presented_token(scope["headers"])
    caller = (await checks.verdict(presented, _VERIFY_SCOPES, source)).verdict
    if not isinstance(caller, Verified):
        raise refusal(caller.code, _VERIFY_SCOPES[0])
    workspace = caller.key.workspace
    answer = await checks.verdict(token, wanted, source, workspace=workspace)
    return answer.verdict.code, orjson.dumps(verdict_as_json(answer))


def _usual_request(headers: Headers, message: Message) -> Asked | None:
    """Return what a usual request asks; ``None`` if it is for the framework to read.

    It is one body of plain JSON in which neither name occurs twice, nothing is written as an
    escape, and the values are of the right types; and it names no workspace.
    """
    body = message.get("body", b"")
    types = [value.lower() for name, value in headers if name == b"content-type"]
    if (
        message.get("more_body")
        or len(body) > _LONGEST_USUAL_BODY
        or b"\\" in body
        or body.count(b'"token"') != 1
        or body.count(b'"scopes"') > 1
        or len(types) != 1
        or types[0] not in _JSON_TYPES
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


def _replay(message: Message, receive: Receive) -> Receive:
    """Return a ``receive`` that begins with a message that was taken out already."""
    messages = [message]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
