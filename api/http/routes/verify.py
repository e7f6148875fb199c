"""Token verification for other services: Keyledger's own endpoints, and RFC 7662."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, Security
from fastapi.responses import JSONResponse

from api.formats.as_json import JsonObject, page_as_json, verdict_as_json
from api.http.client_authentication import CLIENT_FIELDS, FORM, OAuthCall, authenticated_call
from api.http.credentials import Requester, require
from api.http.dependencies import StrictRoute, verification_of
from api.http.metrics import Metrics
from api.http.oauth_errors import OAuthRoute, oauth_answers
from api.http.openapi import answers
from api.http.problems import WORKSPACE_IN_QUERY
from api.http.schemas.requests import TOKEN_EXAMPLE, InWorkspace, VerifyToken, VerifyTokens
from api.http.schemas.responses import IntrospectionAnswer, VerdictAnswer, VerdictListAnswer
from api.http.work import Work, does
from domain import scopes
from domain.errors import Invalid
from domain.verdict import Verified
from projections.auth.authentication import Answer

router = APIRouter(tags=["verify"], route_class=StrictRoute)

oauth_router = APIRouter(tags=["verify"], route_class=OAuthRoute)

Verifying = Annotated[Requester, Security(require, scopes=["api-keys:verify"])]
Where = Annotated[InWorkspace, Query()]
Introspecting = Annotated[OAuthCall, Security(authenticated_call, scopes=["api-keys:verify"])]


@router.post(
    "/v1/verify",
    operation_id="verify_token",
    summary="Verify a token",
    responses=answers(413, ok=VerdictAnswer),
)
@does(Work.VERIFY)
async def verify_token(
    request: Request, requester: Verifying, query: Where, body: VerifyToken
) -> Response:
    """Verify that a token is valid and that its key holds the requested scopes.

    The status is 200 for every verdict: read `valid` and `code`. A key of another workspace than
    the request's is not found.
    """
    workspace = requester.acting_in(query.workspace)
    answer = await _verdict(request, requester, body.token, body.scopes, workspace)
    request.state.outcome = answer.verdict.code
    return JSONResponse(verdict_as_json(answer))


@router.post(
    "/v1/verify/batch",
    operation_id="verify_tokens",
    summary="Verify up to 100 tokens",
    responses=answers(413, ok=VerdictListAnswer),
)
@does(Work.VERIFY)
async def verify_tokens(
    request: Request, requester: Verifying, query: Where, body: VerifyTokens
) -> Response:
    """Verify up to 100 tokens. The verdicts are in the order of the tokens."""
    workspace = requester.acting_in(query.workspace)
    verdicts = [
        await _verdict(request, requester, each.token, each.scopes, workspace)
        for each in body.tokens
    ]
    return JSONResponse(page_as_json([verdict_as_json(answer) for answer in verdicts], None))


@oauth_router.post(
    "/v1/introspect",
    operation_id="introspect_token",
    summary="Introspect a token (RFC 7662)",
    responses=oauth_answers(ok=IntrospectionAnswer),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                FORM: {
                    "schema": {
                        "type": "object",
                        "required": ["token"],
                        "properties": {
                            "token": {
                                "type": "string",
                                "description": "The token to introspect.",
                                "examples": [TOKEN_EXAMPLE],
                            },
                            "token_type_hint": {
                                "type": "string",
                                "description": "Ignored: all tokens are of one type.",
                            },
                            **CLIENT_FIELDS,
                        },
                    }
                }
            },
        }
    },
)
@does(Work.VERIFY)
async def introspect_token(request: Request, call: Introspecting, query: Where) -> Response:
    """Verify a token by OAuth 2.0 Token Introspection (RFC 7662).

    For every token that is not valid, the answer is only `{"active": false}`.

    An OAuth client can authenticate by HTTP Basic, or with `client_id` and `client_secret` in the
    form, instead of Bearer. The `client_id` is the id of a key, and the `client_secret` is its
    token. Errors then have the form of RFC 6749, section 5.2.
    """
    token = call.form.required("token")
    if call.form.has("workspace"):
        raise Invalid("workspace", WORKSPACE_IN_QUERY)
    workspace = call.requester.acting_in(query.workspace)
    answer = await _verdict(request, call.requester, token, [], workspace)
    return JSONResponse(_introspection(answer))


async def _verdict(
    request: Request, requester: Requester, token: str, wanted: list[str], workspace: str
) -> Answer:
    checked = scopes.checked(wanted) if wanted else ()
    source = requester.caller.source_ip
    answer = await verification_of(request).verify(
        token, checked, workspace=workspace, source=source
    )
    metrics: Metrics = request.app.state.metrics
    metrics.verdict(answer.verdict, token)
    return answer


def _introspection(answer: Answer) -> JsonObject:
    if not isinstance(answer.verdict, Verified):
        return {"active": False}
    key = answer.verdict.key
    described: dict[str, Any] = {
        "active": True,
        "scope": " ".join(key.scopes),
        "client_id": key.key_id,
        "sub": key.key_id,
        "token_type": "Bearer",
    }
    if key.expires_at is not None:
        described["exp"] = int(key.expires_at.timestamp())
    return described
