"""How routes describe their errors in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from api.http.problems import CONTENT_TYPE
from api.http.schemas.responses import ProblemAnswer

_MEANINGS = {
    400: "The message is not valid HTTP.",
    401: "No credential, or none that is good; see `WWW-Authenticate`.",
    403: "The credential is good, and may not do this.",
    404: "There is no such thing in the workspace.",
    406: "There is no answer in a form that `Accept` takes.",
    409: "The state of things, or somebody faster, stands in the way.",
    412: "The key is no longer at the version of `If-Match`.",
    413: "The body is longer than the server takes.",
    422: "Something in the request is not valid; `errors` says what.",
    429: "The credential or its workspace has too many costly reads under way; see `Retry-After`.",
    503: "The ledger cannot be asked now, or has too much to do; see `Retry-After`.",
}
_ALWAYS = (401, 403, 422, 503)
_HEADERS = {
    401: {"WWW-Authenticate": "What to present (RFC 6750)."},
    429: {"Retry-After": "After how many seconds to try again."},
    503: {"Retry-After": "After how many seconds to try again."},
}
_SCHEMAS = "#/components/schemas/{model}"


def answers(*statuses: int, **success: type) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route.

    Args:
        statuses: the errors it has beside those that every guarded route has.
        success: its good answers, as ``ok`` or ``created`` or ``accepted``.
    """
    described: dict[int | str, dict[str, Any]] = {
        {"ok": 200, "created": 201, "accepted": 202}[name]: {"model": model}
        for name, model in success.items()
    }
    for status in sorted({*_ALWAYS, *statuses}):
        described[status] = refusal(status)
    return described


def texts(content_type: str, meaning: str) -> dict[int | str, dict[str, Any]]:
    """Return the description of a good answer that is no JSON."""
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
