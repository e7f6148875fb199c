"""Bodies, queries and answers of the HTTP interface, as its OpenAPI document describes them.

What a value must be like is the domain's to say; here stand types, and the limits that a client's
generated code can check. Only `IssuedKeyAnswer` can carry a token.
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

from domain import names
from domain.scopes import MAX_SCOPE_LENGTH, MAX_SCOPES

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_KEY_ID = "apikey_5f0c3a52-7d0e-8b4e-9d2b-1c7a4f8e6b21"
_SUCCESSOR_ID = "apikey_9b1f8f0e-3c57-8d6a-a1f4-52c0d9e7a310"
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
Scopes = Annotated[
    list[Annotated[str, Field(max_length=MAX_SCOPE_LENGTH)]],
    Field(
        min_length=1,
        max_length=MAX_SCOPES,
        description="`resource:action` with `*` for any; `*` alone is full access.",
        examples=[["mcp:read", "mcp:write"]],
    ),
]
Name = Annotated[
    str, Field(min_length=1, max_length=names.MAX_NAME_LENGTH, examples=["payments-api"])
]
KeyId = Annotated[str, Path(description="The name of the key.", examples=[_KEY_ID])]
AsOf = Annotated[Time | None, Field(description="Show what held at this time in the past.")]
Workspace = Annotated[
    str,
    Field(
        description="Only a key of the workspace `root` may name one other than its own.",
        max_length=63,
        examples=["default"],
    ),
]
Status = Literal["active", "revoked", "expired"]


class Body(BaseModel):
    """A request's body: an unknown field is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CreateKey(Body):
    """What a new key is to be."""

    name: Name
    scopes: Scopes
    expires_at: Time | None = Field(default=None, description="When the key ends; null is never.")
    prefix: str | None = Field(
        default=None,
        max_length=16,
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

    token: str = Field(examples=["key_… (the whole token)"])
    scopes: Annotated[
        list[Annotated[str, Field(max_length=MAX_SCOPE_LENGTH)]],
        Field(max_length=MAX_SCOPES, examples=[["mcp:read"]]),
    ] = []
    workspace: Workspace | None = None


class TokenToVerify(Body):
    """One token of several to verify."""

    token: str
    scopes: Annotated[
        list[Annotated[str, Field(max_length=MAX_SCOPE_LENGTH)]], Field(max_length=MAX_SCOPES)
    ] = []


class VerifyTokens(Body):
    """Several tokens to verify, each for itself."""

    tokens: list[TokenToVerify] = Field(min_length=1, max_length=100)
    workspace: Workspace | None = None


class Query(BaseModel):
    """A request's query: an unknown parameter is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    scope: str | None = Field(
        default=None,
        max_length=MAX_SCOPE_LENGTH,
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


class ActorAnswer(BaseModel):
    """Who did something."""

    type: Literal["key", "cli", "system"]
    id: str = Field(examples=[_KEY_ID])


class KeyAnswer(BaseModel):
    """A key, as everybody may see it who may see keys."""

    key_id: str = Field(examples=[_KEY_ID])
    workspace: str = Field(examples=["default"])
    name: str = Field(examples=["payments-api"])
    prefix: str = Field(examples=["key_7Rk2mQx9..."])
    scopes: list[str] = Field(examples=[["mcp:read", "mcp:write"]])
    role: str = Field(examples=["Member"])
    status: Status
    expires_at: Time | None
    created_at: Time
    created_by: ActorAnswer
    revoked_at: Time | None
    revoked_by: ActorAnswer | None
    revoke_reason: str | None
    rotated_from: str | None = Field(examples=[None])
    rotated_to: str | None = Field(examples=[_SUCCESSOR_ID])
    last_used_at: Time | None = Field(
        description="The minute of its last use, known a minute later at the latest; null if never"
        " used, and in the past of `as_of`."
    )
    version: int = Field(ge=1, examples=[1])


class IssuedKeyAnswer(KeyAnswer):
    """A key just made, with its token, for this once."""

    token: str | None = Field(
        description="Shown this once; null when an earlier request with the same"
        " Idempotency-Key made the key."
    )


class KeyListAnswer(BaseModel):
    """A page of keys, the newest first."""

    data: list[KeyAnswer]
    next_cursor: str | None


class EventAnswer(BaseModel):
    """An event in the life of a key."""

    position: int = Field(ge=1, description="Its place in the one order of all events.")
    type: str = Field(examples=["ApiKey.Revoked"])
    key_id: str = Field(examples=[_KEY_ID])
    version: int = Field(ge=1)
    occurred_at: Time
    actor: ActorAnswer
    request_id: str | None
    source_ip: str | None
    data: dict[str, object] = Field(examples=[{"reason": "leaked", "comment": None}])


class EventListAnswer(BaseModel):
    """A page of a key's history, the oldest event first."""

    data: list[EventAnswer]
    next_cursor: str | None


class VerdictAnswer(BaseModel):
    """The verdict on a token; about the key only to who holds its secret."""

    valid: bool
    code: Literal["VALID", "MALFORMED", "NOT_FOUND", "REVOKED", "EXPIRED", "INSUFFICIENT_SCOPE"]
    key_id: str | None
    name: str | None
    workspace: str | None
    role: str | None
    scopes: list[str] | None
    expires_at: Time | None
    position: int = Field(description="Up to which event the ledger was read for this verdict.")


class VerdictListAnswer(BaseModel):
    """The verdicts on several tokens, in their order."""

    data: list[VerdictAnswer]
    next_cursor: None


class IntrospectionAnswer(BaseModel):
    """What a token is good for (RFC 7662, section 2.2); of one that is not good, `active` alone."""

    active: bool
    scope: str | None = Field(default=None, examples=["mcp:read mcp:write"])
    client_id: str | None = Field(default=None, examples=[_KEY_ID])
    sub: str | None = Field(default=None, examples=[_KEY_ID])
    token_type: str | None = Field(default=None, examples=["Bearer"])
    exp: int | None = Field(default=None, description="When it ends, in seconds since 1970.")


class RebuildAnswer(BaseModel):
    """How a rebuild goes."""

    state: Literal["running", "failed", "done"]
    position: int | None
    detail: str | None


class ProjectionAnswer(BaseModel):
    """How far a projection has come."""

    name: str = Field(examples=["key_list"])
    view_version: int
    position: int
    last_position: int
    lag: int = Field(description="How many positions it is behind the newest event.")
    rows: int
    completed_at: Time | None = Field(description="When it was last made anew.")
    rebuild_position: int | None = Field(
        description="How far a rebuild has come that is running or was interrupted."
    )
    rebuild: RebuildAnswer | None = Field(description="The last rebuild that this process ran.")


class ProjectionListAnswer(BaseModel):
    """All the projections."""

    data: list[ProjectionAnswer]
    next_cursor: str | None


class HealthAnswer(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class ReadinessAnswer(BaseModel):
    """Whether the ledger can be asked and its projections are up to date."""

    status: Literal["ready", "behind"]
    position: int = Field(examples=[1200])
    behind: list[str] = Field(description="The projections that are not.", examples=[[]])


class FieldProblem(BaseModel):
    """What is wrong with one value."""

    field: str
    message: str


class ProblemAnswer(BaseModel):
    """An error (RFC 9457); `code` is stable and for programs, `detail` is for people."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["No such key"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=[f"there is no key {_KEY_ID}"])
    code: str = Field(examples=["KEY_NOT_FOUND"])
    request_id: str | None = Field(examples=["req_5f0c3a527d0e8b4e9d2b1c7a4f8e6b21"])
    errors: list[FieldProblem] | None = None
