"""Pages of one key: a panel beside the list that it was opened from, where there is room."""

from collections.abc import Mapping

from fastapi import Request
from sqlalchemy import Connection
from starlette.responses import HTMLResponse

from api.console.key_queries import KeyQuery, find_keys
from api.console.pages import linker, page
from api.console.queries import read_query
from api.console.visitors import Visitor
from api.console.workspaces import workspaces_for
from api.http.dependencies import ledger_of
from domain.errors import Invalid
from domain.names import EVERY_WORKSPACE


def panel(
    request: Request,
    visitor: Visitor,
    connection: Connection,
    template: str,
    status: int = 200,
    **shown: object,
) -> HTMLResponse:
    """Return a page of one key.

    The list beside it is read for GET only: other requests run in threads that must not wait for a
    costly read.

    Args:
        template: the file of its template.
        shown: what the template shows.
    """
    query = read_query(KeyQuery, request.query_params).query
    workspace: str | None = visitor.workspace
    if query.of and visitor.requester.is_root:
        workspace = None
    found = None
    if request.method == "GET":
        try:
            now = ledger_of(request).clock()
            found = find_keys(connection, query, workspace, now=now)
        except Invalid:
            query = KeyQuery()
    back = query.repeated(cursor=query.cursor, back=query.back)
    if workspace is None:
        back["workspace"] = EVERY_WORKSPACE
    return page(
        request,
        template,
        status,
        **{
            "listing": query.listing(),
            "query": query,
            "beside": found,
            "list_link": linker(visitor)("/keys", **back),
            "workspaces": workspaces_for(connection, visitor),
            **shown,
        },
    )


def listing(query: KeyQuery, visitor: Visitor) -> Mapping[str, str]:
    """Return the parameters that pages of a key need to lead back to a list."""
    everywhere = {"of": EVERY_WORKSPACE} if visitor.workspace == EVERY_WORKSPACE else {}
    return query.listing() | everywhere


def listing_of(request: Request) -> Mapping[str, str]:
    """Return the parameters that lead back to the list that a page was opened from."""
    return read_query(KeyQuery, request.query_params).query.listing()
