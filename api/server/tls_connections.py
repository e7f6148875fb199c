"""TLS connections: the handshake has a deadline and counts as a connection.

With the event loop's own TLS, the application learns of a connection only after the handshake, so
no limit would apply to a client that connects and sends nothing. Here a connection is counted when
it is accepted; then the event loop gets its socket and must complete the handshake in time.
"""

import os
import socket
import ssl
from asyncio import AbstractEventLoop, BaseTransport, Protocol, Task, Transport, get_running_loop
from typing import Any, cast

import structlog
from uvicorn.config import Config
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

from api.http.protocol.connection import HTTP, Http
from api.http.verification.uvicorn_protocol import CheckProtocol

_log = structlog.get_logger()


class TlsConnection(Protocol):
    """A connection until its handshake is complete; uvicorn creates it."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        self._http: Http = app_state[HTTP]
        self._server_state = server_state
        self._loop = _loop or get_running_loop()
        self._secured = _SecuredConnection(self, config, server_state, app_state, self._loop)
        self._counted_as: str | None = None
        self._handshake: Task[None] | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Count the connection and start the handshake, unless there are too many connections."""
        # uvloop's transport does not inherit from asyncio's, but behaves the same.
        plain = cast("Transport", transport)
        client = get_remote_addr(plain)
        self._counted_as = self._http.connections.enter(client and client[0])
        if self._counted_as is None:
            plain.abort()
            return
        try:
            # Nothing was read yet, and this transport reads nothing after it is closed.
            accepted = socket.socket(fileno=os.dup(plain.get_extra_info("socket").fileno()))
        except OSError:
            self.leave()
            return
        finally:
            plain.close()
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        self._handshake = self._loop.create_task(self._shake_hands(accepted))

    def leave(self) -> None:
        """Stop counting the connection; after the handshake, the HTTP connection is counted."""
        self._server_state.connections.discard(self)
        if self._counted_as is not None:
            self._http.connections.leave(self._counted_as)
            self._counted_as = None

    def shutdown(self) -> None:
        """End the connection because the server stops."""
        if self._handshake is not None:
            self._handshake.cancel()

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._secured,
                accepted,
                ssl=self._http.tls,
                ssl_handshake_timeout=self._http.limits.head_seconds,
            )
        except (OSError, ssl.SSLError) as error:
            _log.debug("tls_handshake_failed", detail=str(error))
        finally:
            self.leave()


class _SecuredConnection(CheckProtocol):
    """A connection whose handshake is complete."""

    def __init__(self, handshake: TlsConnection, *given: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*given)
        self._handshake = handshake

    def connection_made(self, transport: BaseTransport) -> None:
        """Count this connection instead of the handshake, and start reading."""
        self._handshake.leave()
        super().connection_made(transport)
