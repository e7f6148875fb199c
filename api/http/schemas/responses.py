"""Answers, as the OpenAPI document describes them; only `IssuedKeyAnswer` can carry a token."""

from typing import Literal

from pydantic import BaseModel, Field

from api.http.schemas.requests import KEY_ID, Status, Time

_HASH = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
_SUCCESSOR_ID = "apikey_9b1f8f0e-3c57-8d6a-a1f4-52c0d9e7a310"


class ActorAnswer(BaseModel):
    """Who did something."""

    type: Literal["key", "cli", "system"]
    id: str = Field(examples=[KEY_ID])


class KeyAnswer(BaseModel):
    """A key, as everybody may see it who may see keys."""

    key_id: str = Field(examples=[KEY_ID])
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
    key_id: str = Field(examples=[KEY_ID])
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


class FeedEntryAnswer(BaseModel):
    """An event and its place in the tree."""

    leaf_index: int = Field(ge=0, description="Its place in the Merkle tree.", examples=[0])
    position: int = Field(ge=1, description="Its place in the one order of all events.")
    type: str = Field(examples=["ApiKey.Revoked"])
    key_id: str | None = Field(
        description="Null for what happened to the audit trail itself.", examples=[KEY_ID]
    )
    version: int = Field(ge=1)
    occurred_at: Time
    actor: ActorAnswer
    request_id: str | None
    source_ip: str | None
    data: dict[str, object] = Field(examples=[{"reason": "leaked", "comment": None}])


class FeedAnswer(BaseModel):
    """A page of the feed, the oldest event first."""

    data: list[FeedEntryAnswer]
    next_cursor: str | None


class InclusionAnswer(BaseModel):
    """What shows that an entry is in the tree of a size; hashes are in base64."""

    leaf_index: int = Field(ge=0, examples=[0])
    leaf_hash: str = Field(description="`SHA-256(0x00 || entry)`", examples=[_HASH])
    size: int = Field(ge=1, examples=[1])
    root: str = Field(examples=[_HASH])
    hashes: list[str] = Field(description="The siblings, from the leaf up.", examples=[[]])


class ConsistencyAnswer(BaseModel):
    """What shows that the tree of one size grew into that of another; hashes are in base64."""

    old_size: int = Field(ge=0, examples=[0])
    old_root: str = Field(examples=[_HASH])
    size: int = Field(ge=0, examples=[0])
    root: str = Field(examples=[_HASH])
    hashes: list[str] = Field(examples=[[]])


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
    client_id: str | None = Field(default=None, examples=[KEY_ID])
    sub: str | None = Field(default=None, examples=[KEY_ID])
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


class AttestationAnswer(BaseModel):
    """What the last attestation of the ledger found."""

    finished_at: Time
    position: int = Field(description="Of the last event that was attested.", examples=[1200])
    findings: int = Field(description="How many things are wrong; keyledger audit verify tells.")


class ReadinessAnswer(BaseModel):
    """Whether the ledger can be asked and its projections are up to date."""

    status: Literal["ready", "behind"]
    position: int = Field(examples=[1200])
    behind: list[str] = Field(description="The projections that are not.", examples=[[]])
    changes_refused: bool = Field(
        description="Whether nothing may be changed: the log is not the one that was signed, or"
        " a projection is of another version. Reading and verifying go on; the server's log says"
        " why.",
        examples=[False],
    )
    attestation: AttestationAnswer | None = Field(description="Null before the first one.")


class FieldProblem(BaseModel):
    """What is wrong with one value."""

    field: str
    message: str


class ProblemAnswer(BaseModel):
    """An error (RFC 9457); `code` is stable and for programs, `detail` is for people."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["No such key"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=[f"there is no key {KEY_ID} in the workspace acme"])
    code: str = Field(examples=["KEY_NOT_FOUND"])
    request_id: str | None = Field(examples=["req_5f0c3a527d0e8b4e9d2b1c7a4f8e6b21"])
    errors: list[FieldProblem] | None = None
