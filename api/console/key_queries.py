"""The key list of a page: the filters, the order and the page that its address names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import Connection

from api.console.paging import BACK, LONGEST_BACK, PAGE_LENGTH, Place
from api.console.times import read_time
from api.http.schemas.free_text import refuse_token
from api.http.schemas.requests import Scope, Status, Workspace
from domain import names, scopes
from domain.errors import Invalid
from domain.times import to_text
from projections.queries.filters import Filters
from projections.queries.key_count import count_keys
from projections.queries.keys_as_of import list_keys_at
from projections.queries.keys_now import list_keys
from projections.queries.keys_sorted import Order, list_keys_by
from projections.views.key_fields import ListedKey

Sort = Literal[
    "-created", "created", "name", "-name", "used", "-used", "expires", "-expires"
]  # fmt: skip
Days = Literal["7", "30", "90"]
SORTS: tuple[Sort, ...] = get_args(Sort)
NEWEST_FIRST: Sort = "-created"
_MOST_COUNTED = 10_000

_ORDERS: dict[str, Order] = {each: each for each in get_args(Order)}


class KeyQuery(BaseModel):
    """Query of the key list; an empty parameter, as forms send it, counts as missing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Workspace | None = None
    of: Literal["*"] | None = Field(default=None, description="The list has all workspaces.")
    status: Status | None = None
    q: str | None = Field(default=None, max_length=names.MAX_NAME_LENGTH)
    scope: Scope | None = None
    expires: Days | None = None
    unused: Literal["never", "30", "90"] | None = None
    sort: Sort = NEWEST_FIRST
    as_of: str | None = Field(default=None, max_length=40)
    cursor: str | None = None
    back: str | None = Field(default=None, max_length=LONGEST_BACK, pattern=BACK)

    _without_token = field_validator("*", mode="before")(refuse_token)

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("remove the character U+0000")
        return value or None

    @field_validator("sort", mode="before")
    @classmethod
    def _sort(cls, value: object) -> object:
        return value or NEWEST_FIRST

    def repeated(self, **changed: str | None) -> dict[str, str]:
        """Return the parameters of the first page, with some of them changed."""
        return self._parameters({"workspace", "of", "cursor", "back"}, **changed)

    def listing(self) -> dict[str, str]:
        """Return the parameters of this page, for links that lead back to it."""
        return self._parameters({"workspace"})

    def _parameters(self, exclude: set[str], **changed: str | None) -> dict[str, str]:
        asked = {name: getattr(self, name) for name in KeyQuery.model_fields if name not in exclude}
        asked |= changed
        if asked["sort"] == NEWEST_FIRST:
            del asked["sort"]
        return {name: value for name, value in asked.items() if value}

    @property
    def is_filtered(self) -> bool:
        """Tell whether it has a filter."""
        return any((self.status, self.q, self.scope, self.expires, self.unused))


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A page of keys.

    Args:
        first: number of the first one in the list; ``None`` if it is not known.
        total: number of keys in the list, counted up to a limit; ``None`` for lists of the past.
        previous: parameters of the page before; ``None`` on the first page.
        next: parameters of the page after; ``None`` on the last page.
    """

    keys: Sequence[ListedKey]
    first: int | None
    total: int | None
    previous: Mapping[str, str] | None
    next: Mapping[str, str] | None

    @property
    def total_is_exact(self) -> bool:
        """Tell whether all keys were counted."""
        return self.total is not None and self.total <= _MOST_COUNTED


def read_past(as_of: str | None, now: datetime) -> datetime | None:
    """Return the time in the past that an address names; without an offset it is in UTC.

    Raises:
        Invalid: the text is not a time, or the time is in the future.
    """
    if as_of is None:
        return None
    at = read_time("as_of", as_of)
    if at > now:
        raise Invalid("as_of", f"choose a time in the past; the time now is {to_text(now)}")
    return at


def find_keys(
    connection: Connection, query: KeyQuery, workspace: str | None, *, now: datetime
) -> KeyPage:
    """Return the page of keys that an address names.

    Args:
        workspace: ``None`` lists the keys of all workspaces.

    Raises:
        Invalid: a value is not valid, or the cursor belongs to another query.
    """
    at = read_past(query.as_of, now)
    filters = _filters(query, now if at is None else at)
    # The address and not the filters: their times are relative to now, which changes.
    mark = [
        "console",
        workspace or "*",
        *(f"{name}={value}" for name, value in query.repeated().items()),
    ]
    place = Place.read(query.cursor, query.back, mark)
    limit = PAGE_LENGTH + 1
    if at is not None:
        if query.unused is not None or query.sort != NEWEST_FIRST:
            raise Invalid("as_of", "lists of the past have the newest key first, and no last use")
        found = list_keys_at(connection, workspace, filters, at=at, before=place.after, limit=limit)
    elif query.sort == NEWEST_FIRST:
        found = list_keys(connection, workspace, filters, now=now, before=place.after, limit=limit)
    else:
        found = list_keys_by(
            connection,
            workspace,
            filters,
            _ORDERS[query.sort.removeprefix("-")],
            descending=query.sort.startswith("-"),
            now=now,
            after=place.after,
            limit=limit,
        )
    keys, more = found[:PAGE_LENGTH], len(found) > PAGE_LENGTH
    total: int | None = None
    if place.after is None and not more:
        total = len(keys)
    elif at is None:
        total = count_keys(connection, workspace, filters, now=now, at_most=_MOST_COUNTED + 1)
    return KeyPage(
        keys,
        first=place.first_number,
        total=total,
        previous=place.previous,
        next=place.next(keys[-1].position) if more else None,
    )


def _filters(query: KeyQuery, now: datetime) -> Filters:
    scope = None if query.scope is None else scopes.checked([query.scope], field="scope")[0]
    within = None if query.expires is None else now + timedelta(days=int(query.expires))
    since = None
    if query.unused not in (None, "never"):
        since = now - timedelta(days=int(query.unused))
    return Filters(
        # Keys that are revoked or expired already do not expire later.
        status=query.status or (None if within is None else "active"),
        text=query.q,
        scope=scope,
        expires_before=within,
        unused_since=since,
        never_used=True if query.unused == "never" else None,
    )
