"""Errors for OAuth 2.0 clients (RFC 6749, section 5.2), beside the problem documents.

A caller that authenticates as an OAuth client, by HTTP Basic or by form, gets the errors that OAuth
defines: JSON with ``error`` and ``error_description``. Other callers get problem documents, and so
do OAuth clients for errors that OAuth does not define, such as 503.
"""

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from api.http.client_authentication import is_oauth_client
from api.http.dependencies import StrictRoute
from api.http.openapi import answers
from api.http.problems import REALM, validation_problems
from domain import errors
from domain.token_text import hide_tokens

_NOT_ALLOWED = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
"""Characters that ``error_description`` must not have."""

_INVALID_REQUEST = (400, "invalid_request")
_STATUSES: Sequence[tuple[type[errors.LedgerError], tuple[int, str]]] = (
    (errors.Invalid, _INVALID_REQUEST),
    (errors.Unauthenticated, (401, "invalid_client")),
    (errors.InsufficientScope, (403, "unauthorized_client")),
    (errors.WorkspaceForbidden, (403, "unauthorized_client")),
)
_MEANINGS = {
    400: "The form is not valid, or more than one method of authentication is used.",
    401: "Client authentication failed; see `WWW-Authenticate`.",
    403: "The client is authenticated, but not allowed to do this.",
}


class OAuthErrorAnswer(BaseModel):
    """An error, for a caller that authenticates as an OAuth client (RFC 6749, section 5.2)."""

    error: Literal["invalid_request", "invalid_client", "unauthorized_client"]
    error_description: str = Field(examples=["the credential is not valid"])


class OAuthRoute(StrictRoute):
    """A route that sends errors in the form of RFC 6749 to OAuth clients."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, wrapped."""
        handle = super().get_route_handler()

        async def handle_for_clients(request: Request) -> Response:
            try:
                return await handle(request)
            except (errors.LedgerError, RequestValidationError) as error:
                answer = _oauth_error(request, error) if is_oauth_client(request) else None
                if answer is None:
                    raise
                return answer

        return handle_for_clients


def oauth_answers(**success: type) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of an `OAuthRoute`; see `answers` for other routes."""
    described = answers(400, 413, **success)
    for status, meaning in _MEANINGS.items():
        content = {"schema": OAuthErrorAnswer.model_json_schema()}
        described[status]["content"]["application/json"] = content
        described[status]["description"] += f" OAuth clients: {meaning}"
    return described


def _oauth_error(
    request: Request, error: errors.LedgerError | RequestValidationError
) -> Response | None:
    """Return the answer to an error; ``None`` if OAuth does not define one."""
    if isinstance(error, RequestValidationError):
        wrong = [f"{each['field']}: {each['message']}" for each in validation_problems(error)]
        return _answer(request, errors.Invalid.code, _INVALID_REQUEST, "; ".join(wrong))
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return _answer(request, error.code, status, str(error))
    return None


def _answer(request: Request, code: str, status: tuple[int, str], description: str) -> Response:
    request.state.outcome = code
    number, error = status
    content = {
        "error": error,
        "error_description": _NOT_ALLOWED.sub("'", hide_tokens(description)),
    }
    headers = {"WWW-Authenticate": f'Basic realm="{REALM}"'} if number == 401 else None  # noqa: PLR2004
    return JSONResponse(content, number, headers)
