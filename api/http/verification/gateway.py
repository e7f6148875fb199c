"""Forward authentication: a gateway asks here whether it may pass a request on.

nginx's ``auth_request``, Traefik's ForwardAuth, Caddy's ``forward_auth`` and Envoy's ``ext_authz``
all send the caller's headers and read the status of the answer: 204 allows the request, 401 and 403
refuse it. Every failure is 503, which all of them treat as a refusal. Envoy accepts only 200, so
its form of the request, with the scopes in the path, is answered with 200.
"""

from functools import lru_cache
from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl

import structlog
from starlette.types import Scope, Send

from api.http.credentials import presented_token, refusal
from api.http.metrics import Metrics
from api.http.openapi import answers, headers
from api.http.problems import FAILURE, failure_answer, refusal_answer
from api.http.request_logging import request_id_of
from domain import scopes
from domain.errors import InsufficientScope, Invalid, LedgerError
from domain.verdict import AuthRow, Code, Verified
from projections.auth.verification import TokenVerification

PATH = "/v1/forward-auth"
_SCOPES_IN_PATH = f"{PATH}/scopes/"
_LONGEST_DEMAND = 16_384
REFUSED_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]

Headers = list[tuple[bytes, bytes]]


def is_for_gateway(path: str) -> bool:
    """Return whether a path is for gateways; Envoy appends the path of its client's request."""
    return path == PATH or path.startswith(f"{PATH}/")


async def serve_gateway(
    scope: Scope, send: Send, verification: TokenVerification, metrics: Metrics
) -> None:
    """Answer a gateway as a plain ASGI application, without the framework."""
    started = perf_counter()
    request_id = request_id_of(scope["headers"])
    code: str = Code.VALID
    refused = None
    try:
        status, sent = await _allow(verification, scope, metrics)
    except LedgerError as error:
        code = error.code
        refused = refusal_answer(error, request_id)
    except Exception:  # noqa: BLE001 - as in `Observed`, which does not see this request
        structlog.get_logger().exception("failed", request_id=request_id)
        code = FAILURE
        refused = failure_answer(request_id)
    body = b""
    if refused is not None:
        status, body = refused.status_code, bytes(refused.body)
        sent = [*refused.raw_headers, *REFUSED_HEADERS]
    sent.append((b"x-request-id", request_id.encode()))
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
    seconds = perf_counter() - started
    metrics.request(scope["method"], PATH, status, seconds)
    metrics.outcome(code)


async def _allow(
    verification: TokenVerification, request: Scope, metrics: Metrics
) -> tuple[int, Headers]:
    """Return the status that allows the request, and the headers for the gateway to pass on."""
    token = presented_token(request["headers"])
    wanted = wanted_scopes(request["path"], request["query_string"])
    client = request.get("client")
    source = client[0] if client else None
    verdict = (await verification.verify(token, wanted, source=source)).verdict
    metrics.verdict(verdict, token)
    if not isinstance(verdict, Verified):
        raise refusal(verdict.code, " ".join(wanted))
    sent = headers_of(verdict.key)
    if request["path"] == PATH:
        return 204, sent
    return 200, [*sent, (b"content-length", b"0")]


def headers_of(key: AuthRow) -> Headers:
    """Return the headers that tell a gateway which key was accepted."""
    return [
        (b"x-auth-key-id", key.key_id.encode()),
        (b"x-auth-workspace", key.workspace.encode()),
        (b"x-auth-scopes", " ".join(key.scopes).encode()),
    ]


def wanted_scopes(path: str, query: bytes) -> tuple[str, ...]:
    """Return the scopes that a gateway requires, from its query or from the prefix of its path.

    Envoy puts a fixed prefix before the path of its client's request, and cannot add a query:
    ``/v1/forward-auth/scopes/mcp:read`` + ``/path/of/the/client``. Every other path is an error, so
    that a misspelled one does not accept all keys.

    Raises:
        InsufficientScope: a required scope is not valid, so no key has it.
    """
    if path == PATH:
        return _wanted_by_query(query)
    if path.startswith(_SCOPES_IN_PATH):
        return _wanted_by_path(path.removeprefix(_SCOPES_IN_PATH).partition("/")[0])
    raise _misconfigured()


# Gateways require what is in their configurations: few different scopes, and short ones. Errors are
# not cached, so that a client that asks here directly cannot fill the memory with long ones.
@lru_cache(maxsize=1024)
def _wanted_by_query(query: bytes) -> tuple[str, ...]:
    if len(query) > _LONGEST_DEMAND:
        raise _misconfigured()
    asked = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    if any(name != "scope" for name, _ in asked):
        raise _misconfigured()
    return _checked([value for _, value in asked]) if query else ()


@lru_cache(maxsize=1024)
def _wanted_by_path(names: str) -> tuple[str, ...]:
    if len(names) > _LONGEST_DEMAND:
        raise _misconfigured()
    return _checked(names.split(","))


def _checked(wanted: list[str]) -> tuple[str, ...]:
    try:
        return tuple(scopes.checked(wanted))
    except Invalid:
        raise _misconfigured() from None


def _misconfigured() -> InsufficientScope:
    return InsufficientScope(
        "", "the gateway requires a scope that is not valid: correct its configuration"
    )


def documented() -> dict[str, Any]:
    """Return the description of this endpoint for the OpenAPI document."""
    described = answers(404)
    for status in ("404", "422"):
        described.pop(int(status), None)
    return {
        "get": {
            "tags": ["verify"],
            "summary": "Authorize a request for a gateway",
            "operationId": "authorize_request",
            "description": (
                "The gateway sends the headers of the request that it has to authorize. The"
                " credential in them needs the scopes that the gateway requires. Traefik, Caddy and"
                " nginx name them in the query (`scope`). Envoy names them in the path, as in"
                f" `{_SCOPES_IN_PATH}mcp:read`, with any method; the answer is then 200 instead of"
                " 204, because Envoy accepts only 200."
            ),
            "security": [{"Bearer": []}, {"X-API-Key": []}],
            "parameters": [
                {
                    "name": "scope",
                    "in": "query",
                    "description": "A required scope. Repeat the parameter to require several.",
                    "schema": {"type": "string", "examples": ["mcp:read"]},
                }
            ],
            "responses": {
                "204": {
                    "description": "The request is allowed. Pass these headers on.",
                    "headers": headers(
                        {
                            "X-Auth-Key-Id": "Id of the key.",
                            "X-Auth-Workspace": "Workspace of the key.",
                            "X-Auth-Scopes": "Scopes of the key, separated by spaces.",
                        }
                    ),
                }
            }
            | {str(status): response for status, response in described.items()},
        }
    }
