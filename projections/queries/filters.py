"""Filters of key lists as SQL, for the key list and for versions of keys."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, FromClause, Select, Table, or_, select

from domain.api_key import Status
from domain.scopes import ANY
from domain.times import to_text
from projections.store.last_uses import minute_of


@dataclass(frozen=True, slots=True)
class Filters:
    """Which keys to list; a filter that is ``None`` matches all.

    Args:
        status: status at the time of the query.
        text: part of the name, or beginning of the prefix or of the key id.
        scope: the key's scopes include this one, wildcards considered.
        created_by: id of the actor that created the key.
        expires_before: the key expires before this time.
        unused_since: the key was created before this time and not used since. A use in the same
            minute counts as later, because it may have been.
        never_used: true for keys that were never used, false for keys that were.
    """

    status: Status | None = None
    text: str | None = None
    scope: str | None = None
    created_by: str | None = None
    expires_before: datetime | None = None
    unused_since: datetime | None = None
    never_used: bool | None = None


def conditions(
    filters: Filters, keys: Table, uses: Table | None = None
) -> list[ColumnElement[bool]]:
    """Return the filters as SQL, except the status, which depends on the query.

    Args:
        keys: the table of the key list, or one with the same columns.
        uses: the table of last uses; ``None`` if they are not known.
    """
    found: list[ColumnElement[bool]] = []
    if filters.text is not None:
        found.append(
            or_(
                keys.c.name.icontains(filters.text, autoescape=True),
                keys.c.prefix.istartswith(filters.text, autoescape=True),
                keys.c.key_id.istartswith(filters.text, autoescape=True),
            )
        )
    if filters.scope is not None:
        found.append(
            or_(
                *(
                    keys.c.scopes.contains(f'"{scope}"', autoescape=True)
                    for scope in _scopes_that_cover(filters.scope)
                )
            )
        )
    if filters.created_by is not None:
        found.append(keys.c.created_by_id == filters.created_by)
    if filters.expires_before is not None:
        found.append(keys.c.expires_at < to_text(filters.expires_before))
    if filters.unused_since is not None:
        found.append(keys.c.created_at < to_text(filters.unused_since))
    return found if uses is None else [*found, *_by_use(filters, keys, uses)]


def _by_use(filters: Filters, keys: FromClause, uses: Table) -> Iterator[ColumnElement[bool]]:
    """Yield the filters on the last use; each looks up at most one row by primary key.

    Comparing the empty columns of an outer join would give the same result, but PostgreSQL would
    estimate that the condition never matches.
    """
    of_key = uses.alias()
    used = select(of_key.c.position).where(of_key.c.position == keys.c.position).correlate(keys)
    if filters.unused_since is not None:
        since = to_text(minute_of(filters.unused_since))
        yield ~used.where(of_key.c.used_at >= since).exists()
    if filters.never_used is not None:
        yield ~used.exists() if filters.never_used else used.exists()


def in_workspace(keys: FromClause, workspace: str | None) -> list[ColumnElement[bool]]:
    """Return the condition for keys of a workspace; none if ``None``, which means all."""
    return [] if workspace is None else [keys.c.workspace == workspace]


def unused(
    filters: Filters, workspace: str | None, keys: Table, uses: Table
) -> Select[tuple[int]] | None:
    """Return the positions of the workspace's keys that match the filters on the last use.

    The query reads both tables completely, in the order of positions.

    Returns:
        The query; ``None`` if no filter is on unused keys.
    """
    if filters.unused_since is None and not filters.never_used:
        return None
    every = keys.alias()
    return select(every.c.position).where(
        *in_workspace(every, workspace), *_by_use(filters, every, uses)
    )


def _scopes_that_cover(scope: str) -> set[str]:
    resource, _, action = ("*", ":", "*") if scope == ANY else scope.partition(":")
    return {ANY, "*:*", f"{resource}:{action}", f"{resource}:*", f"*:{action}"}
