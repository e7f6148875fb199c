"""Attacks whose bodies look like requests, with framings that proxies pass on."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, product

SMUGGLED = "smuggled"
"""The request id of every request that is hidden in a body; no server may ever see it."""

_UPGRADES = ("h2c", "TLS/1.0", "websocket", "foo", "websocket, h2c")
_CONNECTIONS = (
    "Connection: Upgrade\r\n",
    "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    "Connection: keep-alive, upgrade\r\nSec-WebSocket-Version: 13\r\n",
    "",
)
_OFFER = "Expect: 100-continue\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
_ROUTES = (
    "POST /v1/keys",
    "POST /v1/verify",
    "GET /v1/forward-auth?scope=mcp:read",
    "GET /healthz",
    "DELETE /nowhere",
)
# A proxy may pass the head and the body on in one packet or in several: so one body is short, and
# one is longer than every buffer, and may be cut anywhere in its line ends.
_PADDING = (b"", b"\r\n" * 15_000)
_HIDDEN = {
    "request": f"GET /v1/keys HTTP/1.1\r\nHost: x\r\nX-Request-Id: {SMUGGLED}\r\n\r\n",
    "head without an end": f"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: {SMUGGLED}\r\nX-Rest: ",
    "body without an end": (
        f"POST /v1/verify HTTP/1.1\r\nHost: x\r\nX-Request-Id: {SMUGGLED}\r\n"
        "Content-Type: application/json\r\nContent-Length: 300\r\n\r\n"
    ),
}


@dataclass(frozen=True)
class Attack:
    """One message of a client without a credential."""

    name: str
    message: bytes


def attacks() -> Iterator[Attack]:
    """Give every attack."""
    yield from _upgrades()
    yield from _odd_framings()
    yield from _odd_heads()


def _upgrades() -> Iterator[Attack]:
    turns = cycle(product(_ROUTES, _PADDING))
    for upgrade, connection, hidden, chunked in product(
        _UPGRADES, _CONNECTIONS, _HIDDEN, (False, True)
    ):
        route, padding = next(turns)
        name = f"{route}, {upgrade}, {connection!r}, {hidden}, {chunked=}, {len(padding)}"
        head = f"Upgrade: {upgrade}\r\n{connection}"
        yield Attack(
            name, _message(route, head, padding + _HIDDEN[hidden].encode(), chunked=chunked)
        )


def _odd_framings() -> Iterator[Attack]:
    routes = cycle(_ROUTES)
    for hidden, text in _HIDDEN.items():
        body = text.encode()
        chunks = _chunked(body)
        for name, head, sent in (
            ("both framings", f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked", chunks),
            ("both, length first", "Content-Length: 4\r\nTransfer-Encoding: chunked", chunks),
            ("two lengths", f"Content-Length: 0\r\nContent-Length: {len(body)}", body),
            ("list of lengths", f"Content-Length: {len(body)}, {len(body)}", body),
            ("length with a sign", f"Content-Length: +{len(body)}", body),
            ("space before the colon", f"Content-Length : {len(body)}", body),
            ("unknown coding", f"Transfer-Encoding: xchunked\r\nContent-Length: {len(body)}", body),
            ("identity coding", "Transfer-Encoding: identity, chunked", chunks),
            ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunks),
            ("coding after a tab", "Transfer-Encoding:\tchunked", chunks),
            ("folded coding", "Transfer-Encoding:\r\n chunked", chunks),
            ("chunk extension", "Transfer-Encoding: chunked", _chunked(body, b";a=b")),
            ("trailers", "Transfer-Encoding: chunked", _chunked(body, trailers=_TRAILERS)),
            ("announced trailers", "Trailer: X-Request-Id\r\nTransfer-Encoding: chunked",
             _chunked(body, trailers=_TRAILERS)),
            ("body to expect", f"Expect: 100-continue\r\nContent-Length: {len(body)}", body),
            ("body to expect, offer", f"{_OFFER}Content-Length: {len(body)}", body),
        ):  # fmt: skip
            route = next(routes)
            message = f"{route} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + sent
            yield Attack(f"{route}, {name}, {hidden}", message)


def _odd_heads() -> Iterator[Attack]:
    hidden = _HIDDEN["request"].encode()
    for target in ("/v1/keys", "127.0.0.1:80", "http://x/v1/keys"):
        yield Attack(f"CONNECT {target}", _message(f"CONNECT {target}", "", hidden))
        yield Attack(f"CONNECT {target}, alone", _message(f"CONNECT {target}", "", b""))
    for path in ("/v1/forward-auth?scope=", "/v1/keys?q=", "/"):
        target = f"{path}{'a' * 70_000}"
        yield Attack(f"long target: {path}", _message(f"GET {target}", "", hidden))
    for lines in ("X-Long: " + "a" * 100_000, "\r\n".join(["X-Short: a"] * 90)):
        yield Attack("large head", _message("POST /v1/keys", f"{lines}\r\n", hidden))
    yield Attack("HEAD with a body", _message("HEAD /healthz", "", hidden))
    yield Attack("OPTIONS with a body", _message("OPTIONS *", "", hidden))


_TRAILERS = (
    f"X-Request-Id: {SMUGGLED}\r\nX-API-Key: nothing\r\nX-Forwarded-For: 6.6.6.6\r\n".encode()
)


def _message(route: str, head: str, body: bytes, *, chunked: bool = False) -> bytes:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    sent = _chunked(body) if chunked else body
    start = f"{route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{start}{head}{framing}\r\n\r\n".encode() + sent


def _chunked(body: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    size = f"{len(body):x}".encode()
    return size + extension + b"\r\n" + body + b"\r\n0" + extension + b"\r\n" + trailers + b"\r\n"
