"""Access reports: which keys were active at a time, and which ones to review.

Keys are read page by page and workspace by workspace, so memory use does not depend on their
number.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from sqlalchemy import Connection, select

from domain.caller import Actor
from domain.errors import DamagedHistory, Invalid
from domain.key_ids import to_key_id, to_uuid
from projections.queries.filters import Filters
from projections.queries.keys_as_of import list_keys_at
from projections.queries.keys_now import list_keys
from projections.queries.workspaces import list_workspaces
from projections.store.events import decode_rows
from projections.store.schema import events
from projections.views.key_fields import ListedKey

Review = Literal["no-expiry", "expiring", "unused", "never-used", "full-access", "rotated-late"]

_PAGE = 200
_ALL_WORKSPACES = 1_000_000


@dataclass(frozen=True, slots=True)
class Access:
    """A key, and its last change as of the time of the report."""

    key: ListedKey
    changed_at: datetime
    changed_by: Actor


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects the keys of a report: those that match the filters and for which ``also`` is true."""

    filters: Filters
    also: Callable[[ListedKey], bool] = lambda _key: True


ALL_KEYS = Selection(Filters())
CALLERS = Selection(Filters(status="active"))
"""All keys that were active."""


def reviewed(
    review: Review,
    at: datetime,
    *,
    within: timedelta,
    since: datetime | None,
    older_than: timedelta,
) -> Selection:
    """Return the selection for a review; all its keys were active at the time.

    Args:
        review: ``no-expiry``: keys that never expire. ``expiring``: keys that expire ``within`` a
            span. ``unused``: keys older than ``since`` and not used since. ``never-used``.
            ``full-access``: keys with all scopes. ``rotated-late``: keys older than ``older_than``;
            as a key has the same secret all its life, the secret has that age.
        at: time of the report.

    Raises:
        Invalid: a required time is missing.
    """
    match review:
        case "no-expiry":
            return Selection(Filters(status="active"), lambda key: key.expires_at is None)
        case "expiring":
            return Selection(Filters(status="active", expires_before=at + within))
        case "unused":
            if since is None:
                raise Invalid(
                    "since", "this review needs a time: use one such as 2027-03-03T09:30:00Z"
                )
            return Selection(Filters(status="active", unused_since=since))
        case "never-used":
            return Selection(Filters(status="active", never_used=True))
        case "full-access":
            return Selection(Filters(status="active", scope="*"))
        case "rotated-late":
            before = at - older_than
            return Selection(Filters(status="active"), lambda key: key.created_at < before)


def list_access(
    connection: Connection,
    selection: Selection,
    *,
    at: datetime,
    past: bool = False,
    workspace: str | None = None,
) -> Iterator[Access]:
    """Yield the keys of a report, sorted by workspace and then newest first.

    Args:
        at: time of the report.
        past: whether that time is in the past; last uses are then unknown.
        workspace: the only workspace to report on; ``None`` for all.

    Raises:
        DamagedHistory: the event of a key's last change is missing.
    """
    if workspace is None:
        workspaces = list_workspaces(connection, limit=_ALL_WORKSPACES)
    else:
        workspaces = [workspace]
    for each in workspaces:
        for page in _pages(connection, each, selection.filters, at, past=past):
            keys = [key for key in page if selection.also(key)]
            changes = _last_changes(connection, keys)
            for key in keys:
                if key.key_id not in changes:
                    raise DamagedHistory(
                        f"the event of version {key.version} of {key.key_id} is missing: run"
                        " keyledger audit verify"
                    )
                changed_at, changed_by = changes[key.key_id]
                yield Access(key, changed_at, changed_by)


def _pages(
    connection: Connection, workspace: str, filters: Filters, at: datetime, *, past: bool
) -> Iterator[list[ListedKey]]:
    before = None
    while True:
        if past:
            page = list_keys_at(connection, workspace, filters, at=at, before=before, limit=_PAGE)
        else:
            page = list_keys(connection, workspace, filters, now=at, before=before, limit=_PAGE)
        yield page
        if len(page) < _PAGE:
            return
        before = page[-1].position


def _last_changes(
    connection: Connection, keys: list[ListedKey]
) -> dict[str, tuple[datetime, Actor]]:
    """Return time and actor of the change that made each key's version."""
    versions = {to_uuid(key.key_id).bytes: key.version for key in keys}
    rows = connection.execute(select(events).where(events.c.originator_id.in_(versions)))
    last = [row for row in rows if row.originator_version == versions[row.originator_id]]
    return {
        to_key_id(event.originator_id): (
            event.timestamp,
            Actor(**cast("dict[str, Any]", event.actor)),
        )
        for _, event in decode_rows(last)
    }
