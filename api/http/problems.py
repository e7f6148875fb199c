"""Errors as RFC 9457 problem documents: the one table from refusals to HTTP statuses."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.http.methods import allowed_methods
from domain import errors
from domain.token_text import hide_tokens

_log = structlog.get_logger()

CONTENT_TYPE = "application/problem+json"
FAILURE = "INTERNAL_ERROR"
"""The code of an error that is a bug."""
REALM = "keyledger"

STATUSES: Mapping[type[errors.LedgerError], tuple[int, str]] = {
    errors.Unauthenticated: (401, "No valid credential"),
    errors.NoCredential: (401, "No credential"),
    errors.CredentialRevoked: (401, "The credential was revoked"),
    errors.CredentialExpired: (401, "The credential has expired"),
    errors.InsufficientScope: (403, "The credential lacks a scope"),
    errors.ScopeNotHeld: (403, "A scope is granted that the caller does not hold"),
    errors.WorkspaceForbidden: (403, "The credential belongs to another workspace"),
    errors.KeyNotFound: (404, "No such key"),
    errors.EntryNotFound: (404, "No such event"),
    errors.NoCheckpoint: (404, "No checkpoint yet"),
    errors.TileNotFound: (404, "No such tile"),
    errors.ProjectionNotFound: (404, "No such projection"),
    errors.KeyRevoked: (409, "The key is revoked"),
    errors.KeyExpired: (409, "The key has expired"),
    errors.AlreadyRotated: (409, "The key has a successor"),
    errors.ConcurrentChange: (409, "Concurrent modification"),
    errors.RebuildRunning: (409, "A rebuild is running"),
    errors.NotOwner: (409, "Only the owner of the tables can do this"),
    errors.VersionMismatch: (412, "The key has another version"),
    errors.Invalid: (422, "The request is not valid"),
    errors.IdempotencyKeyReused: (422, "The Idempotency-Key was used before"),
    errors.TooManyReads: (429, "Too many expensive reads at the same time"),
    errors.Overloaded: (503, "The server is overloaded"),
    errors.LedgerUnavailable: (503, "The ledger is not available"),
    errors.HistoryInDoubt: (503, "The history does not match its signed checkpoints"),
    errors.SchemaChanged: (503, "The tables of the database were changed"),
    errors.DamagedHistory: (503, "The history of the key is damaged"),
    errors.ProjectionInconsistent: (503, "A projection contradicts the events"),
    errors.PoisonEvent: (503, "An event cannot be projected"),
    errors.EventNotSealed: (503, "An event has no valid seal"),
    errors.RowNotSealed: (503, "A row that grants access has no valid seal"),
}
"""The status and the title of each refusal; a test holds that none is missing."""

_HTTP_CODES = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    408: "REQUEST_TIMEOUT",
    413: "BODY_TOO_LARGE",
    414: "TARGET_TOO_LONG",
    417: "EXPECTATION_FAILED",
    431: "HEADERS_TOO_LARGE",
    500: FAILURE,
    501: "NOT_IMPLEMENTED",
    503: "TOO_MANY_CONNECTIONS",
    505: "HTTP_VERSION_NOT_SUPPORTED",
}
WORKSPACE_IN_QUERY = "name the workspace in the query: ?workspace=NAME"
_RETRY_AFTER_SECONDS = 1
_ERRORS_SHOWN = 20
_LONGEST_NAME_SHOWN = 60

Wrong = dict[str, str]
"""What is wrong with one value: its ``field``, and a ``message``."""


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    wrong: Sequence[Wrong] = (),
) -> JSONResponse:
    """Return a problem document (RFC 9457, section 3).

    Somebody may have put a token where an id or a scope belongs: nothing that can be a secret is
    sent back.
    """
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": hide_tokens(detail),
        "code": code,
        "request_id": request_id,
    }
    if wrong:
        content["errors"] = [
            {name: hide_tokens(text) for name, text in each.items()} for each in wrong
        ]
    return JSONResponse(content, status, headers, media_type=CONTENT_TYPE)


def http_problem(status: int, detail: str, request_id: str) -> JSONResponse:
    """Return the answer to a message that HTTP itself forbids, before any route is chosen."""
    unavailable = status == HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if unavailable else None
    title = HTTPStatus(status).phrase
    code = _HTTP_CODES[status]
    return problem(status, code, title, detail, request_id=request_id, headers=headers)


def install_problem_handlers(app: FastAPI) -> None:
    """Make every refusal that leaves the app a problem document, FastAPI's own too."""
    app.add_exception_handler(errors.LedgerError, _refusal)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http_error)


def refusal_answer(error: errors.LedgerError, request_id: str | None) -> JSONResponse:
    """Return the answer to a request that the ledger refuses."""
    status, title = STATUSES[type(error)]
    wrong = []
    if isinstance(error, errors.Invalid):
        wrong = [{"field": error.field, "message": error.message}]
    if isinstance(error, errors.Overloaded | errors.HistoryInDoubt | errors.RowNotSealed):
        # Whoever floods us causes it at will: a line will do, a traceback each time would not.
        _log.warning("refused", code=error.code, detail=str(error))
    elif status >= 500:  # noqa: PLR2004 - the class of statuses that are the server's fault
        _log.error("refused", code=error.code, detail=str(error), exc_info=error)
    return problem(
        status,
        error.code,
        title,
        str(error),
        request_id=request_id,
        headers=_headers(error),
        wrong=wrong,
    )


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.LedgerError)  # noqa: S101 - how Starlette registers handlers
    request.state.outcome = error.code
    return refusal_answer(error, request.state.request_id)


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    return _invalid_answer(request, validation_problems(error))


def validation_problems(error: RequestValidationError) -> list[Wrong]:
    """Return what is wrong with a request that FastAPI refuses, at most the first twenty errors."""
    return [
        {"field": _field(each), "message": _message(each)}
        for each in error.errors()[:_ERRORS_SHOWN]
    ]


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    status = error.status_code
    if status == HTTPStatus.BAD_REQUEST:
        # FastAPI's answer to a body that it cannot decode.
        message = "the body is not valid JSON in UTF-8, or a number in it is too long"
        return _invalid_answer(request, [{"field": "body", "message": message}])
    code = _HTTP_CODES.get(status, errors.Invalid.code)
    title = HTTPStatus(status).phrase
    detail = error.detail
    headers = dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(allowed_methods(request.app, request.scope))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": headers["Allow"]})
        detail = f"this path supports {headers['Allow']}"
        if request.method == "DELETE" and "key_id" in request.path_params:
            detail += "; to disable a key, use POST /v1/keys/{key_id}/revoke: keys are not deleted"
    elif status == HTTPStatus.NOT_FOUND and detail == title:
        detail = "no such path: GET /openapi.json lists all paths"
    return _answer(request, status, code, title, detail, headers=headers)


def _invalid_answer(request: Request, wrong: Sequence[Wrong]) -> JSONResponse:
    status, title = STATUSES[errors.Invalid]
    detail = "; ".join(f"{each['field']}: {each['message']}" for each in wrong)
    return _answer(request, status, errors.Invalid.code, title, detail, wrong=wrong)


def failure_answer(request_id: str) -> JSONResponse:
    """Return the answer to a request that met a bug; the caller logs the bug."""
    detail = "the server's log has the cause for this request_id"
    return problem(500, FAILURE, "Internal error", detail, request_id=request_id)


def _answer(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    wrong: Sequence[Wrong] = (),
) -> JSONResponse:
    request.state.outcome = code
    request_id = request.state.request_id
    return problem(status, code, title, detail, request_id=request_id, headers=headers, wrong=wrong)


def _headers(error: errors.LedgerError) -> dict[str, str]:
    """Return the headers that go with a refusal (RFC 6750, section 3; RFC 9110, section 10.2.3)."""
    if isinstance(error, errors.Unauthenticated):
        return {"WWW-Authenticate": error_challenge(error)}
    if isinstance(error, errors.InsufficientScope):
        challenge = f'Bearer realm="{REALM}", error="insufficient_scope"'
        enough = f', scope="{error.scope}"' if error.scope else ""
        return {"WWW-Authenticate": challenge + enough}
    if isinstance(error, errors.Overloaded):
        return {"Retry-After": str(error.retry_after)}
    if STATUSES[type(error)][0] in (429, 503):
        return {"Retry-After": str(_RETRY_AFTER_SECONDS)}
    return {}


def error_challenge(error: errors.Unauthenticated) -> str:
    """Return the challenge of a 401; one without an error asks for a credential at all."""
    if isinstance(error, errors.NoCredential):
        return f'Bearer realm="{REALM}"'
    return f'Bearer realm="{REALM}", error="invalid_token", error_description="{error}"'


def _is_not_json(error: Mapping[str, Any]) -> bool:
    """Return whether the body was not parsed because its Content-Type is not JSON."""
    return isinstance(error["input"], bytes)


def _field(error: Mapping[str, Any]) -> str:
    where, *path = error["loc"]
    if _is_not_json(error):
        return "Content-Type"
    if not path or error["type"] == "json_invalid":
        return str(where)
    # Hidden first: a token that is cut off would not be found any more.
    return ".".join(hide_tokens(str(part))[:_LONGEST_NAME_SHOWN] for part in path)


def _message(error: Mapping[str, Any]) -> str:
    if _is_not_json(error):
        return "the body was not read as JSON: send the header Content-Type: application/json"
    if error["type"] == "json_invalid":
        return f"the body is not valid JSON: {error['ctx']['error']}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "extra_forbidden":
        in_body = error["loc"] == ("body", "workspace")
        return WORKSPACE_IN_QUERY if in_body else "no such field or parameter"
    if error["type"] == "model_attributes_type" and len(error["loc"]) == 1:
        return "the body is not a JSON object: send one"
    return str(error["msg"])
