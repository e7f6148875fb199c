"""Which keys to list: each filter as SQL for the key list, and as Python for keys of the past."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Table, or_

from domain.api_key import Status
from domain.scopes import ANY, cover
from domain.times import to_text
from projections.listed_key import ListedKey


@dataclass(frozen=True, slots=True)
class Filters:
    """Which keys to list; what is ``None`` does not matter.

    Args:
        status: as it is at the time of the query.
        text: occurs in the name, or begins the prefix or the key id.
        scope: the key may do all that this scope names, wildcards included.
        created_by: the id of the actor that made the key.
        expires_before: the key's end comes before this time.
    """

    status: Status | None = None
    text: str | None = None
    scope: str | None = None
    created_by: str | None = None
    expires_before: datetime | None = None


def conditions(filters: Filters, keys: Table) -> list[ColumnElement[bool]]:
    """Return the filters as SQL; all but the status, which the query itself depends on.

    Args:
        keys: the key list's table.
    """
    found: list[ColumnElement[bool]] = []
    if filters.text is not None:
        found.append(
            or_(
                keys.c.name.icontains(filters.text, autoescape=True),
                keys.c.prefix.startswith(filters.text, autoescape=True),
                keys.c.key_id.startswith(filters.text, autoescape=True),
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
    return found


def predicate(filters: Filters) -> Callable[[ListedKey], bool]:
    """Return the filters as `conditions` means them: SQLite folds the case of ASCII alone."""
    text = None if filters.text is None else _ascii_lower(filters.text)

    def fits(key: ListedKey) -> bool:
        return (
            (filters.status is None or key.status == filters.status)
            and (
                text is None
                or text in _ascii_lower(key.name)
                or _ascii_lower(key.prefix).startswith(text)
                or key.key_id.startswith(text)
            )
            and (filters.scope is None or cover(key.scopes, [filters.scope]))
            and (filters.created_by is None or key.created_by.id == filters.created_by)
            and (
                filters.expires_before is None
                or (key.expires_at is not None and key.expires_at < filters.expires_before)
            )
        )

    return fits


def _scopes_that_cover(scope: str) -> set[str]:
    resource, _, action = ("*", ":", "*") if scope == ANY else scope.partition(":")
    return {ANY, "*:*", f"{resource}:{action}", f"{resource}:*", f"*:{action}"}


def _ascii_lower(text: str) -> str:
    return "".join(each.lower() if each.isascii() else each for each in text)
