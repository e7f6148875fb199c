"""Descriptions of answers and errors in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from api.http.problems import CONTENT_TYPE
from api.http.schemas.responses import ProblemAnswer

_MEANINGS = {
    400: "The message is not valid HTTP.",
    401: "The credential is missing or not valid; see `WWW-Authenticate`.",
    403: "The credential is valid, but not allowed to do this.",
    404: "Not found in the workspace.",
    406: "No format that `Accept` names is available.",
    409: "Conflict with the current state or a concurrent change.",
    412: "The version of the key differs from `If-Match`.",
    413: "The body is larger than the server's limit.",
    422: "The request is not valid; `errors` lists each problem.",
    429: "The credential or its workspace has too many costly reads running; see `Retry-After`.",
    503: "The ledger is not available or overloaded; see `Retry-After`.",
}
_ALWAYS = (401, 403, 422, 503)
_HEADERS = {
    401: {"WWW-Authenticate": "The challenge (RFC 6750)."},
    429: {"Retry-After": "Seconds to wait before the next attempt."},
    503: {"Retry-After": "Seconds to wait before the next attempt."},
}
_SCHEMAS = "#/components/schemas/{model}"


def answers(*statuses: int, **success: type) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route.

    Args:
        statuses: its errors, in addition to those of every guarded route.
        success: the models of its successful answers, as ``ok``, ``created`` or ``accepted``.
    """
    described: dict[int | str, dict[str, Any]] = {
        {"ok": 200, "created": 201, "accepted": 202}[name]: {"model": model}
        for name, model in success.items()
    }
    for status in sorted({*_ALWAYS, *statuses}):
        described[status] = refusal(status)
    return described


def texts(content_type: str, meaning: str) -> dict[int | str, dict[str, Any]]:
    """Return the description of a successful answer that is not JSON."""
    schema = {"type": "string", "description": meaning}
    return {200: {"content": {content_type: {"schema": schema}}}}


def refusal(status: int) -> dict[str, Any]:
    """Return the description of a problem document with this status."""
    schema = {"$ref": _SCHEMAS.format(model=ProblemAnswer.__name__)}
    return {
        "description": _MEANINGS[status],
        "headers": headers(_HEADERS.get(status, {})),
        "content": {CONTENT_TYPE: {"schema": schema}},
    }


def headers(meanings: Mapping[str, str]) -> dict[str, Any]:
    """Return the description of an answer's headers."""
    return {
        name: {"description": meaning, "schema": {"type": "string"}}
        for name, meaning in meanings.items()
    }


def problem_schemas() -> dict[str, Any]:
    """Return the schemas that `refusal` refers to, for the document's components."""
    schema = ProblemAnswer.model_json_schema(ref_template=_SCHEMAS)
    return {**schema.pop("$defs"), ProblemAnswer.__name__: schema}
