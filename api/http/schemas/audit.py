"""Queries of the audit trail, as the OpenAPI document describes them."""

from typing import Annotated

from pydantic import Field

from api.http.schemas.requests import KEY_ID, Cursor, Query, Time, WorkspaceOrAll
from domain.serialization import EVENT_CLASSES

_LARGEST = 2**63 - 1

Position = Annotated[int, Field(ge=0, le=_LARGEST)]
Size = Annotated[int, Field(ge=0, le=_LARGEST)]


class FindEvents(Query):
    """Filters of the events, and the page."""

    workspace: WorkspaceOrAll = None
    key_id: str | None = Field(
        default=None, max_length=200, description="Only events of this key.", examples=[KEY_ID]
    )
    actor: str | None = Field(
        default=None, max_length=200, description="Only events of the actor with this id."
    )
    type: str | None = Field(
        default=None,
        max_length=40,
        description="Only events of this type.",
        json_schema_extra={"enum": [*EVENT_CLASSES]},
    )
    since: Time | None = Field(
        default=None, alias="from", description="Only events at or after this time."
    )
    until: Time | None = Field(default=None, description="Only events before this time.")
    after: Position | None = Field(
        default=None,
        description="Only events after this position. Without it, a live stream starts with the"
        " next new event, and every other format with the first event.",
    )
    limit: int | None = Field(
        default=None, ge=1, le=100, description="Maximum size of a page of JSON; by default 50."
    )
    cursor: Cursor = None


class NameEntry(Query):
    """An entry, selected in one of three ways, and the size of the tree."""

    leaf_index: int | None = Field(
        default=None,
        ge=0,
        le=_LARGEST,
        description="Index of the entry in the Merkle tree.",
        examples=[0],
    )
    position: Position | None = Field(
        default=None, description="Position of the event in the global order of events."
    )
    key_id: str | None = Field(
        default=None,
        max_length=200,
        description="Id of the key; used with `version`.",
        examples=[KEY_ID],
    )
    version: int | None = Field(
        default=None, ge=1, le=_LARGEST, description="Version of the key after the event."
    )
    workspace: WorkspaceOrAll = None
    size: Size | None = Field(
        default=None,
        description="Number of entries in the tree. By default that of the latest checkpoint, or"
        " all entries if the checkpoint does not cover the entry yet.",
    )


class CompareTrees(Query):
    """Two sizes of the tree."""

    old_size: Size = Field(
        alias="from", description="Number of entries in the smaller tree.", examples=[0]
    )
    size: Size | None = Field(
        default=None,
        alias="to",
        description="Number of entries in the larger tree. By default that of the latest"
        " checkpoint, or all entries if the checkpoint is smaller than `from`.",
    )
