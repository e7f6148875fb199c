"""Methods that every route supports in addition to its own: HEAD with GET, and OPTIONS."""

from typing import TYPE_CHECKING

from anyio import CancelScope
from fastapi import FastAPI
from starlette.routing import Match

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHOD_ASKED = "method"
"""Name, in a request's state, of the client's method if the scope has another one."""

_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


async def answer_head(app: "ASGIApp", scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Answer HEAD like GET, with the same headers and no body (RFC 9110, section 9.3.2)."""
    as_get = {**scope, "method": "GET"}
    as_get.setdefault("state", {})[METHOD_ASKED] = "HEAD"
    ended = False

    async def send_head(message: "Message") -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body"):
                # The rest of a stream is not needed, and may be endless.
                running.cancel()

    with CancelScope() as running:
        await app(as_get, receive, send_head)


def allowed_methods(app: FastAPI, scope: "Scope") -> list[str]:
    """Return the methods of a path, including HEAD and OPTIONS; an empty list if there is none."""
    found = [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]
    if not found:
        return []
    also = ["HEAD", "OPTIONS"] if "GET" in found else ["OPTIONS"]
    return sorted([*found, *also])
