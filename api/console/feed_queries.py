"""Which events the audit page lists: what its address asks for, and how they are told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import Connection

from api.console.history import what_happened
from api.console.times import read_time
from api.formats.cursors import from_cursor, to_cursor
from api.http.schemas.free_text import refuse_token
from api.http.schemas.requests import Workspace
from domain.caller import Actor
from domain.errors import KeyNotFound
from domain.key_ids import to_uuid
from domain.times import from_text
from projections.queries.feed import FeedEntry, FeedFilters, read_feed, span_of

PAGE_LENGTH = 50


class FeedQuery(BaseModel):
    """What an address asks for; a field that is empty, as in a form, is not there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Workspace | None = None
    key: str | None = Field(default=None, max_length=200)
    actor: str | None = Field(default=None, max_length=200)
    type: str | None = Field(default=None, max_length=40)
    since: str | None = Field(default=None, alias="from", max_length=40)
    until: str | None = Field(default=None, max_length=40)
    cursor: str | None = None

    _without_token = field_validator("*", mode="before")(refuse_token)

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        if isinstance(value, str):
            if "\0" in value:
                raise ValueError("leave out the character U+0000")
            value = value.strip()
        return value or None

    def repeated(self) -> dict[str, str]:
        """Return what to ask for in another address, but for the page."""
        asked = self.model_dump(exclude={"workspace", "cursor"}, by_alias=True)
        return {name: value for name, value in asked.items() if value}

    def filters(self, workspace: str) -> FeedFilters:
        """Return which entries of a workspace it asks for.

        Raises:
            Invalid: nothing could ever fit.
        """
        return FeedFilters(
            workspace=workspace,
            key_id=self.key,
            actor=self.actor,
            type=self.type,
            since=None if self.since is None else read_time("from", self.since),
            until=None if self.until is None else read_time("until", self.until),
        )


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
    """A page of entries, the newest first; ``next_cursor`` is ``None`` on the last."""

    entries: Sequence[ToldEntry | DamagedEntry]
    next_cursor: str | None


def keys_in(entries: Sequence[ToldEntry | DamagedEntry]) -> set[str]:
    """Return the ids of the keys that entries speak of."""
    told = [each for each in entries if isinstance(each, ToldEntry)]
    actors = {each.by.id for each in told if each.by.type == "key"}
    return actors | {each.key_id for each in told if each.key_id is not None}


def find_entries(connection: Connection, query: FeedQuery, workspace: str) -> FeedPage:
    """Return the entries that an address asks for.

    Raises:
        Invalid: a value breaks a rule, or the cursor belongs to another query.
    """
    filters = query.filters(workspace)
    mark = ["console", "feed", workspace, *map("=".join, query.repeated().items())]
    before = from_cursor(query.cursor, *mark)
    span = span_of(connection, filters, after=-1)
    if before is not None:
        span = range(span.start, min(span.stop, before))
    found = read_feed(connection, filters, span, limit=PAGE_LENGTH + 1, newest_first=True)
    shown = found[:PAGE_LENGTH]
    more = len(found) > PAGE_LENGTH
    return FeedPage(
        [tell_entry(each) for each in shown],
        to_cursor(shown[-1].leaf_index, *mark) if more else None,
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
