"""Probes, for those who keep the service running: no credential, and no secret."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api.problems import CONTENT_TYPE
from api.requests import ledger_of
from api.schemas import ProblemAnswer
from projections.status import projection_status

router = APIRouter(tags=["probes"])

_UNAVAILABLE: dict[int | str, dict[str, Any]] = {
    503: {
        "description": "The ledger cannot be asked.",
        "content": {CONTENT_TYPE: {"schema": ProblemAnswer.model_json_schema()}},
    }
}


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Tell that the process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses=_UNAVAILABLE)
def readyz(request: Request) -> Response:
    """Tell whether the ledger can be asked and its projections are up to date."""
    statuses = projection_status(ledger_of(request).database)
    behind = [status.name for status in statuses if status.lag]
    content = {
        "status": "behind" if behind else "ready",
        "position": max(status.last_position for status in statuses),
        "behind": behind,
    }
    return JSONResponse(content, 503 if behind else 200)


@router.get("/metrics", responses=_UNAVAILABLE, response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Give the metrics, in Prometheus's text format."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
