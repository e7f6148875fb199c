"""uvicorn's HTTP protocol, with the fast lane in front of the application.

For each request uvicorn makes a scope, a task and a cycle of messages, which takes as long as
several checks. So a request that may be one for the fast lane is held back here when it has
arrived whole. All that arrived in one turn of the event loop are answered together, after one
question to the fence: each of them had arrived, and so had begun, before it was asked. Whatever
the lane does not answer goes to the application as if nothing had happened.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from datetime import datetime
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from api.fast_lane import FastLane, may_answer

FAST_LANE = "fast_lane"
"""The name in the state of the application's lifespan under which the protocol finds the lane."""

ON_STOP = "on_stop"
"""The name, likewise, of what is called when the server begins to stop: it waits for the answers
that are under way, and some of them would have no end."""


class CheckProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._lane: FastLane = app_state[FAST_LANE]
        self._on_stop: Callable[[], None] = app_state[ON_STOP]

    _held: list[bytes] | None = None
    """The body of the request that is held back, as far as it has arrived."""

    _whole = False
    """Whether that request has arrived whole."""

    def on_message_begin(self) -> None:
        """Answer the request before, if it is still held back: a client may send two at once."""
        if self._held is not None:
            self.answer_held(self._held, self._lane.catch_up())
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hold back a request that may be one for the fast lane."""
        if self._may_be_held():
            self._held, self._whole = [], False
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep the body of a request that is held back."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """Let a request that has arrived whole be answered in this turn of the event loop."""
        if self._held is None:
            super().on_message_complete()
        else:
            self._whole = True
            self._lane.hold(self, self._held, self.loop)

    def data_received(self, data: bytes) -> None:
        """Read what has arrived; a request that is not whole by then is the application's."""
        super().data_received(data)
        if self._held is not None and not self._whole:
            self._leave_to_app()

    def shutdown(self) -> None:
        """Answer the request that is held back before the connection is closed."""
        self._on_stop()
        if self._held is not None:
            self._leave_to_app()
        super().shutdown()

    def answer_held(self, body: list[bytes], now: datetime | None) -> None:
        """Answer the request of this body, if it is still held back.

        Args:
            body: what was handed over with it. Another request may be held back by now, and what
                was known when this one had arrived may be too old for that.
            now: when the ledger was known to have said nothing new, after the request had arrived;
                ``None`` if it cannot be asked.
        """
        if self._held is not body or not self._whole:
            return
        answer = None
        if now is not None and not self.transport.is_closing():
            answer = self._lane.answer(self.url, self.headers, b"".join(body), now)
        if answer is None:
            self._leave_to_app()
            return
        self._held = None
        status, rest = answer
        sent = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            sent += (name, b": ", value, b"\r\n")
        sent.append(rest)
        self.transport.write(b"".join(sent))
        self.on_response_complete()

    def _leave_to_app(self) -> None:
        held, self._held = self._held, None
        if self.transport.is_closing():
            return
        super().on_headers_complete()
        for body in held or ():
            super().on_body(body)
        if self._whole:
            super().on_message_complete()

    def _may_be_held(self) -> bool:
        return (
            may_answer(self.parser.get_method(), self.url)
            # Before the first request there is none, though uvicorn declares that there is.
            and (not self.cycle or self.cycle.response_complete)  # type: ignore[truthy-bool]
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
        )
