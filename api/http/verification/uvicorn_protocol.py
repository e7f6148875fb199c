"""The connections of the server, with the fast lane in front of the application.

For each request the application gets a scope, a task and messages, which takes as long as several
checks. So a request that may be one for the fast lane is held back here. All that arrived in one
turn of the event loop are answered together, after one question to the fence: each of them had
arrived, and so had begun, before it was asked. Whatever the lane does not answer goes to the
application as if nothing had happened.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from datetime import datetime
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from api.http.protocol.connection import HttpConnection
from api.http.protocol.messages import Message
from api.http.protocol.refusals import Refused
from api.http.verification.fast_path import FastLane
from api.http.verification.fast_requests import may_answer

FAST_LANE = "fast_lane"
"""The name in the state of the application's lifespan under which the protocol finds the lane."""

ON_STOP = "on_stop"
"""The name, likewise, of what is called when the server begins to stop: it waits for the answers
that are under way, and some of them would have no end."""


class CheckProtocol(HttpConnection):
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
        self._held: Message | None = None

    def handle(self, message: Message) -> None:
        """Hold back a request that may be one for the fast lane."""
        head = message.head
        if (
            head.keep_alive
            and may_answer(head.method, head.target)
            and not head.expects_continue
            and not self.flow.write_paused
        ):
            self._held = message
            self._lane.hold(self, message, self.loop)
        else:
            self.to_app(message)

    def shutdown(self) -> None:
        """Let the application answer the request that is held back: it ends the connection."""
        self._on_stop()
        if self._held is not None:
            self._leave_to_app(self._held)
        super().shutdown()

    def answer_held(self, message: Message, now: datetime | None) -> None:
        """Answer a request, if it is still held back.

        Args:
            message: what was handed over.
            now: when the ledger was known to have said nothing new, after the request had arrived;
                ``None`` if it cannot be asked.
        """
        if self._held is not message:
            return
        if self.is_closing():
            self._held = None
            return
        answer = None
        if now is not None:
            answer = self._lane.answer(message, now)
        if answer is None:
            self._leave_to_app(message)
            return
        status, rest = answer
        self._held = None
        default = self._lane.default_lines(self.server_state.default_headers)
        self.transport.write(b"%b%b%b" % (STATUS_LINE[status], default, rest))
        self.on_response_complete()

    def give_up(self) -> None:
        """End the connection after an error in `answer_held`, which nobody else may notice."""
        if self._held is None:
            self.transport.abort()
            return
        self._held = None
        self.refuse(Refused(500, "the server's log has the cause"))

    def _leave_to_app(self, message: Message) -> None:
        self._held = None
        self.to_app(message)
