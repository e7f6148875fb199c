"""Which keys a page lists: what its address asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import Connection

from api.console.times import read_time
from api.formats.cursors import from_cursor, to_cursor
from api.http.schemas.free_text import refuse_token
from api.http.schemas.requests import Scope, Status, Workspace
from domain import names, scopes
from domain.errors import Invalid
from domain.times import to_text
from projections.queries.filters import Filters
from projections.queries.key_summary import ListedKey
from projections.queries.keys_as_of import list_keys_at
from projections.queries.keys_now import list_keys
from projections.queries.keys_sorted import Order, list_keys_by

Sort = Literal[
    "-created", "created", "name", "-name", "used", "-used", "expires", "-expires"
]  # fmt: skip
Days = Literal["7", "30", "90"]
SORTS: tuple[Sort, ...] = get_args(Sort)
NEWEST_FIRST: Sort = "-created"
PAGE_LENGTH = 50

_ORDERS: dict[str, Order] = {each: each for each in get_args(Order)}


class KeyQuery(BaseModel):
    """What an address asks for; a field that is empty, as in a form, is not there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Workspace | None = None
    status: Status | None = None
    q: str | None = Field(default=None, max_length=names.MAX_NAME_LENGTH)
    scope: Scope | None = None
    expires: Days | None = None
    unused: Literal["never", "30", "90"] | None = None
    sort: Sort = NEWEST_FIRST
    as_of: str | None = Field(default=None, max_length=40)
    cursor: str | None = None

    _without_token = field_validator("*", mode="before")(refuse_token)

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("leave out the character U+0000")
        return value or None

    @field_validator("sort", mode="before")
    @classmethod
    def _sort(cls, value: object) -> object:
        return value or NEWEST_FIRST

    def repeated(self, **changed: str | None) -> dict[str, str]:
        """Return what to ask for in another address, with some of it changed."""
        asked = self.model_dump(exclude={"workspace", "cursor"}) | changed
        if asked["sort"] == NEWEST_FIRST:
            asked["sort"] = None
        return {name: value for name, value in asked.items() if value}

    @property
    def is_filtered(self) -> bool:
        """Tell whether keys may be there that it leaves out."""
        return any((self.status, self.q, self.scope, self.expires, self.unused))


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A page of keys; ``next_cursor`` is ``None`` on the last."""

    keys: Sequence[ListedKey]
    next_cursor: str | None


def read_past(as_of: str | None, now: datetime) -> datetime | None:
    """Return the time in the past that an address names; without an offset it is in UTC.

    Raises:
        Invalid: it is no time, or none that has passed.
    """
    if as_of is None:
        return None
    at = read_time("as_of", as_of)
    if at > now:
        raise Invalid("as_of", f"give a time that has passed; it is {to_text(now)}")
    return at


def find_keys(connection: Connection, query: KeyQuery, workspace: str, *, now: datetime) -> KeyPage:
    """Return the keys that an address asks for.

    Raises:
        Invalid: a value breaks a rule, or the cursor belongs to another query.
    """
    at = read_past(query.as_of, now)
    filters = _filters(query, now if at is None else at)
    # The address and not the filters: they are about times counted from now, which goes on.
    mark = ["console", workspace, *(f"{name}={value}" for name, value in query.repeated().items())]
    place = from_cursor(query.cursor, *mark)
    if at is not None:
        if query.unused is not None or query.sort != NEWEST_FIRST:
            raise Invalid("as_of", "the past is listed the newest first, and knows no uses")
        found = list_keys_at(
            connection, workspace, filters, at=at, before=place, limit=PAGE_LENGTH + 1
        )
    elif query.sort == NEWEST_FIRST:
        found = list_keys(
            connection, workspace, filters, now=now, before=place, limit=PAGE_LENGTH + 1
        )
    else:
        found = list_keys_by(
            connection,
            workspace,
            filters,
            _ORDERS[query.sort.removeprefix("-")],
            descending=query.sort.startswith("-"),
            now=now,
            after=place,
            limit=PAGE_LENGTH + 1,
        )
    keys = found[:PAGE_LENGTH]
    more = len(found) > PAGE_LENGTH
    return KeyPage(keys, to_cursor(keys[-1].position, *mark) if more else None)


def _filters(query: KeyQuery, now: datetime) -> Filters:
    scope = None if query.scope is None else scopes.checked([query.scope], field="scope")[0]
    within = None if query.expires is None else now + timedelta(days=int(query.expires))
    since = None
    if query.unused not in (None, "never"):
        since = now - timedelta(days=int(query.unused))
    return Filters(
        # What has ended does not expire any more.
        status=query.status or (None if within is None else "active"),
        text=query.q,
        scope=scope,
        expires_before=within,
        unused_since=since,
        never_used=True if query.unused == "never" else None,
    )
