"""Signing in and out, and where to go from there."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Security
from starlette.responses import RedirectResponse, Response

from api.console.forms import Form, read_form, read_own_form
from api.console.pages import LONGEST_ADDRESS, ROOT, SECTIONS, page, see
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
from domain.token_text import hide_tokens
from domain.verdict import Code, Verified

router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=WorkRoute)

_REFUSALS = {
    Code.REVOKED: "This key was revoked. Sign in with another one.",
    Code.EXPIRED: "This key has expired. Sign in with another one.",
}
_UNKNOWN = "There is no such key here. Check that you pasted the whole token."
_ENDED = {
    "session": "Your session has ended. Sign in again.",
    "revoked": "You were signed out: the key that you signed in with was revoked.",
    "expired": "You were signed out: the key that you signed in with has expired.",
    "out": "You are signed out.",
}


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
    return _sign_in_page(request, said=_ENDED.get(ended))


@router.post("/sign-in")
@does(Work.VERIFY)
def sign_in(request: Request, form: Annotated[Form, Depends(read_form)]) -> Response:
    """Begin a session of the key whose token was given; whatever session there was ends."""
    ledger, sessions = ledger_of(request), sessions_of(request)
    token = form.text("token").strip()
    if not token:
        return _sign_in_page(request, 422, wrong="Paste the token of a key.")
    now = ledger.clock()
    source = request.client.host if request.client else None
    verdict = ledger.authentication.verify(token, (), now=now, source=source).verdict
    if verdict.key is not None:
        request.state.actor = verdict.key.key_id
    if not isinstance(verdict, Verified):
        request.state.outcome = verdict.code
        return _sign_in_page(request, 401, wrong=_REFUSALS.get(verdict.code, _UNKNOWN))
    if before := session_value(request):
        sessions.end(before)
    response = RedirectResponse(_next(request), 303)
    keep_session(request, response, sessions.begin(verdict.key, now=now))
    return response


@router.post("/sign-out", dependencies=[Security(enter), Depends(read_own_form)])
def sign_out(request: Request) -> Response:
    """End the session."""
    sessions_of(request).end(session_value(request) or "")
    response = see(None, "/sign-in", ended="out")
    forget_session(request, response)
    return response


def _sign_in_page(
    request: Request, status: int = 200, *, said: str | None = None, wrong: str | None = None
) -> Response:
    wanted = _next(request)
    return page(request, "sign_in.html", status, said=said, wrong=wrong, wanted=wanted)


def _next(request: Request) -> str:
    """Return where the visitor wanted to go, if that is one of our own pages."""
    wanted = request.query_params.get("next", "")
    if len(wanted) > LONGEST_ADDRESS:
        return ROOT
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return ROOT
    elsewhere = parts.scheme or parts.netloc or "\\" in wanted or not wanted.isprintable()
    if elsewhere or not parts.path.startswith(f"{ROOT}/") or hide_tokens(wanted) != wanted:
        return ROOT
    return wanted
