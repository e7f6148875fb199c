"""The baseline of the HTTP benchmarks: an application that only answers."""

from starlette.types import Receive, Scope, Send

_ANSWERS = {
    "GET": (204, b""),
    "POST": (200, b'{"valid":true}'),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer like Keyledger's routes, without any work."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    status, body = _ANSWERS[scope["method"]]
    if scope["method"] == "POST":
        await receive()
    headers = [(b"content-length", b"%d" % len(body))] if body else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
