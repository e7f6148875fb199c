"""The list of keys, and the page of each: as they are, or as they were."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Security
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.console.history import Happening, tell_history
from api.console.key_queries import NEWEST_FIRST, KeyQuery, find_keys, read_past
from api.console.pages import ROOT, page, pages_of
from api.console.visitors import Visitor, enter
from api.http.dependencies import ledger_of
from api.http.schemas.requests import KeyId, Workspace
from api.http.work import WorkRoute
from api.scope_catalogue import offered
from projections.queries.key_names import names_of_keys
from projections.queries.key_summary import ListedKey
from projections.queries.keys_as_of import show_key_at
from projections.queries.keys_now import show_key
from projections.queries.workspaces import list_workspaces

router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=WorkRoute)

Reading = Annotated[Visitor, Security(enter, scopes=["api-keys:read"])]

_EVENTS_SHOWN = 50
_WORKSPACES_SHOWN = 200
_COLUMNS = (
    ("Name", "name"),
    ("Scopes", None),
    ("Role", None),
    ("Created", "created"),
    ("Last used", "used"),
    ("Expires", "expires"),
    ("Status", None),
)
_DONE = {
    "renamed": "The key has its new name.",
    "expiration": "The key has its new end.",
    "scopes": "The key has its new scopes.",
    "revoked": "The key is revoked. Nothing can call with it any more.",
}


class DetailsQuery(BaseModel):
    """What an address of a key asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Workspace | None = None
    as_of: str | None = Field(default=None, max_length=40)
    before: int | None = Field(default=None, ge=1, description="A version; older events follow.")
    done: str | None = Field(default=None, description="What was just done to it.")
    saved: str | None = Field(default=None, description="Its token was saved.")


@router.get("/keys")
def list_the_keys(
    request: Request, visitor: Reading, query: Annotated[KeyQuery, Query()]
) -> Response:
    """List the workspace's keys."""
    ledger = ledger_of(request)
    now = ledger.clock()
    with ledger.database.read() as connection:
        found = find_keys(connection, query, visitor.workspace, now=now)
        workspaces = (
            list_workspaces(connection, limit=_WORKSPACES_SHOWN)
            if visitor.requester.is_root
            else []
        )
    return page(
        request,
        "keys.html",
        query=query,
        found=found,
        past=read_past(query.as_of, now),
        columns=_COLUMNS,
        newest_first=NEWEST_FIRST,
        workspaces=workspaces,
        scopes=sorted(offered(pages_of(request).catalogue)),
    )


@router.get("/keys/{key_id}")
def show_the_key(
    request: Request, visitor: Reading, key_id: KeyId, query: Annotated[DetailsQuery, Query()]
) -> Response:
    """Show a key with all that happened to it."""
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
        names = names_of_keys(connection, visitor.workspace, _keys_in(key, shown))
    return page(
        request,
        "key.html",
        key=key,
        names=names,
        past=past,
        as_of=query.as_of,
        events=shown,
        older=told[_EVENTS_SHOWN - 1].version if len(told) > _EVENTS_SHOWN else None,
        done=_DONE.get(query.done or ""),
    )


def _keys_in(key: ListedKey, events: Sequence[Happening]) -> set[str]:
    """Return the ids of the keys that a page of a key speaks of."""
    actors = [key.created_by, key.revoked_by, *(event.by for event in events)]
    others = [key.rotated_from, key.rotated_to]
    return {each.id for each in actors if each and each.type == "key"} | set(filter(None, others))
