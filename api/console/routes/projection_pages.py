"""The projections: how far each has come, and making one anew."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request, Security
from starlette.responses import Response

from api.console.forms import read_own_form
from api.console.pages import ROOT, page, see
from api.console.visitors import Visitor, enter
from api.http.dependencies import ledger_of
from api.http.work import WorkRoute
from api.jobs.rebuilds import Rebuilds
from api.jobs.started_runs import RunState
from projections.rebuild.status import ProjectionStatus, projection_status
from projections.views.registry import view_named

router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=WorkRoute)


@dataclass(frozen=True, slots=True)
class Progress:
    """A projection, and how a rebuild of it goes.

    Args:
        rebuild: the last one that this process ran.
    """

    status: ProjectionStatus
    rebuild: RunState | None

    @property
    def is_running(self) -> bool:
        """Tell whether it is being made anew, by this process or another."""
        if self.rebuild is not None and self.rebuild.state == "running":
            return True
        return self.rebuild is None and self.status.rebuild_position is not None

    @property
    def position(self) -> int:
        """The position up to which the new table has come."""
        reached = self.rebuild.position if self.rebuild is not None else None
        return reached or self.status.rebuild_position or 0


@router.get("/projections")
def show_projections(
    request: Request,
    visitor: Annotated[Visitor, Security(enter, scopes=["projections:read"])],
) -> Response:
    """Tell how far each projection has come; for keys of the workspace ``root``."""
    visitor.requester.check_root()
    shown = [
        Progress(status, _rebuilds(request).state(status.name))
        for status in projection_status(ledger_of(request).database)
    ]
    return page(
        request,
        "projections.html",
        projections=shown,
        is_running=any(each.is_running for each in shown),
    )


@router.post("/projections/{name}/rebuild", dependencies=[Depends(read_own_form)])
def rebuild_projection(
    request: Request,
    name: str,
    visitor: Annotated[Visitor, Security(enter, scopes=["projections:read", "projections:write"])],
) -> Response:
    """Begin to make a projection anew; the old table serves until the new one is ready."""
    visitor.requester.check_root()
    _rebuilds(request).start(view_named(name))
    return see(visitor, "/projections")


def _rebuilds(request: Request) -> Rebuilds:
    return cast("Rebuilds", request.app.state.rebuilds)
