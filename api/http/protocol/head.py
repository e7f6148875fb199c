"""The head of an HTTP/1.1 request: request line and headers (RFC 9112, sections 3, 5 and 6).

The grammar is strict. Everything that two implementations may read differently is rejected: bare
line feeds, folded lines, whitespace before a colon, repeated or malformed framing headers. An offer
to upgrade the protocol does not change the framing and is ignored (RFC 9110, section 7.8).
"""

import re
from functools import lru_cache
from string import ascii_letters, digits
from typing import NamedTuple

from api.http.protocol.header_names import COMMON_NAMES
from api.http.protocol.refusals import Refused
from api.network.http_limits import MAX_HEADERS

Headers = list[tuple[bytes, bytes]]

_REQUEST_LINE = re.compile(rb"([A-Z][A-Z_-]{0,31}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ABSOLUTE = re.compile(rb"https?://([^/?@]+)(/[^?]*)?(\?.*)?", re.IGNORECASE)
_IN_HOSTS = b"!$%&'()*+,.:;=[]_~-" + ascii_letters.encode() + digits.encode()
_IN_VALUES = b"\t" + bytes({*range(0x20, 0x100)} - {0x7F})
_IN_HEADS = b"\r\n" + _IN_VALUES
_BLANKS = b" \t"
_LONGEST_LENGTH = 18
_USUAL_NAME_BYTES = 64
# Uncommon headers that decide how the message is framed, or what the server does before and after
# it.
_UNUSUAL = frozenset({b"connection", b"expect", b"transfer-encoding"})
_ONCE = frozenset({b"content-length", b"expect", b"host", b"transfer-encoding"})

CHUNKED = -1
"""Length that stands for a chunked body."""


class Head(NamedTuple):
    """A well-formed head.

    Args:
        method: request method.
        target: path and query; may be ``*`` for OPTIONS.
        version: HTTP version, ``1.1`` or ``1.0``.
        named: headers by lowercase name, in message order; the last value of a repeated name.
        repeated: all headers, if a name is repeated; ``None`` otherwise.
        length: length of the body; `CHUNKED` for chunked coding.
        keep_alive: whether the client allows the connection to stay open.
        expects_continue: whether the client waits for ``100 Continue`` before it sends the body.
    """

    method: bytes
    target: bytes
    version: str
    named: dict[bytes, bytes]
    repeated: Headers | None
    length: int
    keep_alive: bool
    expects_continue: bool

    @property
    def headers(self) -> Headers:
        """All headers with lowercase names, in message order."""
        return list(self.named.items() if self.repeated is None else self.repeated)


def parsed_head(head: bytes) -> Head:
    """Parse a head.

    This runs for every token verification, so steps that every request needs are not separate
    functions.

    Args:
        head: the head without the empty line at its end.

    Raises:
        Refused: it is malformed, or asks for something that this server does not support.
    """
    request_line, *lines = head.split(b"\r\n")
    method, target, version = _request_line(request_line)
    if len(lines) > MAX_HEADERS:
        raise Refused(431, f"too many headers: send at most {MAX_HEADERS}")
    if (
        head.translate(None, _IN_HEADS)
        or head.count(b"\r") != len(lines)
        or head.count(b"\n") != len(lines)
    ):
        raise Refused(400, "a header is not valid")
    named: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise Refused(400, "a header is not valid")
        named[COMMON_NAMES.get(name) or _lower_name(name)] = value.strip(_BLANKS)
    repeated = None if len(named) == len(lines) else _repeated(lines, named)
    host = named.get(b"host")
    if host is None and version == "1.1":
        raise Refused(400, "the Host header is missing")
    if host and host.translate(None, _IN_HOSTS):
        raise Refused(400, "the Host header is not valid")
    if target[0] != 47:  # noqa: PLR2004 - a slash
        target, repeated = _other_target(method, target, named, repeated)
    length = named.get(b"content-length")
    if version == "1.1" and _UNUSUAL.isdisjoint(named):
        size = 0 if length is None else _decimal(length)
        return Head(method, target, version, named, repeated, size, True, False)  # noqa: FBT003
    size = _length(length, named.get(b"transfer-encoding"), version)
    keep_alive = version == "1.1" and not _closes(named, repeated)
    waits = _expects_continue(named.get(b"expect"), version) and size != 0
    return Head(method, target, version, named, repeated, size, keep_alive, waits)


def checked_field(line: bytes) -> None:
    """Validate a field of a trailer section, which is then ignored.

    Raises:
        Refused: it is malformed.
    """
    name, colon, value = line.partition(b":")
    if not colon or value.translate(None, _IN_VALUES):
        raise Refused(400, "a header is not valid")
    _lower_name(name)


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
    # A higher minor version is treated as the newest known one (RFC 9110, section 2.5).
    return method, target, "1.0" if minor == b"0" else "1.1"


def _lower_name(name: bytes) -> bytes:
    return _usual_name(name) if len(name) <= _USUAL_NAME_BYTES else _name(name)


def _name(name: bytes) -> bytes:
    if not _TOKEN.fullmatch(name):
        raise Refused(400, "the name of a header is not valid")
    return name.lower()


# Most requests use the same few names. Errors are not cached, so cached names are well-formed.
_usual_name = lru_cache(maxsize=1024)(_name)


def _repeated(lines: list[bytes], named: dict[bytes, bytes]) -> Headers:
    """Return all headers if a name is repeated; it must not be one of `_ONCE`."""
    headers: Headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((_lower_name(name), value.strip(_BLANKS)))
    names = [name for name, _ in headers]
    for name in _ONCE & named.keys():
        if names.count(name) > 1:
            raise Refused(400, f"{name.decode()} occurs more than once")
    return headers


def _other_target(
    method: bytes, target: bytes, named: dict[bytes, bytes], repeated: Headers | None
) -> tuple[bytes, Headers | None]:
    """Return path and query of a target without a leading slash, and all headers if one repeats.

    The target's host replaces the header (RFC 9112, section 3.2.2).
    """
    if target == b"*" and method == b"OPTIONS":
        return target, repeated
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or absolute[1].translate(None, _IN_HOSTS):
        raise Refused(400, "the request target is not valid")
    host, path, query = absolute.groups()
    others = {name: value for name, value in named.items() if name != b"host"}
    named.clear()
    named |= {b"host": host} | others
    if repeated is not None:
        repeated = [(b"host", host), *(each for each in repeated if each[0] != b"host")]
    return (path or b"/") + (query or b""), repeated


def _decimal(length: bytes) -> int:
    # `bytes.isdigit` accepts only ASCII digits.
    if len(length) > _LONGEST_LENGTH or not length.isdigit():
        raise Refused(400, "Content-Length is not a number")
    return int(length)


def _length(length: bytes | None, coding: bytes | None, version: str) -> int:
    if coding is None:
        return 0 if length is None else _decimal(length)
    if length is not None:
        raise Refused(400, "Content-Length and Transfer-Encoding cannot be combined")
    if version == "1.0":
        raise Refused(400, "Transfer-Encoding is not supported in HTTP/1.0")
    if coding.lower() != b"chunked":
        raise Refused(501, "this Transfer-Encoding is not supported: use chunked")
    return CHUNKED


def _closes(named: dict[bytes, bytes], repeated: Headers | None) -> bool:
    if b"connection" not in named:
        return False
    headers = named.items() if repeated is None else repeated
    options = b",".join(value for name, value in headers if name == b"connection")
    return any(option.strip(_BLANKS) == b"close" for option in options.lower().split(b","))


def _expects_continue(expect: bytes | None, version: str) -> bool:
    if expect is None or version == "1.0":
        return False
    if expect.lower() != b"100-continue":
        raise Refused(417, "this expectation is not supported: use 100-continue")
    return True
