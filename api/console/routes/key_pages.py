"""The list of keys, and the details of each: as they are, or as they were at a time."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Security
from pydantic import Field
from starlette.responses import Response

from api.console.history import Happening, tell_history
from api.console.key_panels import listing, panel
from api.console.key_queries import NEWEST_FIRST, KeyQuery, find_keys, read_past
from api.console.pages import ROOT, page, pages_of
from api.console.queries import read_query
from api.console.visitors import Visitor, enter, enter_workspace
from api.console.workspaces import workspaces_for
from api.http.dependencies import ledger_of
from api.http.schemas.requests import KeyId
from api.http.work import WorkRoute
from api.scope_catalogue import offered
from domain.errors import Invalid
from domain.names import EVERY_WORKSPACE
from projections.queries.key_names import names_of_keys
from projections.queries.keys_as_of import show_key_at
from projections.queries.keys_now import show_key
from projections.views.key_fields import FIELDS, ListedKey

router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=WorkRoute)

Listing = Annotated[Visitor, Security(enter, scopes=["api-keys:read"])]
Reading = Annotated[Visitor, Security(enter_workspace, scopes=["api-keys:read"])]

_EVENTS_SHOWN = 50
_COLUMNS = (
    ("Name", "name"),
    ("Scopes", None),
    ("Created", "created"),
    ("Last used", "used"),
    ("Expires", "expires"),
    ("Status", None),
)
_PLACED = frozenset(
    {
        *("key_id", "workspace", "name", "prefix", "scopes", "role", "status", "expires_at"),
        *("created_at", "created_by", "revoked_at", "revoked_by", "revoke_reason"),
        *("rotated_from", "rotated_to", "last_used_at", "version"),
    }
)
"""The fields that have a place of their own in ``key.html``."""
_COLUMNS_OF_ALL = (_COLUMNS[0], ("Workspace", None), *_COLUMNS[1:])
_DONE = {
    "renamed": "The name was changed.",
    "expiration": "The expiration was changed.",
    "scopes": "The scopes were changed.",
    "revoked": "The key was revoked. Its token does not work any more.",
}


class DetailsQuery(KeyQuery):
    """Query of the details of a key, beside that of the list that they were opened from."""

    before: int | None = Field(default=None, ge=1, description="Show events of older versions.")
    done: str | None = Field(default=None, description="Change that was made just now.")
    saved: str | None = Field(default=None, description="Confirms that the token was saved.")


@router.get("/keys")
def list_the_keys(request: Request, visitor: Listing) -> Response:
    """List the keys of the workspace."""
    ledger = ledger_of(request)
    now = ledger.clock()
    asked = read_query(KeyQuery, request.query_params)
    past, found = None, None
    with ledger.database.read() as connection:
        try:
            past = read_past(asked.query.as_of, now)
            if not asked.wrong:
                found = find_keys(connection, asked.query, visitor.reading_in(), now=now)
        except Invalid as error:
            asked = asked.refused(error)
        workspaces = workspaces_for(connection, visitor)
    return page(
        request,
        "keys.html",
        422 if asked.wrong else 200,
        asked=asked,
        query=asked.query,
        listing=listing(asked.query, visitor),
        found=found,
        kept_query=asked.query.repeated(),
        past=past,
        columns=_COLUMNS if visitor.workspace != EVERY_WORKSPACE else _COLUMNS_OF_ALL,
        newest_first=NEWEST_FIRST,
        workspaces=workspaces,
        scopes=sorted(offered(pages_of(request).catalogue)),
    )


@router.get("/keys/{key_id}")
def show_the_key(
    request: Request, visitor: Reading, key_id: KeyId, query: Annotated[DetailsQuery, Query()]
) -> Response:
    """Show the details and the history of a key."""
    ledger = ledger_of(request)
    now = ledger.clock()
    past = read_past(query.as_of or None, now)
    with ledger.database.read() as connection:
        key = (
            show_key(connection, visitor.workspace, key_id, now=now)
            if past is None
            else show_key_at(connection, visitor.workspace, key_id, at=past)
        )
        told = [
            each
            for each in reversed(tell_history(connection, key_id))
            if (past is None or each.at <= past)
            and (query.before is None or each.version < query.before)
        ]
        shown = told[:_EVENTS_SHOWN]
        return panel(
            request,
            visitor,
            connection,
            "key.html",
            key=key,
            others=_others(key),
            names=names_of_keys(connection, visitor.readable_workspace, _keys_in(key, shown)),
            past=past,
            events=shown,
            older=told[_EVENTS_SHOWN - 1].version if len(told) > _EVENTS_SHOWN else None,
            done=_DONE.get(query.done or ""),
        )


def _others(key: ListedKey) -> list[tuple[str, object]]:
    """Return label and value of the fields that the page writes by their type."""
    others = [field for name, field in FIELDS.items() if name not in _PLACED]
    return [(field.about.label, getattr(key, field.name)) for field in others]


def _keys_in(key: ListedKey, events: Sequence[Happening]) -> set[str]:
    """Return the ids of the keys that the details of a key mention."""
    actors = [key.created_by, key.revoked_by, *(event.by for event in events)]
    others = [key.rotated_from, key.rotated_to]
    return {each.id for each in actors if each and each.type == "key"} | set(filter(None, others))
