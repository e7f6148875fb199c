"""Forward authentication: the answer that a gateway asks for before it lets a request through.

nginx's ``auth_request``, Traefik's ForwardAuth, Caddy's ``forward_auth`` and Envoy's ``ext_authz``
all send the caller's headers and look at the status of the answer: 204 lets the request through,
401 and 403 refuse it. Whatever else happens is 503, which none of them takes for a yes.
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

Headers = list[tuple[bytes, bytes]]


def is_for_gateway(path: str) -> bool:
    """Tell whether a path is a gateway's; Envoy appends the path of the request it holds back."""
    return path == PATH or path.startswith(f"{PATH}/")


async def allow(checks: Checks, request: Scope) -> Headers:
    """Decide whether the request that a gateway holds back may pass.

    Args:
        checks: who knows the keys.
        request: the gateway's own request; the credential is among its headers.

    Returns:
        The headers for the gateway to pass on; the status that goes with them is 204.

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
    return [
        (b"x-auth-key-id", key.key_id.encode()),
        (b"x-auth-workspace", key.workspace.encode()),
        (b"x-auth-scopes", " ".join(key.scopes).encode()),
    ]


@lru_cache(maxsize=1024)
def wanted_scopes(path: str, query: bytes) -> tuple[str, ...]:
    """Return the scopes that a gateway demands, by its query or by the path it puts in front.

    Envoy puts a fixed prefix before the path of the request that it holds back, and cannot add a
    query: ``/v1/forward-auth/scopes/mcp:read`` + ``/what/was/asked``. A caller who asks for a path
    that looks like that, where the prefix has no scopes, only makes it harder for itself.

    Raises:
        InsufficientScope: what is demanded is no scope, so nobody has it.
    """
    if path == PATH:
        asked = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        wanted = [value for name, value in asked if name == "scope"]
    elif path.startswith(_SCOPES_IN_PATH):
        wanted = path.removeprefix(_SCOPES_IN_PATH).partition("/")[0].split(",")
    else:
        wanted = []
    try:
        return tuple(scopes.checked(wanted)) if wanted else ()
    except Invalid:
        raise InsufficientScope("that the gateway demands, which is no valid scope") from None


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
                f" Envoy by the path prefix `{_SCOPES_IN_PATH}mcp:read`, with any method."
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
