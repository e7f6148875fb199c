"""Workspaces: the tenants that keys belong to."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, Security
from fastapi.responses import JSONResponse

from api.formats.as_json import page_as_json, workspace_as_json
from api.http.credentials import Requester, require
from api.http.dependencies import StrictRoute, ledger_of
from api.http.openapi import answers
from api.http.schemas.requests import ListWorkspaces
from api.http.schemas.responses import WorkspaceListAnswer
from projections.queries.workspaces import list_workspaces, summarize_workspaces

router = APIRouter(prefix="/v1/workspaces", tags=["workspaces"], route_class=StrictRoute)


@router.get(
    "",
    operation_id="list_workspaces",
    summary="List workspaces",
    responses=answers(ok=WorkspaceListAnswer),
)
def list_the_workspaces(
    request: Request,
    requester: Annotated[Requester, Security(require, scopes=["api-keys:read"])],
    query: Annotated[ListWorkspaces, Query()],
) -> Response:
    """List the workspaces that have keys, sorted by name.

    A credential of `root` sees all of them, any other credential only its own.
    """
    ledger = ledger_of(request)
    with ledger.database.read() as connection:
        if requester.is_root:
            names = list_workspaces(connection, after=query.cursor, limit=query.limit + 1)
        else:
            names = [requester.workspace]
        page = names[: query.limit]
        found = summarize_workspaces(connection, page, now=ledger.clock())
    cursor = page[-1] if len(names) > query.limit else None
    return JSONResponse(page_as_json([workspace_as_json(each) for each in found], cursor))
