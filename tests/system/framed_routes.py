"""The routes for the framing suite, and its messages for them."""

import json
import re
from dataclasses import dataclass

from tests.api.http.protocol.test_framing import CHUNKED, IN_CHUNKS, LENGTH, SMUGGLED

START = re.compile(rb"(?:GET|POST) (http://b)?/a HTTP/1\.1\r\nhost: a\r\n")
"""How the cases of the suite begin; the route's own start replaces it."""

IN_FRAMING = re.compile(
    rb"(?:content-length|transfer-encoding|connection|upgrade|expect|http2-settings)[^\n]*\n"
)


@dataclass(frozen=True)
class Route:
    """A request that the server answers.

    Args:
        status: of the answer to the request with its own body, or with any where it has none.
        status_of_other: of the answer where the body is another one.
        shows: what the answer to the right body contains.
    """

    name: str
    method: str
    target: str
    token: str
    status: int
    body: bytes = b""
    status_of_other: int = 0
    headers: str = ""
    shows: bytes = b""

    def __str__(self) -> str:
        return self.name

    @property
    def bodies(self) -> dict[bytes, int]:
        """The bodies to send, and the status of the answer to each."""
        if not self.body:
            return {SMUGGLED: self.status}
        return {SMUGGLED: self.status_of_other, self.body: self.status}

    def start(self, request_id: str, origin: str = "") -> bytes:
        """Return the request line and the headers that do not concern the framing."""
        lines = f"{self.method} {origin}{self.target} HTTP/1.1\r\nhost: a\r\n"
        lines += f"authorization: Bearer {self.token}\r\nx-request-id: {request_id}\r\n"
        if self.method == "POST":
            lines += "content-type: application/json\r\n"
        return (lines + self.headers).encode()

    def message(self, case: bytes, request_id: str, body: bytes = SMUGGLED) -> bytes:
        """Return a case of the suite as a message for this route."""

        def start(found: re.Match[bytes]) -> bytes:
            return self.start(request_id, (found[1] or b"").decode())

        return START.sub(start, with_body(case, body))


def with_body(case: bytes, body: bytes) -> bytes:
    """Return a case with another body; its framing headers, or its chunks, are for that one."""
    if body == SMUGGLED:
        return case
    size = b"\r\n\r\n%x"
    return (
        case.replace(LENGTH, b"content-length: %d\r\n" % len(body))
        .replace(size % len(SMUGGLED), size % len(body), 1)
        .replace(SMUGGLED, body)
    )


def chunked(body: bytes) -> tuple[bytes, bytes]:
    """Return the framing header and the chunks of a body."""
    return CHUNKED, with_body(CHUNKED + b"\r\n" + IN_CHUNKS + b"\r\n", body)[len(CHUNKED) + 2 :]


def cuts(message: bytes, start: bytes) -> list[int]:
    """Return the places where it matters that a message is divided.

    They are around each line end behind the start, within the headers that decide the framing,
    and between head and body.
    """
    found = {1, len(start) // 2}
    for end in re.finditer(rb"\r\n", message[len(start) - 2 :]):
        at = len(start) - 2 + end.start()
        found |= {at, at + 1, at + 2}
    for header in IN_FRAMING.finditer(message):
        colon = message.index(b":", header.start())
        found |= {header.start() + 3, colon, colon + 1, (colon + header.end()) // 2}
    return sorted(each for each in found if 0 < each < len(message))


def routes(token: str, key_id: str, other_id: str) -> list[Route]:
    """Return the routes.

    Args:
        token: of a key that may do everything.
        key_id: of a key that has been rotated with the body and the idempotency key below.
        other_id: of a key that has been revoked.
    """
    verify = json.dumps({"token": token}).encode()
    return [
        Route("forward-auth", "GET", "/v1/forward-auth?scope=mcp:read", token, 204),
        Route("forward-auth without", "GET", "/v1/forward-auth?scope=mcp:read", "none", 401),
        Route("verify", "POST", "/v1/verify", token, 200, verify, 422, shows=b'"valid":true'),
        Route("keys", "GET", "/v1/keys?limit=1", token, 200, shows=b'"next_cursor"'),
        Route(
            "rotate", "POST", f"/v1/keys/{key_id}/rotate", token, 201, ROTATION, 422,
            headers=f"idempotency-key: {ROTATED_AS}\r\n", shows=b'"rotated_from"',
        ),
        Route("revoke", "POST", f"/v1/keys/{other_id}/revoke", token, 200, b'{"reason": "a"}', 422),
        Route("delete", "DELETE", f"/v1/keys/{other_id}", token, 405),
        Route("sign-in page", "GET", "/console/sign-in", token, 200, shows=b"</html>"),
        Route("healthz", "GET", "/healthz", token, 200),
        Route("HEAD of keys", "HEAD", "/v1/keys?limit=1", token, 200),
        Route("HEAD of forward-auth", "HEAD", "/v1/forward-auth", token, 204),
        Route("OPTIONS", "OPTIONS", "/v1/keys", token, 204),
    ]  # fmt: skip


ROTATION = b'{"grace_seconds": 3600}'
ROTATED_AS = "once"
NAMES = [each.name for each in routes("", "", "")]
