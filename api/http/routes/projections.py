"""Projections: their status, and their rebuild."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response, Security
from fastapi.responses import JSONResponse

from api.formats.as_json import status_as_json
from api.http.credentials import Requester, require
from api.http.dependencies import StrictRoute, ledger_of
from api.http.openapi import answers
from api.http.schemas.requests import NoQuery
from api.http.schemas.responses import ProjectionAnswer, ProjectionListAnswer
from api.jobs.rebuilds import Rebuilds
from projections.rebuild.status import ProjectionStatus, projection_status
from projections.views.registry import view_named

router = APIRouter(prefix="/v1/projections", tags=["projections"], route_class=StrictRoute)


@router.get(
    "",
    operation_id="list_projections",
    summary="List projections",
    responses=answers(ok=ProjectionListAnswer),
)
def list_projections(
    request: Request,
    requester: Annotated[Requester, Security(require, scopes=["projections:read"])],
    _query: NoQuery,
) -> Response:
    """List the projections with their status. This needs a key of the workspace `root`."""
    requester.check_root()
    statuses = projection_status(ledger_of(request).database)
    data = [_as_json(request, status) for status in statuses]
    return JSONResponse({"data": data, "next_cursor": None})


@router.post(
    "/{name}/rebuild",
    operation_id="rebuild_projection",
    summary="Rebuild a projection",
    status_code=202,
    responses=answers(404, 409, accepted=ProjectionAnswer),
)
def rebuild_projection(
    request: Request,
    requester: Annotated[Requester, Security(require, scopes=["projections:write"])],
    _query: NoQuery,
    name: Annotated[str, Path(description="Name of the projection.", examples=["key_list"])],
) -> Response:
    """Start to rebuild a projection from the events. This needs a key of the workspace `root`.

    The current table stays in use until the new one replaces it. `GET /v1/projections` shows the
    progress.
    """
    requester.check_root()
    _rebuilds(request).start(view_named(name))
    statuses = projection_status(ledger_of(request).database)
    status = next(status for status in statuses if status.name == name)
    return JSONResponse(_as_json(request, status), 202)


def _as_json(request: Request, status: ProjectionStatus) -> dict[str, Any]:
    state = _rebuilds(request).state(status.name)
    rebuild = state and {
        "state": state.state,
        "position": state.position,
        "detail": state.detail,
    }
    return status_as_json(status) | {"rebuild": rebuild}


def _rebuilds(request: Request) -> Rebuilds:
    rebuilds: Rebuilds = request.app.state.rebuilds
    return rebuilds
