"""Health checks and metrics: they need no credential and disclose no secret."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api.http.dependencies import ledger_of
from api.http.openapi import refusal
from api.http.schemas.responses import HealthAnswer, ReadinessAnswer
from api.http.work import Work, WorkRoute, does
from domain.times import to_text
from projections.integrity.last_result import read_last_result
from projections.rebuild.status import projection_status

router = APIRouter(tags=["probes"], route_class=WorkRoute)


@router.get("/healthz", operation_id="get_health", summary="Check that the process runs")
@does(Work.PROBE)
async def healthz() -> HealthAnswer:
    """Answer 200 while the process runs."""
    return HealthAnswer(status="ok")


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Check that the ledger is ready",
    responses={200: {"model": ReadinessAnswer}, 503: refusal(503) | {"model": ReadinessAnswer}},
)
@does(Work.PROBE)
def readyz(request: Request) -> Response:
    """Answer 200 if the database answers and the projections are up to date, else 503.

    The answer also contains the result of the last integrity check; findings do not change the
    status.

    Changes are refused if the log differs from the signed one, or if a projection has another
    version than this program's, older or newer.
    """
    ledger = ledger_of(request)
    # Not ready either: a database that lacks what this process has seen.
    ledger.authentication.freshness.check()
    ledger.database.known.check()
    statuses = projection_status(ledger.database)
    last = read_last_result(ledger.database, ledger.clock())
    behind = [status.name for status in statuses if status.lag]
    content = {
        "status": "behind" if behind else "ready",
        "position": max(status.last_position for status in statuses),
        "behind": behind,
        "changes_refused": ledger.signer.doubt is not None
        or any(status.is_of_another_version for status in statuses),
        "attestation": None
        if last is None
        else {
            "finished_at": to_text(last.finished_at),
            "position": last.position,
            "findings": last.findings,
        },
    }
    return JSONResponse(content, 503 if behind else 200)


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Get the metrics",
    responses={503: refusal(503)},
    response_class=PlainTextResponse,
)
@does(Work.PROBE)
def metrics(request: Request) -> Response:
    """Return the metrics in the text format of Prometheus."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
