"""Request bodies and queries, as the OpenAPI document describes them.

The domain validates the values. These models have the types, and the limits that generated clients
can check. Unknown fields and parameters are refused, never ignored.
"""

import re
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import Path
from fastapi import Query as QueryParameters
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_serializer,
)

from api.http.schemas.free_text import HOLDS_TOKEN, refuse_token
from domain import names
from domain.errors import Invalid
from domain.scopes import MAX_SCOPE_LENGTH, MAX_SCOPES
from domain.times import with_time_of_day

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
KEY_ID = "apikey_5f0c3a52-7d0e-8b4e-9d2b-1c7a4f8e6b21"
TOKEN_EXAMPLE = "key_… (the whole token)"  # noqa: S105 - it opens nothing
# For clients only: the domain checks, and its messages are better.
_SCOPE = r"^(\*|(\*|[a-z0-9][a-z0-9._-]*):(\*|[a-z0-9][a-z0-9._-]*))$"
_PREFIX = r"^[a-z][a-z0-9]{0,15}$"
_WORKSPACE = r"^[a-z0-9][a-z0-9._-]{0,62}$"
LONGEST_GRACE_SECONDS = 10 * 365 * 24 * 60 * 60
LONGEST_LIFE_SECONDS = 100 * 365 * 24 * 60 * 60


def _rfc_3339(value: object) -> object:
    if isinstance(value, datetime):
        return value
    text = with_time_of_day(value) if isinstance(value, str) else ""
    if not _RFC_3339.fullmatch(text):
        raise ValueError(
            "use an RFC 3339 time with its offset, such as 2027-03-03T09:30:00Z, or a date, such"
            " as 2027-03-03, which means midnight UTC"
        )
    return text


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
        description="Scopes of the form `resource:action`, with `*` for any; `*` alone is full"
        " access.",
        examples=[["mcp:read", "mcp:write"]],
    ),
]
WantedScopes = Annotated[
    list[Scope],
    Field(
        max_length=MAX_SCOPES,
        description="Scopes that the key must hold, all of them.",
        examples=[["mcp:read"]],
    ),
]
Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=names.MAX_NAME_LENGTH,
        description="Name for people; it need not be unique.",
        examples=["payments-api"],
    ),
]
KeyId = Annotated[str, Path(description="Id of the key.", examples=[KEY_ID])]
AsOf = Annotated[
    Time | None, Field(description="Time in the past: the answer shows the state at that time.")
]
Prefix = Annotated[str, Field(max_length=16, json_schema_extra={"pattern": _PREFIX})]
_NamedWorkspace = Annotated[
    str, Field(max_length=63, json_schema_extra={"pattern": _WORKSPACE}, examples=["default"])
]
Workspace = Annotated[
    _NamedWorkspace | None,
    Field(
        description="Workspace, by default that of the credential; for a credential of `root` the"
        " workspace `default`. Only a credential of `root` may name another one."
    ),
]
_NamedOrAll = Annotated[
    str,
    Field(
        max_length=63,
        json_schema_extra={"pattern": rf"^\*$|{_WORKSPACE}"},
        examples=["default"],
    ),
]
WorkspaceOrAll = Annotated[
    _NamedOrAll | None,
    Field(
        description="Workspace, by default that of the credential; for a credential of `root` the"
        " workspace `default`. Only a credential of `root` may name another one, or `*` for all."
    ),
]
Status = Literal["active", "revoked", "expired"]


Token = Annotated[str, HOLDS_TOKEN, Field(description="The whole token.", examples=[TOKEN_EXAMPLE])]
Cursor = Annotated[str | None, Field(description="`next_cursor` of the previous page.")]


def not_null(value: object) -> object:
    """Refuse null in a field that was sent; Pydantic does not validate one that was left out."""
    if value is None:
        raise ValueError("null is not allowed: use a value, or leave the field out")
    return value


class Body(BaseModel):
    """A request body. Unknown fields are refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    _without_token = field_validator("*", mode="before")(refuse_token)


class Expiring(Body):
    """The expiry time of a key, given as a time or in seconds from now."""

    expires_at: Time | None = Field(
        default=None, description="Expiry time; null: the key never expires."
    )
    expires_in: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST_LIFE_SECONDS,
        strict=True,
        description="Seconds until the key expires, instead of `expires_at`.",
        examples=[2_592_000],
    )

    @field_validator("expires_in", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        # A program whose lifetime is not set would get a key that never expires.
        return not_null(value)

    def expiry(self, now: datetime) -> datetime | None:
        """Return the expiry time; ``None`` if the request names none.

        Raises:
            Invalid: the request has both fields.
        """
        if self.expires_in is None:
            return self.expires_at
        if "expires_at" in self.model_fields_set:
            raise Invalid("expires_in", "use expires_in or expires_at, not both")
        return now + timedelta(seconds=self.expires_in)


class CreateKey(Expiring):
    """The values of a new key."""

    name: Name
    scopes: Scopes
    prefix: Prefix | None = Field(
        default=None,
        description="Prefix of the token; the default is a setting of the server.",
        examples=["blnk"],
    )


class RevokeKey(Body):
    """Why the key is revoked."""

    reason: str | None = Field(
        default=None,
        max_length=names.MAX_REASON_LENGTH,
        description="Reason, shown with the key and in its history.",
        examples=["leaked in a build log"],
    )
    comment: str | None = Field(
        default=None,
        max_length=names.MAX_COMMENT_LENGTH,
        description="Comment, shown in the history of the key only.",
    )


class RotateKey(Body):
    """Options of a rotation."""

    grace_seconds: int = Field(
        default=0,
        ge=0,
        le=LONGEST_GRACE_SECONDS,
        strict=True,
        description="Seconds for which the old key stays valid; 0, the default, ends it at once."
        " This never extends its expiry time.",
    )
    expires_at: Time | None = Field(
        default=None,
        description="Expiry time of the successor; null: it never expires. Without this field, the"
        " successor gets the lifetime of the old key (from creation to expiry), counted from now.",
    )

    @property
    def never_expires(self) -> bool:
        """Tell whether a successor without an end is asked for."""
        return "expires_at" in self.model_fields_set and self.expires_at is None

    @model_serializer(mode="wrap")
    def _as_sent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        # Fingerprints of idempotent requests: null and a field that is not there differ.
        written: dict[str, object] = serialize(self)
        if "expires_at" not in self.model_fields_set:
            del written["expires_at"]
        return written


class UpdateKey(Expiring):
    """The new values; omitted fields do not change."""

    name: Name | None = Field(default=None, description="New name.")
    scopes: Scopes | None = Field(default=None, description="New scopes; they replace all others.")

    @field_validator("name", "scopes", mode="before")
    @classmethod
    def _values(cls, value: object) -> object:
        return not_null(value)


class VerifyToken(Body):
    """A token to verify, and the scopes that it needs."""

    token: Token
    scopes: WantedScopes = []


class TokenToVerify(Body):
    """One of several tokens to verify."""

    token: Token
    scopes: WantedScopes = []


class VerifyTokens(Body):
    """Several tokens to verify, independently of each other."""

    tokens: list[TokenToVerify] = Field(
        min_length=1, max_length=100, description="The tokens, each with the scopes that it needs."
    )


class Query(BaseModel):
    """The query of a request. Unknown parameters are refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    _without_token = field_validator("*", mode="before")(refuse_token)

    @field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: object) -> object:
        # No stored text has one: SQLite would cut a filter off there, and others fail.
        if isinstance(value, str) and "\0" in value:
            raise ValueError("the character U+0000 is not allowed: leave it out")
        return value


NoQuery = Annotated[Query, QueryParameters()]


class InWorkspace(Query):
    """The workspace that a request acts in."""

    workspace: Workspace = None


class ShowKey(InWorkspace):
    """The workspace of a key, and the time to show it at."""

    as_of: AsOf = None


class Page(Query):
    """A page of a list."""

    limit: int = Field(default=50, ge=1, le=100, description="Maximum size of the page.")
    cursor: Cursor = None


class ListWorkspaces(Query):
    """A page of workspaces."""

    limit: int = Field(default=50, ge=1, le=100, description="Maximum size of the page.")
    cursor: _NamedWorkspace | None = Field(
        default=None, description="`next_cursor` of the previous page."
    )


class ListKeyEvents(Page):
    """The workspace of a key, and the page of its history."""

    workspace: Workspace = None


class ListKeys(Page):
    """Filters of the list of keys, and the page."""

    workspace: WorkspaceOrAll = None
    status: Status | None = Field(default=None, description="Only keys with this status.")
    q: str | None = Field(
        default=None,
        min_length=1,
        max_length=names.MAX_NAME_LENGTH,
        description="Only keys whose name contains this text, or whose prefix or id starts with"
        " it.",
    )
    scope: Scope | None = Field(
        default=None,
        description="Only keys that hold this scope, also through a wildcard.",
    )
    created_by: str | None = Field(
        default=None,
        max_length=200,
        description="Only keys that the actor with this id created.",
    )
    expires_before: Time | None = Field(
        default=None, description="Only keys that expire before this time."
    )
    unused_since: Time | None = Field(
        default=None,
        description="Only keys that were created before this time and not used since. Keys that"
        " were never used are included.",
    )
    never_used: bool | None = Field(
        default=None,
        description="`true`: only keys that were never used. `false`: only keys that were used.",
    )
    as_of: AsOf = None
