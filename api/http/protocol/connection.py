"""A connection: reads and answers one request at a time, and never waits without a limit.

A request is processed when it has arrived completely, and the next one is read when the answer is
complete. So answers are in the order of requests, a client that pipelines requests occupies a
bounded amount of memory, and an error in one request cannot change the answer to another. If the
framing is wrong, the connection ends with an error answer.

A connection ends with a lingering close (RFC 9112, section 9.6): the server stops sending, reads
and discards what the client still sends, up to a limit, and then closes. If it closed immediately,
the client's system would discard the answer before the client has read it.
"""

import logging
from asyncio import AbstractEventLoop, BaseTransport, Protocol, Transport, get_running_loop
from enum import Enum
from ipaddress import IPv6Address, ip_address
from ssl import SSLContext
from typing import Any, Literal, NamedTuple, cast

import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from api.http.metrics import Metrics
from api.http.protocol.deadlines import Deadline
from api.http.protocol.exchange import Exchange
from api.http.protocol.messages import Message, MessageReader
from api.http.protocol.refusals import Refused, refusal_bytes
from api.http.request_logging import new_request_id, request_id_of
from api.network.connection_limits import Connections
from api.network.http_limits import (
    BUFFERED_BYTES,
    DISCARD_SECONDS,
    DISCARDED_BYTES,
    SLOWEST_BYTES_PER_SECOND,
    HttpLimits,
)

HTTP = "http"
"""Name of the connections' shared objects in the state of the application's lifespan."""

_log = structlog.get_logger()


class Http(NamedTuple):
    """Objects that all connections of a process share."""

    limits: HttpLimits
    connections: Connections
    metrics: Metrics
    tls: SSLContext | None = None


class _WaitsFor(Enum):
    """The event that a connection waits for."""

    FIRST_BYTE = "first byte"
    HEAD = "rest of a head"
    BODY = "rest of a body"
    ANSWER = "answer"
    NEXT = "next request"
    END = "end of the connection"


class HttpConnection(Protocol):
    """A connection; uvicorn creates it."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.config = config
        self.server_state = server_state
        self.app_state = app_state
        self.loop = _loop or get_running_loop()
        self.logger = logging.getLogger("uvicorn.error")
        self.transport: Transport
        self.flow: FlowControl
        self.server: tuple[str, int | None] | None = None
        self.client: tuple[str, int] | None = None
        self.scheme: Literal["http", "https"] = "http"
        self._http: Http = app_state[HTTP]
        self._reader = MessageReader(self._http.limits)
        self._exchange: Exchange | None = None
        self._waits_for = _WaitsFor.FIRST_BYTE
        self._deadline = Deadline(self.loop, self._expire)
        self._counted_as: str | None = None
        self._turned_away = False
        self._client_ended = False
        self._body_began = 0.0
        self._body_bytes = 0
        self._unsent = 0
        self._discarded = 0

    def connection_made(self, transport: BaseTransport) -> None:
        """Start reading, unless there are too many connections."""
        # uvloop's transport does not inherit from asyncio's, but behaves the same.
        self.transport = cast("Transport", transport)
        self.flow = FlowControl(self.transport)
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        self.server = get_local_addr(self.transport)
        self.client = _unmapped(get_remote_addr(self.transport))
        self.scheme = "https" if is_ssl(self.transport) else "http"
        self._counted_as = self._http.connections.enter(self.client and self.client[0])
        if self._counted_as is None:
            self._turn_away()
        else:
            self._deadline.set_after(self._http.limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        """Release the connection's resources, and tell the application."""
        self._deadline.stop()
        self.server_state.connections.discard(self)
        if self._counted_as is not None:
            self._http.connections.leave(self._counted_as)
            self._counted_as = None
        if self._turned_away:
            self._http.connections.turned_away()
            self._turned_away = False
        self._waits_for = _WaitsFor.END
        if self._exchange is not None:
            self._exchange.disconnected = not self._exchange.response_complete
            self._exchange.message_event.set()
        self.flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Process received bytes."""
        if self._waits_for is _WaitsFor.END:
            self._discard(len(data))
            return
        self._reader.feed(data)
        if self._waits_for is _WaitsFor.ANSWER:
            if self._reader.buffered > BUFFERED_BYTES:
                self.flow.pause_reading()
            return
        self._body_bytes += len(data)
        self._read()

    def eof_received(self) -> bool:
        """Answer the requests that have arrived, if the client only stopped sending.

        Returns:
            Whether the connection stays open.
        """
        streaming = self._exchange is not None and self._exchange.response_started
        if self._waits_for is not _WaitsFor.ANSWER or streaming or self.scheme == "https":
            return False
        self._client_ended = True
        return True

    def pause_writing(self) -> None:
        """Wait until the client has read part of the answer."""
        self.flow.pause_writing()
        if self._waits_for is _WaitsFor.ANSWER:
            self._expect_progress()

    def resume_writing(self) -> None:
        """Continue writing."""
        self.flow.resume_writing()
        if self._waits_for is _WaitsFor.ANSWER:
            self._deadline.clear()

    def shutdown(self) -> None:
        """End the connection after the current answer, because the server stops."""
        if self._exchange is not None:
            self._exchange.keep_alive = False
        elif self._waits_for is not _WaitsFor.END:
            self._close()

    def handle(self, message: Message) -> None:
        """Answer a request; `on_response_complete` is called when the answer is complete."""
        self.to_app(message)

    def to_app(self, message: Message) -> None:
        """Let the application answer a request."""
        exchange = self._exchange = Exchange(self, message)
        task = self.loop.create_task(exchange.run_asgi(self.config.loaded_app))
        task.add_done_callback(self.server_state.tasks.discard)
        self.server_state.tasks.add(task)

    def on_response_complete(self) -> None:
        """Read the next request, beginning with bytes that have already arrived."""
        self.server_state.total_requests += 1
        self._exchange = None
        if self._waits_for is _WaitsFor.END:
            return
        self._waits_for = _WaitsFor.NEXT
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self._client_ended or self._reader.begun:
            self._read()
        else:
            self._deadline.set_after(self._http.limits.idle_seconds)

    def refuse(self, refused: Refused) -> None:
        """Send an error answer to a message, and end the connection."""
        head = self._reader.head
        request_id = new_request_id() if head is None else request_id_of(head.headers)
        if not self.transport.is_closing():
            default = self.server_state.default_headers
            with_body = not self._reader.is_head
            self.transport.write(refusal_bytes(refused, default, request_id, with_body=with_body))
        self.end()
        self._http.metrics.request("unread", "unmatched", refused.status, 0.0)
        _log.info("refused", status=refused.status, detail=refused.detail, request_id=request_id)

    def write(self, data: bytes) -> None:
        """Write part of an answer."""
        self.transport.write(data)

    def is_closing(self) -> bool:
        """Return whether nothing more can be written."""
        return self._waits_for is _WaitsFor.END or self.transport.is_closing()

    def close(self) -> None:
        """End the connection after what was written; a transport's method has this name."""
        self.end()

    def end(self) -> None:
        """Stop sending, and discard what the client sends until it closes the connection."""
        if self._waits_for is _WaitsFor.END:
            return
        closing = self.transport.is_closing()
        # A closing transport may still wait for a client that does not read; limit that too.
        self._begin_end()
        if closing:
            return
        if self._client_ended:
            self.transport.close()
            return
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            # Closing TLS sends close_notify, and reads until the client sends its own.
            self.transport.close()

    def _close(self) -> None:
        """Close an idle connection."""
        self._begin_end()
        self.transport.close()

    def _begin_end(self) -> None:
        self._waits_for = _WaitsFor.END
        # Bytes that have arrived are not read as a request.
        self._reader = MessageReader(self._http.limits)
        self._unsent = self.transport.get_write_buffer_size()
        seconds = self._http.limits.write_seconds if self._unsent else DISCARD_SECONDS
        self._deadline.set_after(seconds)

    def _turn_away(self) -> None:
        """Answer that there are too many connections; in a flood, only close this one."""
        self._turned_away = self._http.connections.turn_away()
        if self._turned_away:
            self.refuse(Refused(503, "too many connections: try again later"))
        else:
            self._waits_for = _WaitsFor.END
            self.transport.abort()

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > DISCARDED_BYTES:
            self.transport.abort()

    def _read(self) -> None:
        try:
            message = self._reader.next()
        except Refused as refused:
            self.refuse(refused)
            return
        if message is None:
            self._wait_for_more()
            return
        self._waits_for = _WaitsFor.ANSWER
        if self.flow.write_paused:
            self._expect_progress()
        else:
            self._deadline.clear()
        self.handle(message)

    def _wait_for_more(self) -> None:
        limits = self._http.limits
        if self._client_ended:
            self.end()
        elif self._reader.head is not None:
            self._wait_for_body(expects_continue=self._reader.head.expects_continue)
        elif self._reader.begun:
            if self._waits_for is _WaitsFor.NEXT:
                self._deadline.set_after(limits.head_seconds)
            # The first request must arrive within the limit, counted from the connection's start.
            self._waits_for = _WaitsFor.HEAD
        elif self._waits_for is _WaitsFor.NEXT:
            self._deadline.set_after(limits.idle_seconds)

    def _wait_for_body(self, *, expects_continue: bool) -> None:
        now, seconds = self.loop.time(), self._http.limits.body_seconds
        if self._waits_for is not _WaitsFor.BODY:
            self._waits_for = _WaitsFor.BODY
            self._body_began, self._body_bytes = now, 0
            if expects_continue:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Without a minimum rate, a body that arrives byte by byte would take for ever.
        slowest = self._body_began + seconds + self._body_bytes / SLOWEST_BYTES_PER_SECOND
        self._deadline.set_at(min(now + seconds, slowest))

    def _expect_progress(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._deadline.set_after(self._http.limits.write_seconds)

    def _expire(self) -> None:
        """Handle a passed deadline."""
        if self._waits_for in {_WaitsFor.HEAD, _WaitsFor.BODY}:
            self.refuse(Refused(408, "the request did not arrive in time: try again"))
        elif self._waits_for in {_WaitsFor.FIRST_BYTE, _WaitsFor.NEXT}:
            self._close()
        elif not self._client_reads():
            self.transport.abort()
        else:
            self._expect_progress()

    def _client_reads(self) -> bool:
        """Return whether the client has read enough of what was written."""
        unsent = self.transport.get_write_buffer_size()
        least = SLOWEST_BYTES_PER_SECOND * self._http.limits.write_seconds
        return unsent > 0 and self._unsent - unsent >= least


def _unmapped(client: tuple[str, int] | None) -> tuple[str, int] | None:
    """Return an IPv4-mapped address as IPv4."""
    if client is None or not client[0].startswith("::ffff:"):
        return client
    address = ip_address(client[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped), client[1]
    return client
