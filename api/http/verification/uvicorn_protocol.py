"""The connections of the server, with the fast path in front of the application.

For each request the application gets a scope, a task and messages, which takes as long as several
verifications. So a request that the fast path may answer is held here. All requests of one turn of
the event loop are answered together, after one freshness check: each of them had arrived before the
check began. A request that the fast path does not answer goes to the application unchanged.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from api.http.protocol.connection import HttpConnection
from api.http.protocol.messages import Message
from api.http.protocol.refusals import Refused
from api.http.verification.fast_path import FastPath
from api.http.verification.fast_requests import may_answer
from projections.auth.authentication import TryVerify

FAST_PATH = "fast_path"
"""The name of the fast path in the state of the application's lifespan."""

ON_STOP = "on_stop"
"""The name there of the function to call when the server begins to stop: the server waits for the
answers that it is sending, and some of them would never end."""


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
        self._fast_path: FastPath = app_state[FAST_PATH]
        self._on_stop: Callable[[], None] = app_state[ON_STOP]
        self._held: Message | None = None

    def handle(self, message: Message) -> None:
        """Hold a request that the fast path may answer."""
        head = message.head
        if (
            head.keep_alive
            and may_answer(head.method, head.target)
            and not head.expects_continue
            and not self.flow.write_paused
        ):
            self._held = message
            self._fast_path.hold(self, message, self.loop)
        else:
            self.to_app(message)

    def shutdown(self) -> None:
        """Give the held request to the application, which then closes the connection."""
        self._on_stop()
        if self._held is not None:
            self._leave_to_app(self._held)
        super().shutdown()

    def answer_held(self, message: Message, verify: TryVerify | None) -> None:
        """Answer a request, if it is still held.

        Args:
            message: the request that was passed to `FastPath.hold`.
            verify: verifies tokens, after a freshness check that began after the request had
                arrived; ``None`` if the check failed.
        """
        if self._held is not message:
            return
        if self.is_closing():
            self._held = None
            return
        answer = None
        if verify is not None:
            answer = self._fast_path.answer(message, verify)
        if answer is None:
            self._leave_to_app(message)
            return
        status, rest = answer
        self._held = None
        default = self._fast_path.default_lines(self.server_state.default_headers)
        self.transport.write(b"%b%b%b" % (STATUS_LINE[status], default, rest))
        self.on_response_complete()

    def give_up(self) -> None:
        """End the connection after an error in `answer_held`."""
        if self._held is None:
            self.transport.abort()
            return
        self._held = None
        self.refuse(Refused(500, "the server's log has the cause"))

    def _leave_to_app(self, message: Message) -> None:
        self._held = None
        self.to_app(message)
