"""How routes describe their errors in the OpenAPI document."""

from typing import Any

from api.problems import CONTENT_TYPE
from api.schemas import ProblemAnswer

_MEANINGS = {
    401: "No credential, or none that is good; see `WWW-Authenticate`.",
    403: "The credential is good, and may not do this.",
    404: "There is no such thing in the workspace.",
    409: "The state of things, or somebody faster, stands in the way.",
    412: "The key is no longer at the version of `If-Match`.",
    413: "The body is longer than the server takes.",
    422: "Something in the request is not valid; `errors` says what.",
    503: "The ledger cannot be asked now, or has too much to do; see `Retry-After`.",
}
_ALWAYS = (401, 403, 422, 503)


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
        described[status] = {
            "description": _MEANINGS[status],
            "content": {CONTENT_TYPE: {"schema": ProblemAnswer.model_json_schema()}},
        }
    return described
