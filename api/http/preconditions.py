"""Request headers that make a change conditional or idempotent."""

import hashlib
import re
from typing import Annotated

import orjson
from fastapi import Header
from pydantic import BaseModel, WithJsonSchema

from domain.errors import Invalid, VersionMismatch
from domain.key_ledger import Idempotency
from domain.names import without_token

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
# A proxy that compresses answers makes their ETags weak; the number is still the version.
_ETAG = re.compile(r'(?:W/)?"([1-9][0-9]{0,17})"', re.ASCII)

IfMatch = Annotated[
    list[str] | None,
    # All lines of the header are read; clients send one.
    WithJsonSchema({"type": "string", "examples": ['"3"']}),
    Header(alias="If-Match", description="The `ETag` that the key must have, else 412."),
]
IdempotencyKey = Annotated[
    list[str] | None,
    WithJsonSchema({"type": "string", "examples": ["7d0e8b4e-9d2b-4c7a-8f6b-21a310e4f5c0"]}),
    Header(
        alias="Idempotency-Key",
        description="Id that you choose for this request. A repetition creates no second key.",
    ),
]


def expected_version(if_match: list[str] | None) -> int | None:
    """Return the version that ``If-Match`` requires (RFC 9110, section 13.1.1); ``None`` for any.

    Raises:
        VersionMismatch: the required ETag is not one that a key can have.
    """
    if if_match is None:
        return None
    tags = [tag.strip() for line in if_match for tag in line.split(",")]
    if tags == ["*"]:
        return None
    versions = {int(match[1]) for tag in tags if (match := _ETAG.fullmatch(tag))}
    if len(versions) != 1:
        raise VersionMismatch('If-Match is not valid: use one ETag, such as "3", or *')
    return versions.pop()


def idempotency(
    header: list[str] | None, action: str, workspace: str, body: BaseModel
) -> Idempotency | None:
    """Return the idempotency of a request; ``None`` if it has no ``Idempotency-Key``.

    Args:
        header: values of the header ``Idempotency-Key``.
        action: what the request does, and to which object.
        workspace: workspace of the request.
        body: everything else that it asks for.

    Raises:
        Invalid: there are several keys, or the key has characters other than visible ASCII, or
            contains a token.
    """
    if header is None:
        return None
    if len(header) != 1 or not _IDEMPOTENCY_KEY.fullmatch(header[0]):
        raise Invalid(
            "Idempotency-Key", "use one value of 1 to 255 visible ASCII characters, such as a UUID"
        )
    without_token("Idempotency-Key", header[0])
    asked = orjson.dumps([action, workspace, body.model_dump(mode="json")])
    return Idempotency(header[0], hashlib.sha256(asked).hexdigest())
