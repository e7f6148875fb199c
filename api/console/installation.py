"""Putting the console into the app."""

from datetime import timedelta

from fastapi import FastAPI
from starlette.responses import RedirectResponse

from api.composition import OpenLedger
from api.console.pages import ROOT, load_pages
from api.console.responses import ConsoleResponses
from api.console.routes import (
    audit_downloads,
    audit_pages,
    files,
    key_changes,
    key_making,
    key_pages,
    projection_pages,
    signing_in,
)
from api.http.work import Work, does
from api.scope_catalogue import read_catalogue
from api.settings import Settings
from domain.tokens import RandomSource
from projections.store.console_sessions import ConsoleSessions


def install_console(app: FastAPI, settings: Settings) -> None:
    """Add the console's pages to the app; it comes last, to be around all other middleware."""
    app.state.console_pages = load_pages(read_catalogue(settings.scope_catalogue))
    # The pages with a path of their own come before those of a key.
    for each in (
        signing_in,
        files,
        key_making,
        key_pages,
        key_changes,
        audit_pages,
        audit_downloads,
        projection_pages,
    ):
        app.include_router(each.router)
    app.add_api_route("/", does(Work.READ)(_to_the_console), include_in_schema=False)
    app.add_middleware(ConsoleResponses)


def open_sessions(ledger: OpenLedger, random: RandomSource) -> ConsoleSessions:
    """Return the sessions of a ledger's console."""
    return ConsoleSessions(
        ledger.database,
        random,
        lifetime=timedelta(hours=ledger.settings.console_session_hours),
        idle=timedelta(minutes=ledger.settings.console_idle_minutes),
    )


async def _to_the_console() -> RedirectResponse:
    return RedirectResponse(ROOT, 303)
