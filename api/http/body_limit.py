"""The limit on the size of a request's body."""

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LONGEST_NUMBER = 18


class BodyLimit:
    """Middleware that stops reading a body that is too long, whatever its Content-Length says.

    FastAPI's own limit answers in plain text, and runs outside all other middleware.
    """

    def __init__(self, app: "ASGIApp", longest: int) -> None:
        self._app = app
        self._longest = longest

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> "Message":
            nonlocal received
            if self._is_announced_too_long(scope):
                raise self._too_long()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._longest:
                raise self._too_long()
            return message

        await self._app(scope, receive_within_limit, send)

    def _is_announced_too_long(self, scope: "Scope") -> bool:
        length = Headers(scope=scope).get("content-length", "")
        if not length.isdecimal():
            return False
        return len(length) > _LONGEST_NUMBER or int(length) > self._longest

    def _too_long(self) -> HTTPException:
        return HTTPException(413, f"the body is too large: send at most {self._longest} bytes")
