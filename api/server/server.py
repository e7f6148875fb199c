"""The server process: first key, logs, and uvicorn."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from tempfile import TemporaryDirectory

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.composition import OpenLedger, opened_ledger
from api.http.metrics import SHARED_FOLDER
from api.http.tls import NoTls, tls_of
from api.http.verification.uvicorn_protocol import CheckProtocol
from api.logs import configure_logs
from api.network.connection_limits import raise_descriptor_limit
from api.network.listening import CannotListen, announce, bind, close
from api.server.first_key import show_on_stderr
from api.server.processes import run_until_stopped, stop_on_hangup
from api.server.tls_connections import TlsConnection
from api.setting_errors import PREFIX
from api.settings import Settings, read_settings
from domain.caller import system
from domain.names import ROOT_WORKSPACE
from projections.store.database import check_privileges
from projections.store.events import last_position
from projections.store.locks import task_lock
from projections.views.registry import WRITTEN

_log = structlog.get_logger()
_STOP_SECONDS = timedelta(seconds=10)
_WORKER_SILENT_SECONDS = 60
"""Time after which a silent worker counts as dead. A worker that starts on a busy machine is silent
for a while, and a replacement would not be quicker."""

_NEW = "\nThis ledger is new. Its root key may do everything; it is shown only now:\n\n"


def serve(settings: Settings) -> None:
    """Serve until a signal stops the server; requests in progress are answered first.

    On an empty ledger, create a root key and print its token to standard error, this once.

    Raises:
        LedgerError: the ledger cannot be opened, or the database role lacks a privilege that a
            server needs.
        SystemExit: the server cannot start, for example because its port is in use; the log says
            why.
    """
    configure_logs(settings.log_level, settings.log_format)
    raise_descriptor_limit()
    sockets = _bound(settings)
    try:
        _serve_on(settings, sockets)
    finally:
        close(sockets)


def _serve_on(settings: Settings, sockets: list[socket.socket]) -> None:
    with opened_ledger(settings) as ledger:
        check_privileges(ledger.database, WRITTEN)
        make_root_key(ledger)
    # Worker processes read their settings from the environment, so put the options there.
    for name, value in settings.model_dump(mode="json", exclude_none=True).items():
        os.environ[PREFIX + name.upper()] = str(value)
    with _shared_metrics(settings.workers), _one_exit_code():
        config = uvicorn.Config(
            "api.server.server:worker_app",
            factory=True,
            http=CheckProtocol if settings.tls_certificate is None else TlsConnection,
            # The application has no WebSocket route.
            ws="none",
            workers=settings.workers,
            log_config=None,
            access_log=False,
            server_header=False,
            # LedgerApp reads these headers.
            proxy_headers=False,
            timeout_worker_healthcheck=_WORKER_SILENT_SECONDS,
            timeout_graceful_shutdown=int(_STOP_SECONDS.total_seconds()),
        )
        announce(sockets, settings.host, tls=settings.tls_certificate is not None)
        run_until_stopped(config, sockets)


def _bound(settings: Settings) -> list[socket.socket]:
    """Return the bound sockets; report wrong settings before a root key is created."""
    try:
        tls_of(settings)
        return bind(settings.host, settings.port)
    except (CannotListen, NoTls) as error:
        _log.error(str(error))
        sys.exit(1)


@contextmanager
def _one_exit_code() -> Iterator[None]:
    """Exit with status 1 where uvicorn, which has logged the reason, uses another status."""
    try:
        yield
    except SystemExit as ended:
        if ended.code:
            sys.exit(1)
        raise


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """Give several workers a common folder for adding up their metrics."""
    if workers == 1:
        yield
        return
    with TemporaryDirectory(prefix="keyledger-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        yield


def worker_app() -> FastAPI:
    """Return the application of a worker process."""
    settings = read_settings()
    configure_logs(settings.log_level, settings.log_format)
    stop_on_hangup()
    return create_app(settings)


def make_root_key(ledger: OpenLedger) -> None:
    """Create the first key of an empty ledger, and print its token.

    If several processes call this at the same time, one of them creates and prints the key.

    Raises:
        LedgerUnavailable: standard error cannot be written. No key was created; or, if only the
            token could not be written, the message names the key and says what to do.
    """
    with task_lock(ledger.database, "first-key") as alone:
        # A log that lost its events is not a new one.
        if not alone or not _is_empty(ledger) or ledger.signer.doubt is not None:
            return
        show_on_stderr(_NEW)
        issued = ledger.ledger.create_key(
            workspace=ROOT_WORKSPACE,
            name="root",
            scopes=["*"],
            expires_at=None,
            token_prefix=ledger.settings.token_prefix,
            by=system("first-start"),
            at=ledger.clock(),
        )
    if issued.token is not None:
        show_on_stderr(f"    {issued.token.reveal()}\n\n", issued.key_id)


def _is_empty(ledger: OpenLedger) -> bool:
    with ledger.database.read() as connection:
        return last_position(connection) == 0
