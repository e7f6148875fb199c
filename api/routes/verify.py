"""Verifying tokens on behalf of other services."""

from typing import Annotated

from fastapi import APIRouter, Request, Response, Security
from fastapi.responses import JSONResponse

from api.credentials import Requester, require
from api.requests import StrictRoute, ledger_of
from api.routes.documented import answers
from api.schemas import VerdictAnswer, VerifyToken
from domain import scopes
from domain.judge import Verified
from domain.times import to_text
from projections.authentication import Answer

router = APIRouter(prefix="/v1", tags=["verify"], route_class=StrictRoute)

Verifying = Annotated[Requester, Security(require, scopes=["api-keys:verify"])]


@router.post("/verify", responses=answers(413, ok=VerdictAnswer))
def verify_token(request: Request, requester: Verifying, body: VerifyToken) -> Response:
    """Tell whether a token is good, for the scopes asked for.

    The answer is 200 whatever the verdict; `valid` and `code` say it. Keys of a workspace other
    than the credential's do not exist.
    """
    ledger = ledger_of(request)
    answer = ledger.authentication.verify(
        body.token,
        scopes.checked(body.scopes) if body.scopes else (),
        now=ledger.clock(),
        workspace=requester.acting_in(body.workspace),
        source=requester.caller.source_ip,
    )
    request.state.outcome = answer.verdict.code
    request.app.state.metrics.verdict(answer.verdict.code)
    return JSONResponse(_as_json(answer))


def _as_json(answer: Answer) -> dict[str, object]:
    key = answer.verdict.key
    return {
        "valid": isinstance(answer.verdict, Verified),
        "code": answer.verdict.code,
        "key_id": key and key.key_id,
        "name": key and key.name,
        "workspace": key and key.workspace,
        "role": key and key.role,
        "scopes": key and list(key.scopes),
        "expires_at": key and key.expires_at and to_text(key.expires_at),
        "position": answer.position,
    }
