"""Probes, for those who keep the service running: no credential, and no secret."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api.http.dependencies import ledger_of
from api.http.openapi import refusal
from api.http.schemas.responses import HealthAnswer, ReadinessAnswer
from api.http.work import Work, WorkRoute, does
from domain.times import to_text
from projections.integrity.last_result import last_attestation
from projections.rebuild.status import projection_status

router = APIRouter(tags=["probes"], route_class=WorkRoute)


@router.get("/healthz")
@does(Work.PROBE)
async def healthz() -> HealthAnswer:
    """Tell that the process answers."""
    return HealthAnswer(status="ok")


@router.get(
    "/readyz",
    responses={200: {"model": ReadinessAnswer}, 503: refusal(503) | {"model": ReadinessAnswer}},
)
@does(Work.PROBE)
def readyz(request: Request) -> Response:
    """Tell whether the ledger can be asked and its projections are up to date.

    What the last attestation found is told, and does not make a ledger that answers not ready.

    Changes are refused if the log is not the one that was signed, or if a view is at another
    version than this program's, older or newer.
    """
    ledger = ledger_of(request)
    # Not ready either: a database that lacks what this process has seen.
    ledger.authentication.catch_up()
    ledger.database.known.check()
    statuses = projection_status(ledger.database)
    last = last_attestation(ledger.database, ledger.clock())
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


@router.get("/metrics", responses={503: refusal(503)}, response_class=PlainTextResponse)
@does(Work.PROBE)
def metrics(request: Request) -> Response:
    """Give the metrics, in Prometheus's text format."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
