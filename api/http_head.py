"""The head of an HTTP/1.1 request: its request line and headers (RFC 9112, sections 3, 5 and 6).

The grammar is strict. Whatever two implementations may read differently is refused: bare line
feeds, folded lines, blanks before a colon, repeated or malformed framing headers. An offer to
upgrade the protocol is no part of the framing and is ignored (RFC 9110, section 7.8).
"""

import re
from functools import lru_cache
from typing import NamedTuple

from api.http_limits import MAX_HEADERS
from api.http_refusals import Refused

Headers = list[tuple[bytes, bytes]]

_REQUEST_LINE = re.compile(rb"([A-Z][A-Z_-]{0,31}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(rb"[!$%&'()*+,.:;=\[\]_~0-9A-Za-z-]*")
_ABSOLUTE = re.compile(rb"https?://([^/?@]+)(/?[^?]*)(\?.*)?", re.IGNORECASE)
_IN_VALUES = b"\t" + bytes({*range(0x20, 0x100)} - {0x7F})
_BLANKS = b" \t"
_USUAL_NAME_BYTES = 64
# Headers that decide how the message is framed, or what is done with the connection.
_ABOUT_MESSAGE = frozenset(
    {b"connection", b"content-length", b"expect", b"host", b"transfer-encoding"}
)
_ONCE = frozenset({b"content-length", b"expect", b"host", b"transfer-encoding"})

CHUNKED = -1
"""The length of a body that is sent in chunks."""


class Head(NamedTuple):
    """A head that is well-formed.

    Args:
        method: of the request.
        target: its path and query; ``*`` is possible for OPTIONS.
        version: of HTTP, ``1.1`` or ``1.0``.
        headers: with names in lower case, in the order of the message.
        length: of the body; `CHUNKED` if it is sent in chunks.
        keep_alive: whether the client lets the connection stay open.
        expects_continue: whether the client waits for ``100 Continue`` before it sends the body.
    """

    method: bytes
    target: bytes
    version: str
    headers: Headers
    length: int
    keep_alive: bool
    expects_continue: bool


def parsed_head(head: bytes) -> Head:
    """Parse a head.

    Args:
        head: without the empty line that ends it.

    Raises:
        Refused: it is not well-formed, or asks for something that this server does not support.
    """
    lines = head.split(b"\r\n")
    method, target, version = _request_line(lines[0])
    if len(lines) - 1 > MAX_HEADERS:
        raise Refused(431, f"send at most {MAX_HEADERS} headers")
    headers: Headers = []
    special: dict[bytes, bytes] = {}
    for line in lines[1:]:
        header = _header(line)
        headers.append(header)
        name = header[0]
        if name in _ABOUT_MESSAGE:
            if name in special:
                if name in _ONCE:
                    raise Refused(400, f"{name.decode()} occurs more than once")
                special[name] += b"," + header[1]
            else:
                special[name] = header[1]
    if version == "1.1" and b"host" not in special:
        raise Refused(400, "the Host header is missing")
    if not _HOST.fullmatch(special.get(b"host", b"")):
        raise Refused(400, "the Host header is not valid")
    if target[0] != 47:  # noqa: PLR2004 - a slash
        target = _other_target(method, target, headers)
    length = _length(special, version)
    return Head(
        method,
        target,
        version,
        headers,
        length,
        version == "1.1" and not _closes(special.get(b"connection")),
        _expects_continue(special.get(b"expect"), version) and length != 0,
    )


def checked_field(line: bytes) -> None:
    """Check a field of a trailer section, which is then ignored.

    Raises:
        Refused: it is not well-formed.
    """
    _header(line)


def _request_line(line: bytes) -> tuple[bytes, bytes, str]:
    parts = _REQUEST_LINE.fullmatch(line)
    if parts is None:
        raise Refused(400, "the request line is not valid")
    method, target, major, minor = parts.groups()
    if major != b"1":
        raise Refused(505, "use HTTP/1.1")
    if method == b"CONNECT":
        raise Refused(501, "CONNECT is not supported")
    if b"#" in target:
        raise Refused(400, "the request target has a fragment")
    # A later minor version is understood as the newest one (RFC 9110, section 2.5).
    return method, target, "1.0" if minor == b"0" else "1.1"


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or value.translate(None, _IN_VALUES):
        raise Refused(400, "a header is not valid")
    known = _usual_name(name) if len(name) <= _USUAL_NAME_BYTES else _name(name)
    return known, value.strip(_BLANKS)


def _name(name: bytes) -> bytes:
    if not _TOKEN.fullmatch(name):
        raise Refused(400, "the name of a header is not valid")
    return name.lower()


# Most requests have the same few names. Errors are not kept, so these are all well-formed.
_usual_name = lru_cache(maxsize=1024)(_name)


def _other_target(method: bytes, target: bytes, headers: Headers) -> bytes:
    """Return the path and query of a target that does not begin with a slash."""
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _HOST.fullmatch(absolute[1]):
        raise Refused(400, "the request target is not valid")
    host, path, query = absolute.groups()
    # The host of the target replaces the header (RFC 9112, section 3.2.2).
    headers[:] = [each for each in headers if each[0] != b"host"]
    headers.insert(0, (b"host", host))
    return (path or b"/") + (query or b"")


def _length(special: dict[bytes, bytes], version: str) -> int:
    length = special.get(b"content-length")
    coding = special.get(b"transfer-encoding")
    if coding is None:
        if length is None:
            return 0
        if not _LENGTH.fullmatch(length):
            raise Refused(400, "Content-Length is not a number")
        return int(length)
    if length is not None:
        raise Refused(400, "Content-Length and Transfer-Encoding exclude each other")
    if version == "1.0":
        raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
    if coding.lower() != b"chunked":
        raise Refused(501, "the only Transfer-Encoding that is supported is chunked")
    return CHUNKED


def _closes(connection: bytes | None) -> bool:
    if connection is None:
        return False
    return any(option.strip(_BLANKS) == b"close" for option in connection.lower().split(b","))


def _expects_continue(expect: bytes | None, version: str) -> bool:
    if expect is None or version == "1.0":
        return False
    if expect.lower() != b"100-continue":
        raise Refused(417, "the only expectation that is supported is 100-continue")
    return True
