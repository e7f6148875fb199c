"""Signing in and out, and where to go from there."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Security
from starlette.responses import RedirectResponse, Response

from api.console.forms import Form, read_form, read_own_form
from api.console.pages import ROOT, SECTIONS, page, see
from api.console.routes.kept_forms import show_kept_form
from api.console.sign_in_page import ENDED, sign_in_page, wanted_page
from api.console.visitors import (
    Visitor,
    enter,
    forget_session,
    keep_session,
    session_value,
    sessions_of,
)
from api.http.dependencies import ledger_of
from api.http.work import Work, WorkRoute, does
from domain.verdict import Code, Verified

router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=WorkRoute)

_REFUSALS = {
    Code.REVOKED: "This key was revoked. Sign in with another one.",
    Code.EXPIRED: "This key has expired. Sign in with another one.",
}
_UNKNOWN = "There is no such key here. Check that you pasted the whole token."


@router.get("")
@does(Work.READ)
def begin(visitor: Annotated[Visitor, Security(enter)], request: Request) -> Response:
    """Go to the first section that the key may see, or say that there is none."""
    for section in SECTIONS:
        if section.is_open_to(visitor):
            return see(visitor, section.path)
    return page(request, "nothing_to_see.html", sections_there_are=SECTIONS)


@router.get("/sign-in")
@does(Work.READ)
def show_sign_in(request: Request, ended: str = "") -> Response:
    """Ask for a token."""
    return sign_in_page(request, said=ENDED.get(ended))


@router.post("/sign-in")
@does(Work.VERIFY)
def sign_in(request: Request, form: Annotated[Form, Depends(read_form)]) -> Response:
    """Begin a session of the key whose token was given; whatever session there was ends."""
    ledger, sessions = ledger_of(request), sessions_of(request)
    token, kept = form.text("token").strip(), form.text("kept")
    if not token:
        return sign_in_page(request, 422, wrong="Paste the token of a key.", kept=kept)
    now = ledger.clock()
    source = request.client.host if request.client else None
    verdict = ledger.authentication.verify(token, (), now=now, source=source).verdict
    if verdict.key is not None:
        request.state.actor = verdict.key.key_id
    if not isinstance(verdict, Verified):
        request.state.outcome = verdict.code
        wrong = _REFUSALS.get(verdict.code, _UNKNOWN)
        return sign_in_page(request, 401, wrong=wrong, kept=kept)
    if before := session_value(request):
        sessions.end(before)
    value = sessions.begin(verdict.key, now=now)
    response = kept and show_kept_form(request, verdict.key, value, kept)
    response = response or RedirectResponse(wanted_page(request), 303)
    keep_session(request, response, value)
    return response


@router.post("/sign-out", dependencies=[Security(enter), Depends(read_own_form)])
def sign_out(request: Request) -> Response:
    """End the session."""
    sessions_of(request).end(session_value(request) or "")
    response = see(None, "/sign-in", ended="out")
    forget_session(request, response)
    return response
