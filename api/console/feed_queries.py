"""The events of the audit page: the filters and the page that its address names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from sqlalchemy import Connection

from api.console.history import what_happened
from api.console.paging import BACK, LONGEST_BACK, PAGE_LENGTH, Place
from api.console.times import read_time
from api.http.schemas.free_text import refuse_token
from api.http.schemas.requests import Workspace
from domain.caller import Actor
from domain.errors import Invalid, KeyNotFound
from domain.key_ids import to_uuid
from domain.times import from_text, to_text
from projections.queries.feed import FeedEntry, FeedFilters, read_feed, span_of


class FeedQuery(BaseModel):
    """Query of the audit page; an empty parameter, as forms send it, counts as missing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Workspace | None = None
    key: str | None = Field(default=None, max_length=200)
    actor: str | None = Field(default=None, max_length=200)
    type: str | None = Field(default=None, max_length=40)
    since: str | None = Field(default=None, alias="from", max_length=40)
    until: str | None = Field(default=None, max_length=40)
    cursor: str | None = None
    back: str | None = Field(default=None, max_length=LONGEST_BACK, pattern=BACK)

    _without_token = field_validator("*", mode="before")(refuse_token)

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        if isinstance(value, str):
            if "\0" in value:
                raise ValueError("remove the character U+0000")
            value = value.strip()
        return value or None

    @field_validator("since", "until")
    @classmethod
    def _time(cls, value: str | None, info: ValidationInfo) -> str | None:
        try:
            return value and to_text(read_time(str(info.field_name), value))
        except Invalid as error:
            raise ValueError(error.message) from None

    def repeated(self) -> dict[str, str]:
        """Return the parameters of the first page."""
        asked = self.model_dump(exclude={"workspace", "cursor", "back"}, by_alias=True)
        return {name: value for name, value in asked.items() if value}

    def filters(self, workspace: str | None) -> FeedFilters:
        """Return the filters of the feed.

        Raises:
            Invalid: no event can have such a key id or type.
        """
        try:
            return FeedFilters(
                workspace=workspace,
                key_id=self.key,
                actor=self.actor,
                type=self.type,
                since=None if self.since is None else from_text(self.since),
                until=None if self.until is None else from_text(self.until),
            )
        except Invalid as error:
            field = {"key_id": "key"}.get(error.field, error.field)
            raise Invalid(field, error.message) from None


@dataclass(frozen=True, slots=True)
class ToldEntry:
    """An entry as the pages show it.

    Args:
        what: what happened, in words.
        key_id: of the key to which it happened; ``None`` if it is about the log itself.
        reason: why, where somebody said so.
    """

    leaf_index: int
    what: str
    at: datetime
    by: Actor
    key_id: str | None
    version: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class DamagedEntry:
    """An entry that cannot be read any more."""

    leaf_index: int


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A page of entries, newest first.

    Args:
        previous: parameters of the page before; ``None`` on the first page.
        next: parameters of the page after; ``None`` on the last page.
    """

    entries: Sequence[ToldEntry | DamagedEntry]
    previous: Mapping[str, str] | None
    next: Mapping[str, str] | None


def keys_in(entries: Sequence[ToldEntry | DamagedEntry]) -> set[str]:
    """Return the ids of the keys that entries speak of."""
    told = [each for each in entries if isinstance(each, ToldEntry)]
    actors = {each.by.id for each in told if each.by.type == "key"}
    return actors | {each.key_id for each in told if each.key_id is not None}


def find_entries(connection: Connection, query: FeedQuery, workspace: str | None) -> FeedPage:
    """Return the entries that an address asks for.

    Raises:
        Invalid: a value breaks a rule, or the cursor belongs to another query.
    """
    filters = query.filters(workspace)
    mark = ["console", "feed", workspace or "*", *map("=".join, query.repeated().items())]
    place = Place.read(query.cursor, query.back, mark)
    span = span_of(connection, filters, after=-1)
    if place.after is not None:
        span = range(span.start, min(span.stop, place.after))
    found = read_feed(connection, filters, span, limit=PAGE_LENGTH + 1, newest_first=True)
    shown = found[:PAGE_LENGTH]
    more = len(found) > PAGE_LENGTH
    return FeedPage(
        [tell_entry(each) for each in shown],
        previous=place.previous,
        next=place.next(shown[-1].leaf_index) if more else None,
    )


def tell_entry(found: FeedEntry) -> ToldEntry | DamagedEntry:
    """Return an entry as pages show it.

    The pages that tell what is wrong with a log can be read when something is.
    """
    try:
        event: dict[str, Any] = orjson.loads(found.entry)
        for key_id in (event["key_id"], _acting_key(event)):
            if key_id is not None:
                to_uuid(key_id)
        return ToldEntry(
            leaf_index=found.leaf_index,
            what=what_happened(event["type"]),
            at=from_text(event["occurred_at"]),
            by=Actor(event["actor"]["type"], event["actor"]["id"]),
            key_id=event["key_id"],
            version=event["version"],
            reason=event["data"].get("reason"),
        )
    except (ValueError, LookupError, TypeError, AttributeError, KeyNotFound):
        return DamagedEntry(found.leaf_index)


def _acting_key(event: dict[str, Any]) -> str | None:
    actor: dict[str, str] = event["actor"]
    return actor["id"] if actor["type"] == "key" else None
