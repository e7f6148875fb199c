"""Bodies and queries, as the OpenAPI document describes them.

What a value must be like is the domain's to say; here stand types, and the limits that a client's
generated code can check. What is unknown is refused, never ignored.
"""

import re
from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path
from fastapi import Query as QueryParameters
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
)

from api.http.schemas.free_text import HOLDS_TOKEN, refuse_token
from domain import names
from domain.scopes import MAX_SCOPE_LENGTH, MAX_SCOPES

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
KEY_ID = "apikey_5f0c3a52-7d0e-8b4e-9d2b-1c7a4f8e6b21"
TOKEN_EXAMPLE = "key_… (the whole token)"  # noqa: S105 - it opens nothing
# For clients alone: it is the domain that checks, and says better what is wrong.
_SCOPE = r"^(\*|(\*|[a-z0-9][a-z0-9._-]*):(\*|[a-z0-9][a-z0-9._-]*))$"
_PREFIX = r"^[a-z][a-z0-9]{0,15}$"
_WORKSPACE = r"^[a-z0-9][a-z0-9._-]{0,62}$"
LONGEST_GRACE_SECONDS = 10 * 365 * 24 * 60 * 60


def _rfc_3339(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError("write an RFC 3339 time with its offset, as in 2027-03-03T09:30:00Z")
    return value


Time = Annotated[
    datetime,
    BeforeValidator(_rfc_3339),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2027-03-03T09:30:00Z"]}),
]
Scope = Annotated[str, Field(max_length=MAX_SCOPE_LENGTH, json_schema_extra={"pattern": _SCOPE})]
Scopes = Annotated[
    list[Scope],
    Field(
        min_length=1,
        max_length=MAX_SCOPES,
        description="`resource:action` with `*` for any; `*` alone is full access.",
        examples=[["mcp:read", "mcp:write"]],
    ),
]
WantedScopes = Annotated[list[Scope], Field(max_length=MAX_SCOPES, examples=[["mcp:read"]])]
Name = Annotated[
    str, Field(min_length=1, max_length=names.MAX_NAME_LENGTH, examples=["payments-api"])
]
KeyId = Annotated[str, Path(description="The name of the key.", examples=[KEY_ID])]
AsOf = Annotated[Time | None, Field(description="Show what held at this time in the past.")]
Prefix = Annotated[str, Field(max_length=16, json_schema_extra={"pattern": _PREFIX})]
Workspace = Annotated[
    str,
    Field(
        description="Only a key of the workspace `root` may name one other than its own.",
        max_length=63,
        json_schema_extra={"pattern": _WORKSPACE},
        examples=["default"],
    ),
]
EVERY_WORKSPACE = "*"
WorkspaceOrAll = Annotated[
    str,
    Field(
        description="Only a key of the workspace `root` may name one other than its own, or `*`"
        " for all of them.",
        max_length=63,
        json_schema_extra={"pattern": rf"^\*$|{_WORKSPACE}"},
        examples=["default"],
    ),
]
Status = Literal["active", "revoked", "expired"]


Token = Annotated[str, HOLDS_TOKEN, Field(examples=[TOKEN_EXAMPLE])]


class Body(BaseModel):
    """A request's body: an unknown field is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    _without_token = field_validator("*", mode="before")(refuse_token)


class CreateKey(Body):
    """What a new key is to be."""

    name: Name
    scopes: Scopes
    expires_at: Time | None = Field(default=None, description="When the key ends; null is never.")
    prefix: Prefix | None = Field(
        default=None,
        description="What the token begins with; by default the server's setting.",
        examples=["blnk"],
    )
    workspace: Workspace | None = None


class RevokeKey(Body):
    """Why a key is revoked."""

    reason: str | None = Field(
        default=None, max_length=names.MAX_REASON_LENGTH, examples=["leaked in a build log"]
    )
    comment: str | None = Field(default=None, max_length=names.MAX_COMMENT_LENGTH)


class RotateKey(Body):
    """How a key is rotated."""

    grace_seconds: int = Field(
        default=0,
        ge=0,
        le=LONGEST_GRACE_SECONDS,
        strict=True,
        description="For how long the old key still works; its own end is never put off.",
    )


class UpdateKey(Body):
    """What to change; a field that is not there stays as it is."""

    name: Name | None = None
    scopes: Scopes | None = None
    expires_at: Time | None = Field(default=None, description="The new end; null is never.")

    @field_validator("name", "scopes", mode="before")
    @classmethod
    def _not_null(cls, value: object) -> object:
        # Only what is sent is validated: a field that is not there does not come by here.
        if value is None:
            raise ValueError("give a value, or leave the field out")
        return value


class VerifyToken(Body):
    """The token to verify, and what it is to be used for."""

    token: Token
    scopes: WantedScopes = []
    workspace: Workspace | None = None


class TokenToVerify(Body):
    """One token of several to verify."""

    token: Token
    scopes: WantedScopes = []


class VerifyTokens(Body):
    """Several tokens to verify, each for itself."""

    tokens: list[TokenToVerify] = Field(min_length=1, max_length=100)
    workspace: Workspace | None = None


class Query(BaseModel):
    """A request's query: an unknown parameter is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    _without_token = field_validator("*", mode="before")(refuse_token)

    @field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: object) -> object:
        # No stored text has one: SQLite would cut a filter off there, and others fail.
        if isinstance(value, str) and "\0" in value:
            raise ValueError("leave out the character U+0000")
        return value


NoQuery = Annotated[Query, QueryParameters()]


class InWorkspace(Query):
    """The workspace that a request is about."""

    workspace: Workspace | None = None


class ShowKey(InWorkspace):
    """How to show a key."""

    as_of: AsOf = None


class Page(InWorkspace):
    """A page of a list."""

    limit: int = Field(default=50, ge=1, le=100)
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before.")


class ListKeys(Page):
    """Which keys to list."""

    status: Status | None = None
    q: str | None = Field(
        default=None,
        min_length=1,
        max_length=names.MAX_NAME_LENGTH,
        description="Occurs in the name, or begins the prefix or the key id.",
    )
    scope: Scope | None = Field(
        default=None,
        description="Keys that may do all that this scope names.",
    )
    created_by: str | None = Field(default=None, max_length=200, description="An actor's id.")
    expires_before: Time | None = None
    unused_since: Time | None = Field(
        default=None,
        description="Keys made before this time and not used since, never-used ones included.",
    )
    never_used: bool | None = Field(
        default=None, description="Keys that were never used, or, if false, once at least."
    )
    as_of: AsOf = None
