"""A request and its answer, between a connection and the application."""

import asyncio
from logging import Logger
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from api.http.protocol.messages import Message

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, HTTPScope


class Connection(Protocol):
    """The parts of a connection that an exchange needs."""

    config: Config
    server_state: ServerState
    app_state: dict[str, Any]
    logger: Logger
    flow: FlowControl
    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: Literal["http", "https"]

    def on_response_complete(self) -> None:
        """Read the next request."""


class Exchange(RequestResponseCycle):
    """A complete request, as the application sees it."""

    def __init__(self, connection: Connection, message: Message) -> None:
        super().__init__(
            scope=_scope(connection, message),
            # The exchange writes and closes through the connection, for its lingering close.
            transport=connection,  # type: ignore[arg-type]
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.logger,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=message.head.keep_alive,
            on_response=connection.on_response_complete,
        )
        self._request: bytes | None = message.body
        self._ends_by_closing = False

    async def receive(self) -> "ASGIReceiveEvent":
        """Return the body, and then wait for the end of the connection or of the answer."""
        body, self._request = self._request, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.disconnected and not self.response_complete:
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: "ASGISendEvent") -> None:
        """Send part of the answer.

        HTTP/1.0 has no chunked coding: closing the connection ends an answer of unknown length.
        """
        if self.scope["http_version"] == "1.0":
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message.get("headers", ())}
                self._ends_by_closing = b"content-length" not in names
                if self._ends_by_closing:
                    self.chunked_encoding = False
            elif self._ends_by_closing and message["type"] == "http.response.body":
                self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


def _scope(connection: Connection, message: Message) -> "HTTPScope":
    head = message.head
    raw_path, _, query = head.target.partition(b"?")
    path = raw_path.decode("ascii")
    root: str = connection.config.root_path
    state: dict[str, Any] = connection.app_state.copy()
    return {
        "type": "http",
        "asgi": {"version": connection.config.asgi_version, "spec_version": "2.3"},
        "http_version": head.version,
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme,
        "method": head.method.decode("ascii"),
        "root_path": root,
        "path": root + (unquote(path) if "%" in path else path),
        "raw_path": root.encode("ascii") + raw_path,
        "query_string": query,
        "headers": head.headers,
        "state": state,
    }
