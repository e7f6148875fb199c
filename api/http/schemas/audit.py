"""Queries about the audit trail, as the OpenAPI document describes them."""

from typing import Annotated

from pydantic import Field

from api.http.schemas.requests import KEY_ID, Query, Time, WorkspaceOrAll
from domain.stored_form import EVENT_CLASSES

_LARGEST = 2**63 - 1

Position = Annotated[int, Field(ge=0, le=_LARGEST)]
Size = Annotated[int, Field(ge=0, le=_LARGEST)]


class FindEvents(Query):
    """Which events to read."""

    workspace: WorkspaceOrAll | None = None
    key_id: str | None = Field(default=None, max_length=200, examples=[KEY_ID])
    actor: str | None = Field(default=None, max_length=200, description="The id of who did it.")
    type: str | None = Field(
        default=None, max_length=40, json_schema_extra={"enum": [*EVENT_CLASSES]}
    )
    since: Time | None = Field(
        default=None, alias="from", description="Events of this time or later."
    )
    until: Time | None = Field(default=None, description="Events before this time.")
    after: Position | None = Field(
        default=None,
        description="Events after this position. Where a live tail is not told, it begins with"
        " what comes from now on; everything else begins with the first event.",
    )
    limit: int | None = Field(
        default=None, ge=1, le=100, description="Of a page of JSON; 50 if it is left out."
    )
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before.")


class NameEntry(Query):
    """An entry, by one of its names, and the tree that it is to be in."""

    leaf_index: int | None = Field(
        default=None, ge=0, le=_LARGEST, description="Its place in the tree.", examples=[0]
    )
    position: Position | None = Field(
        default=None, description="Its event's place in the one order of all events."
    )
    key_id: str | None = Field(default=None, max_length=200, examples=[KEY_ID])
    version: int | None = Field(
        default=None, ge=1, le=_LARGEST, description="To which the event brought the key."
    )
    workspace: WorkspaceOrAll | None = None
    size: Size | None = Field(
        default=None,
        description="How many entries the tree has; if left out, what the latest checkpoint says,"
        " or all there are, if it does not have the entry yet.",
    )


class CompareTrees(Query):
    """Two sizes of the tree."""

    old_size: Size = Field(
        alias="from", description="How many entries the smaller tree has.", examples=[0]
    )
    size: Size | None = Field(
        default=None,
        alias="to",
        description="How many the larger one has; if left out, what the latest checkpoint says, or"
        " all there are, if that is the smaller of the two.",
    )
