"""The HTTP application."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from api.composition import opened_ledger, utc_now
from api.console.installation import install_console, open_sessions
from api.http.body_limit import BodyLimit
from api.http.methods import answer_head
from api.http.metrics import Metrics
from api.http.openapi import problem_schemas
from api.http.problems import install_problem_handlers
from api.http.protocol.connection import HTTP, Http
from api.http.query_limit import QueryLimit
from api.http.request_logging import Observed
from api.http.routes import (
    audit,
    documentation,
    events,
    keys,
    probes,
    projections,
    verify,
    workspaces,
)
from api.http.streams.server_sent_events import serving_live_streams
from api.http.tls import tls_of
from api.http.verification import gateway
from api.http.verification.fast_path import FastPath
from api.http.verification.uvicorn_protocol import FAST_PATH, ON_STOP
from api.http.work import Threads, Work, WorkRoute, costly_reads_at_once
from api.jobs.integrity_runs import IntegrityRuns
from api.jobs.periodic import checking_integrity, expiring, signing, storing_last_uses
from api.jobs.rebuilds import Rebuilds
from api.network.addresses import Forwarded, parsed_networks
from api.network.connection_limits import Connections
from api.settings import Settings
from domain.tokens import RandomSource
from domain.verifiers import OWASP_MINIMUM, Argon2Profile
from projections.auth.verification import verifying
from projections.rebuild.rebuild import Clock

DESCRIPTION = """\
An API key ledger: every change to an API key is an event that is never changed, and tokens are
verified at the speed of memory.

Present a token as `Authorization: Bearer …` or `X-API-Key: …`, never in a URL. Every error is an
RFC 9457 problem document with a stable `code`.

Times are RFC 3339 with an offset (`2027-03-03T09:30:00Z`). A date alone (`2027-03-03`) means
midnight UTC.
"""


class LedgerApp(FastAPI):
    """The FastAPI application, with the forward-auth endpoint beside it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or the lifespan."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        self.state.forwarded.set_client(scope)
        if scope["method"] == "HEAD":
            await answer_head(self._serve, scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve forward-auth without the framework, and everything else with FastAPI."""
        if gateway.is_for_gateway(scope["path"]):
            await gateway.serve_gateway(scope, send, self.state.verification, self.state.metrics)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, including the endpoint that FastAPI does not serve."""
        described = super().openapi()
        described["paths"][gateway.PATH] = gateway.documented()
        described["components"]["schemas"] |= problem_schemas()
        return described


@cache
def _version() -> str:
    # Cached, because it reads a file.
    return version("keyledger")


def create_app(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    random: RandomSource = secrets.token_bytes,
    argon2_profile: Argon2Profile = OWASP_MINIMUM,
) -> FastAPI:
    """Return the application; its ledger is opened at startup and closed at shutdown."""
    metrics = Metrics(settings.counted_prefixes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        with opened_ledger(
            settings,
            clock=clock,
            random=random,
            argon2_profile=argon2_profile,
            on_append=metrics.append,
            on_argon2=metrics.argon2,
        ) as ledger:
            app.state.ledger = ledger
            app.state.threads = threads = Threads(costly_reads_at_once(ledger.database, settings))
            app.state.rebuilds = Rebuilds(ledger.database, clock)
            app.state.integrity_runs = IntegrityRuns(ledger)
            app.state.console_sessions = open_sessions(ledger, random)
            metrics.watch(ledger)
            # Signing ends last, so that it covers what the other jobs append.
            with (
                signing(ledger),
                expiring(ledger),
                storing_last_uses(ledger),
                checking_integrity(ledger),
            ):
                run = partial(threads.run, Work.VERIFY)
                async with (
                    serving_live_streams(ledger, threads) as live_streams,
                    verifying(ledger.authentication, ledger.database, clock, run) as verification,
                ):
                    app.state.live_streams = live_streams
                    app.state.verification = verification
                    fast_path = FastPath(verification, metrics)
                    connections = Connections(settings.client_limits)
                    tls = tls_of(settings)
                    context = None if tls is None else tls.context
                    http = Http(settings.http_limits, connections, metrics, context)
                    yield {HTTP: http, FAST_PATH: fast_path, ON_STOP: live_streams.stop}
            app.state.rebuilds.stop()
            app.state.integrity_runs.stop()
            metrics.close()

    app = LedgerApp(
        title="Keyledger",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        # FastAPI's pages load scripts from other hosts; see api/http/routes/documentation.py.
        docs_url=None,
        redoc_url=None,
        # A redirect would repeat the query, and the client would send its credential again.
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.metrics = metrics
    app.state.forwarded = Forwarded(parsed_networks(settings.trusted_proxies))
    app.router.route_class = WorkRoute
    for router in (
        keys.router,
        verify.router,
        verify.oauth_router,
        events.router,
        audit.router,
        projections.router,
        workspaces.router,
        probes.router,
        documentation.router,
    ):
        app.include_router(router)
    install_problem_handlers(app)
    app.add_middleware(QueryLimit)
    app.add_middleware(BodyLimit, longest=settings.max_body_bytes)
    app.add_middleware(Observed, metrics=metrics)
    install_console(app, settings)
    return app
