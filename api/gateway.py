"""Forward authentication: the answer that a gateway asks for before it lets a request through.

nginx's ``auth_request``, Traefik's ForwardAuth, Caddy's ``forward_auth`` and Envoy's ``ext_authz``
all send the caller's headers and look at the status of the answer: 204 lets the request through,
401 and 403 refuse it. Whatever else happens is 503, which none of them takes for a yes. Envoy takes
200 alone for one, so its form of the question, with the scopes in the path, is answered by that.
"""

from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Scope

from api.checks import Checks
from api.credentials import presented_token, refusal
from api.routes.documented import answers, headers
from domain import scopes
from domain.errors import InsufficientScope, Invalid
from domain.judge import Verified

PATH = "/v1/forward-auth"
_SCOPES_IN_PATH = f"{PATH}/scopes/"
_LONGEST_DEMAND = 16_384

Headers = list[tuple[bytes, bytes]]


def is_for_gateway(path: str) -> bool:
    """Tell whether a path is a gateway's; Envoy appends the path of the request it holds back."""
    return path == PATH or path.startswith(f"{PATH}/")


async def allow(checks: Checks, request: Scope) -> tuple[int, Headers]:
    """Decide whether the request that a gateway holds back may pass.

    Args:
        checks: who knows the keys.
        request: the gateway's own request; the credential is among its headers.

    Returns:
        The status that is a yes to the gateway, and the headers for it to pass on.

    Raises:
        Unauthenticated: no credential, or none that is good.
        InsufficientScope: a good one with too small a scope; or the gateway demands what is no
            scope, and nobody may pass.
        LedgerUnavailable, Overloaded, ProjectionInconsistent: it cannot be told now.
    """
    token = presented_token(request["headers"])
    wanted = wanted_scopes(request["path"], request["query_string"])
    client = request.get("client")
    verdict = (await checks.verdict(token, wanted, client and client[0])).verdict
    if not isinstance(verdict, Verified):
        raise refusal(verdict.code, " ".join(wanted))
    key = verdict.key
    headers = [
        (b"x-auth-key-id", key.key_id.encode()),
        (b"x-auth-workspace", key.workspace.encode()),
        (b"x-auth-scopes", " ".join(key.scopes).encode()),
    ]
    if request["path"] == PATH:
        return 204, headers
    return 200, [*headers, (b"content-length", b"0")]


def wanted_scopes(path: str, query: bytes) -> tuple[str, ...]:
    """Return the scopes that a gateway demands, by its query or by the path it puts in front.

    Envoy puts a fixed prefix before the path of the request that it holds back, and cannot add a
    query: ``/v1/forward-auth/scopes/mcp:read`` + ``/what/was/asked``. Nothing else is taken for a
    demand: whoever misspells one must not let everybody through.

    Raises:
        InsufficientScope: what is demanded is no scope, so nobody has it.
    """
    if path == PATH:
        return _wanted_by_query(query)
    if path.startswith(_SCOPES_IN_PATH):
        return _wanted_by_path(path.removeprefix(_SCOPES_IN_PATH).partition("/")[0])
    raise _misconfigured()


# What gateways demand is in their configurations: few demands, and short ones. A refusal is not
# remembered, so whoever asks here directly cannot fill the memory with long ones.
@lru_cache(maxsize=1024)
def _wanted_by_query(query: bytes) -> tuple[str, ...]:
    asked = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    if len(query) > _LONGEST_DEMAND or any(name != "scope" for name, _ in asked):
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
    return InsufficientScope("", "the gateway demands what is no scope, so nobody may pass")


def documented() -> dict[str, Any]:
    """Return the description of this door for the OpenAPI document."""
    described = answers(404)
    for status in ("404", "422"):
        described.pop(int(status), None)
    return {
        "get": {
            "tags": ["verify"],
            "summary": "Let a gateway's request through, or not",
            "operationId": "forward_auth",
            "description": (
                "The credential is that of the request which the gateway holds back, and needs the"
                " scopes that the gateway demands. Traefik, Caddy and nginx give them as `scope`;"
                f" Envoy by the path prefix `{_SCOPES_IN_PATH}mcp:read`, with any method; what may"
                " pass is then answered by 200, which is all that Envoy takes for a yes."
            ),
            "security": [{"Bearer": []}, {"X-API-Key": []}],
            "parameters": [
                {
                    "name": "scope",
                    "in": "query",
                    "description": "A scope that is demanded; may be given several times.",
                    "schema": {"type": "string", "examples": ["mcp:read"]},
                }
            ],
            "responses": {
                "204": {
                    "description": "The request may pass, with these headers.",
                    "headers": headers(
                        {
                            "X-Auth-Key-Id": "The key.",
                            "X-Auth-Workspace": "Its workspace.",
                            "X-Auth-Scopes": "Its scopes, with a blank between two.",
                        }
                    ),
                }
            }
            | {str(status): response for status, response in described.items()},
        }
    }
