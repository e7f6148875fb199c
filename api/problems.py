"""Errors as RFC 9457 problem documents: the one table from refusals to HTTP statuses."""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from domain import errors

_log = structlog.get_logger()

CONTENT_TYPE = "application/problem+json"
REALM = "keyledger"

STATUSES: Mapping[type[errors.LedgerError], tuple[int, str]] = {
    errors.Unauthenticated: (401, "No valid credential"),
    errors.NoCredential: (401, "No credential"),
    errors.CredentialRevoked: (401, "The credential was revoked"),
    errors.CredentialExpired: (401, "The credential has expired"),
    errors.InsufficientScope: (403, "The credential lacks a scope"),
    errors.ScopeNotHeld: (403, "Only scopes that one holds can be granted"),
    errors.WorkspaceForbidden: (403, "The credential acts in another workspace"),
    errors.KeyNotFound: (404, "No such key"),
    errors.ProjectionNotFound: (404, "No such projection"),
    errors.KeyRevoked: (409, "The key is revoked"),
    errors.KeyExpired: (409, "The key has expired"),
    errors.AlreadyRotated: (409, "The key has a successor"),
    errors.ConcurrentChange: (409, "Somebody else was faster"),
    errors.RebuildRunning: (409, "A rebuild is running"),
    errors.VersionMismatch: (412, "The key has changed"),
    errors.Invalid: (422, "The request is not valid"),
    errors.IdempotencyKeyReused: (422, "The Idempotency-Key was used before"),
    errors.Overloaded: (503, "Too much work at this moment"),
    errors.LedgerUnavailable: (503, "The ledger cannot be asked"),
    errors.DamagedHistory: (503, "The key's history is damaged"),
    errors.ProjectionInconsistent: (503, "A projection contradicts the events"),
    errors.PoisonEvent: (503, "An event cannot be projected"),
}
"""The status and the title of each refusal; a test holds that none is missing."""

_HTTP_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE"}
_RETRY_AFTER_SECONDS = 1


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,  # noqa: ANN401 - RFC 9457 lets a problem have any further members
) -> JSONResponse:
    """Return a problem document (RFC 9457, section 3)."""
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    content |= {"code": code, "request_id": request_id} | members
    return JSONResponse(content, status, headers, media_type=CONTENT_TYPE)


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error that leaves the app a problem document, FastAPI's own too."""
    app.add_exception_handler(errors.LedgerError, _refusal)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _failure)


def refusal_answer(error: errors.LedgerError, request_id: str | None) -> JSONResponse:
    """Return the answer to a request that the ledger refuses."""
    status, title = STATUSES[type(error)]
    members: dict[str, Any] = {}
    if isinstance(error, errors.Invalid):
        members["errors"] = [{"field": error.field, "message": error.message}]
    if status >= 500:  # noqa: PLR2004 - the class of statuses that are the server's fault
        _log.error("refused", code=error.code, detail=str(error), exc_info=error)
    return problem(
        status,
        error.code,
        title,
        str(error),
        request_id=request_id,
        headers=_headers(error),
        **members,
    )


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.LedgerError)  # noqa: S101 - how Starlette registers handlers
    request.state.outcome = error.code
    return refusal_answer(error, request.state.request_id)


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    # What was sent is never sent back: it may hold a token in the wrong place.
    wrong = [{"field": _field(each), "message": _message(each)} for each in error.errors()]
    detail = "; ".join(f"{each['field']}: {each['message']}" for each in wrong)
    _, title = STATUSES[errors.Invalid]
    return _answer(request, 422, errors.Invalid.code, title, detail, errors=wrong)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    status, detail = error.status_code, error.detail
    code = _HTTP_CODES.get(status, errors.Invalid.code)
    if status == 400:  # noqa: PLR2004 - FastAPI's answer to a body that cannot be decoded
        status, detail = 422, "the body is not JSON in UTF-8, or is nested too deeply"
    return _answer(request, status, code, detail, detail, headers=error.headers)


async def _failure(request: Request, _error: Exception) -> JSONResponse:
    return _answer(
        request,
        500,
        "INTERNAL_ERROR",
        "Something went wrong here",
        "the server's log has the cause under this request_id",
    )


def _answer(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,  # noqa: ANN401 - as in `problem`
) -> JSONResponse:
    request.state.outcome = code
    request_id = getattr(request.state, "request_id", None)
    return problem(status, code, title, detail, request_id=request_id, headers=headers, **members)


def _headers(error: errors.LedgerError) -> dict[str, str]:
    """Return the headers that go with a refusal (RFC 6750, section 3; RFC 9110, section 10.2.3)."""
    if isinstance(error, errors.Unauthenticated):
        return {"WWW-Authenticate": error_challenge(error)}
    if isinstance(error, errors.InsufficientScope):
        challenge = f'Bearer realm="{REALM}", error="insufficient_scope", scope="{error.scope}"'
        return {"WWW-Authenticate": challenge}
    if isinstance(error, errors.Overloaded):
        return {"Retry-After": str(error.retry_after)}
    if STATUSES[type(error)][0] == 503:  # noqa: PLR2004 - service unavailable
        return {"Retry-After": str(_RETRY_AFTER_SECONDS)}
    return {}


def error_challenge(error: errors.Unauthenticated) -> str:
    """Return the challenge of a 401; one without an error asks for a credential at all."""
    if isinstance(error, errors.NoCredential):
        return f'Bearer realm="{REALM}"'
    return f'Bearer realm="{REALM}", error="invalid_token", error_description="{error}"'


def _field(error: Mapping[str, Any]) -> str:
    where, *path = error["loc"]
    if not path or error["type"] == "json_invalid":
        return str(where)
    return ".".join(str(part) for part in path)


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"the body is not valid JSON: {error['ctx']['error']}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return str(error["msg"])
