"""Answers, as the OpenAPI document describes them; only `IssuedKeyAnswer` can carry a token."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from api.http.schemas.requests import KEY_ID, Time
from domain.caller import Actor
from projections.views.key_fields import FIELDS
from projections.views.key_fields import Field as KeyField

_HASH = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

NextCursor = Annotated[
    str | None, Field(description="`cursor` of the next page; null on the last page.")
]
LeafIndex = Annotated[
    int, Field(ge=0, description="Index of the entry in the Merkle tree.", examples=[0])
]
EventPosition = Annotated[
    int, Field(ge=1, description="Position of the event in the global order of events.")
]
EventType = Annotated[str, Field(description="Type of the event.", examples=["ApiKey.Revoked"])]
EventVersion = Annotated[int, Field(ge=1, description="Version of the key after the event.")]
OccurredAt = Annotated[Time, Field(description="Time of the event.")]
RequestId = Annotated[str | None, Field(description="`X-Request-Id` of the request.")]
SourceIp = Annotated[str | None, Field(description="IP address of the client.")]
EventData = Annotated[
    dict[str, object],
    Field(description="Values of the event.", examples=[{"reason": "leaked", "comment": None}]),
]


class ActorAnswer(BaseModel):
    """The actor of a change."""

    type: Literal["key", "cli", "system"] = Field(
        description="A key, a user of the command line, or the server itself."
    )
    id: str = Field(description="Id of the actor; of a key its key id.", examples=[KEY_ID])


EventActor = Annotated[ActorAnswer, Field(description="The actor of the event.")]


_JSON_TYPES: dict[Any, Any] = {datetime: Time, Actor: ActorAnswer, tuple[str, ...]: list[str]}


def _declared(field: KeyField) -> tuple[Any, Any]:
    """Return a field of a key as pydantic takes it."""
    about = field.about
    kind = _JSON_TYPES.get(field.kind, field.kind)
    return kind | None if field.optional else kind, Field(
        description=about.description,
        examples=None if about.example is ... else [about.example],
        ge=about.minimum,
    )


_DECLARED: dict[str, Any] = {field.name: _declared(field) for field in FIELDS.values()}
_KeyFields = create_model("_KeyFields", **_DECLARED)


class KeyAnswer(_KeyFields):
    """A key; it contains no secret."""


class IssuedKeyAnswer(KeyAnswer):
    """A new key with its token."""

    token: str | None = Field(
        description="The token, shown only in this answer; null if an earlier request with the"
        " same Idempotency-Key created the key."
    )


class KeyListAnswer(BaseModel):
    """A page of keys, newest first."""

    data: list[KeyAnswer] = Field(description="The keys.")
    next_cursor: NextCursor


class WorkspaceAnswer(BaseModel):
    """A workspace."""

    name: str = Field(description="Name of the workspace.", examples=["default"])
    keys: int = Field(description="Number of keys, including revoked and expired ones.")
    active_keys: int = Field(description="Number of active keys.")


class WorkspaceListAnswer(BaseModel):
    """A page of workspaces, sorted by name."""

    data: list[WorkspaceAnswer] = Field(description="The workspaces.")
    next_cursor: NextCursor


class EventAnswer(BaseModel):
    """An event of a key."""

    position: EventPosition
    type: EventType
    key_id: str = Field(description="Id of the key.", examples=[KEY_ID])
    version: EventVersion
    occurred_at: OccurredAt
    actor: EventActor
    request_id: RequestId
    source_ip: SourceIp
    data: EventData


class EventListAnswer(BaseModel):
    """A page of a key's history, oldest event first."""

    data: list[EventAnswer] = Field(description="The events.")
    next_cursor: NextCursor


class FeedEntryAnswer(BaseModel):
    """An event and its index in the Merkle tree."""

    leaf_index: LeafIndex
    position: EventPosition
    type: EventType
    key_id: str | None = Field(
        description="Id of the key; null for events of the audit log itself.", examples=[KEY_ID]
    )
    version: EventVersion
    occurred_at: OccurredAt
    actor: EventActor
    request_id: RequestId
    source_ip: SourceIp
    data: EventData


class FeedAnswer(BaseModel):
    """A page of events, oldest first."""

    data: list[FeedEntryAnswer] = Field(description="The events.")
    next_cursor: NextCursor


class InclusionAnswer(BaseModel):
    """The proof that the tree contains an entry; hashes are in base64."""

    leaf_index: LeafIndex
    leaf_hash: str = Field(
        description="Hash of the leaf: `SHA-256(0x00 || entry)`.", examples=[_HASH]
    )
    size: int = Field(ge=1, description="Number of entries in the tree.", examples=[1])
    root: str = Field(description="Root hash of the tree.", examples=[_HASH])
    hashes: list[str] = Field(
        description="Sibling hashes, from the leaf to the root.", examples=[[]]
    )


class ConsistencyAnswer(BaseModel):
    """The proof that the tree of one size is a prefix of a larger one; hashes are in base64."""

    old_size: int = Field(ge=0, description="Number of entries in the smaller tree.", examples=[0])
    old_root: str = Field(description="Root hash of the smaller tree.", examples=[_HASH])
    size: int = Field(ge=0, description="Number of entries in the larger tree.", examples=[0])
    root: str = Field(description="Root hash of the larger tree.", examples=[_HASH])
    hashes: list[str] = Field(description="Hashes of the proof (RFC 9162).", examples=[[]])


class VerdictAnswer(BaseModel):
    """The verdict on a token. Values of the key are null unless the secret is right."""

    valid: bool = Field(description="Whether the token is valid and holds the requested scopes.")
    code: Literal["VALID", "MALFORMED", "NOT_FOUND", "REVOKED", "EXPIRED", "INSUFFICIENT_SCOPE"] = (
        Field(description="The verdict.")
    )
    key_id: str | None = Field(description="Id of the key.")
    name: str | None = Field(description="Name of the key.")
    workspace: str | None = Field(description="Workspace of the key.")
    role: str | None = Field(description="Role of the key.")
    scopes: list[str] | None = Field(description="Scopes of the key.")
    expires_at: Time | None = Field(description="Expiry time; null: the key never expires.")
    position: int = Field(description="Position of the newest event that the verdict includes.")


class VerdictListAnswer(BaseModel):
    """The verdicts on several tokens, in the order of the tokens."""

    data: list[VerdictAnswer] = Field(description="The verdicts.")
    next_cursor: None = Field(description="Always null: all verdicts are on one page.")


class IntrospectionAnswer(BaseModel):
    """An introspected token (RFC 7662, section 2.2); only `active` if it is not valid."""

    active: bool = Field(description="Whether the token is valid.")
    scope: str | None = Field(
        default=None,
        description="Scopes of the key, separated by spaces.",
        examples=["mcp:read mcp:write"],
    )
    client_id: str | None = Field(default=None, description="Id of the key.", examples=[KEY_ID])
    sub: str | None = Field(default=None, description="Id of the key.", examples=[KEY_ID])
    token_type: str | None = Field(
        default=None, description="Type of the token.", examples=["Bearer"]
    )
    exp: int | None = Field(
        default=None, description="Expiry time, in seconds since 1970-01-01T00:00:00Z."
    )


class RebuildAnswer(BaseModel):
    """The state of a rebuild."""

    state: Literal["running", "failed", "done"] = Field(description="State of the rebuild.")
    position: int | None = Field(description="Position of the last event that was applied.")
    detail: str | None = Field(description="Why the rebuild failed.")


class ProjectionAnswer(BaseModel):
    """The status of a projection."""

    name: str = Field(description="Name of the projection.", examples=["key_list"])
    view_version: int = Field(description="Version of the table's definition.")
    position: int = Field(description="Position of the last event that was applied.")
    last_position: int = Field(description="Position of the newest event.")
    lag: int = Field(description="Number of positions behind the newest event.")
    rows: int = Field(description="Number of rows.")
    completed_at: Time | None = Field(description="Time of the last completed rebuild.")
    rebuild_position: int | None = Field(
        description="Position that a running or interrupted rebuild has reached."
    )
    rebuild: RebuildAnswer | None = Field(description="The last rebuild in this process.")


class ProjectionListAnswer(BaseModel):
    """All projections."""

    data: list[ProjectionAnswer] = Field(description="The projections.")
    next_cursor: NextCursor


class HealthAnswer(BaseModel):
    """The process runs."""

    status: Literal["ok"] = Field(description="Always `ok`.")


class AttestationAnswer(BaseModel):
    """The result of the last integrity check."""

    finished_at: Time = Field(description="Time at which the check ended.")
    position: int = Field(
        description="Position of the last event that was checked.", examples=[1200]
    )
    findings: int = Field(description="Number of findings; `keyledger audit verify` lists them.")


class ReadinessAnswer(BaseModel):
    """Whether the ledger is ready to serve."""

    status: Literal["ready", "behind"] = Field(
        description="`ready`, or `behind` if a projection is not up to date."
    )
    position: int = Field(description="Position of the newest event.", examples=[1200])
    behind: list[str] = Field(description="Projections that are not up to date.", examples=[[]])
    changes_refused: bool = Field(
        description="Whether changes are refused, because the log differs from the signed one or"
        " a projection has another version. Reads and verification still work. The server's log"
        " has the reason.",
        examples=[False],
    )
    attestation: AttestationAnswer | None = Field(
        description="Result of the last integrity check; null before the first one."
    )


class FieldProblem(BaseModel):
    """A problem with one value."""

    field: str = Field(description="Name of the field or parameter.")
    message: str = Field(description="What is wrong, and what to do.")


class ProblemAnswer(BaseModel):
    """An error (RFC 9457). Programs read `code`, people read `detail`."""

    type: str = Field(description="Always `about:blank`.", examples=["about:blank"])
    title: str = Field(description="Summary of the kind of error.", examples=["No such key"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(
        description="What is wrong, and what to do.",
        examples=[f"there is no key {KEY_ID} in the workspace acme"],
    )
    code: str = Field(description="Stable code of the error.", examples=["KEY_NOT_FOUND"])
    request_id: RequestId = Field(examples=["req_5f0c3a527d0e8b4e9d2b1c7a4f8e6b21"])
    errors: list[FieldProblem] | None = Field(
        default=None, description="Each problem of a request that is not valid."
    )
