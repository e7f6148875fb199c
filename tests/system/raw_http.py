"""A client that sends raw bytes, and reads answers by the rules of HTTP/1.1."""

import fcntl
import json
import socket
import struct
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.system.processes import PATIENCE, eventually

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = 1
_ERROR = 2
_WITH_TCP_INFO = 1 << 1
_ANY_STATE = _NO_COOKIE = 0xFFFF_FFFF
_DIAG_HEADER = struct.Struct("=IHHII")
_DIAG_REQUEST = struct.Struct("=BBBBI")
_DIAG_ANSWER = struct.Struct("=16x4x48x4xII8x")
_TCP_INFO = 2
_BYTES_RECEIVED_IN_TCP_INFO = 128


@dataclass
class Answer:
    """An answer as it came over the wire, and the statuses of the interim ones before it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """Return the value of a header; ``None`` if it is not there, or there more than once."""
        found = [value for each, value in self.headers if each == name]
        return found[0] if len(found) == 1 else None

    @property
    def request_id(self) -> str | None:
        return self.header("x-request-id")

    @property
    def json(self) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(self.body)


class Ended(Exception):
    """The server ended the connection where an answer was to come; the text is what came."""


class Wire:
    """One connection."""

    def __init__(self, url: str, *, source: str | None = None, receive_bytes: int = 0) -> None:
        """Connect.

        Args:
            url: of the server.
            source: address of this end.
            receive_bytes: size of the system's buffer for answers; 0 for its default.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.settimeout(PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if source is not None:
            self._socket.bind((source, 0))
        self._socket.connect((host, port))
        self._sent = 0
        self._received = b""

    @property
    def socket(self) -> socket.socket:
        return self._socket

    def send(self, data: bytes) -> None:
        self._sent += len(data)
        self._socket.sendall(data)

    def send_in_parts(self, parts: Sequence[bytes]) -> None:
        """Send each part after the server has read the one before it."""
        for number, part in enumerate(parts):
            if number:
                self.wait_until_read()
            self.send(part)

    def wait_until_read(self) -> None:
        """Wait until the server has read all that was sent."""
        eventually(self._is_read, "the server reads what was sent")

    def delivered(self) -> int:
        """Return how many bytes of answers the systems of both ends have taken and nobody read."""
        found = _server_end(self._socket)
        ours = struct.unpack("=i", fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)))[0]
        return int(ours) + (0 if found is None else found.unsent)

    def end_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """Read the next answer.

        Args:
            method: of the request that it is for; one for HEAD has no body.

        Raises:
            Ended: the connection ended before the end of the answer.
            ConnectionResetError: it was reset.
        """
        interim: list[int] = []
        while True:
            answer = self._head()
            if answer.status >= 200:
                break
            interim.append(answer.status)
        answer.interim = interim
        if method == "HEAD" or answer.status in {204, 304}:
            return answer
        if answer.header("transfer-encoding") == "chunked":
            answer.body = b"".join(self._chunks())
        elif (length := answer.header("content-length")) is not None:
            answer.body = self._take(int(length))
        else:
            answer.body = self.rest()
        return answer

    def interim(self) -> int:
        """Read an interim answer; return its status."""
        return self._head().status

    def rest(self) -> bytes:
        """Read until the server ends the connection; return what came.

        Raises:
            ConnectionResetError: it was reset.
        """
        while self._receive():
            pass
        rest, self._received = self._received, b""
        return rest

    def close(self) -> None:
        self._socket.close()

    def _head(self) -> Answer:
        status, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, number, _ = status.split(" ", 2)
        assert version == "HTTP/1.1", status
        headers = [line.split(": ", 1) for line in lines]
        return Answer(int(number), [(name.lower(), value) for name, value in headers])

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._until(b"\r\n"), 16):
            yield self._take(size)
            assert self._take(2) == b"\r\n"
        assert self._take(2) == b"\r\n", "there is a trailer section"

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._receive_or_raise()
        found, _, self._received = self._received.partition(end)
        return found

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive_or_raise()
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def _receive_or_raise(self) -> None:
        if not self._receive():
            raise Ended(repr(self._received))

    def _receive(self) -> bool:
        received = self._socket.recv(65_536)
        self._received += received
        return bool(received)

    def _is_read(self) -> bool:
        found = _server_end(self._socket)
        return found is None or (found.received >= self._sent and found.unread == 0)


@contextmanager
def connected(url: str, *, source: str | None = None, receive_bytes: int = 0) -> Iterator[Wire]:
    """Give a connection that is closed at the end of the block."""
    wire = Wire(url, source=source, receive_bytes=receive_bytes)
    try:
        yield wire
    finally:
        wire.close()


class _End(NamedTuple):
    """One end of a connection, as the system knows it."""

    received: int
    unread: int
    unsent: int


def _server_end(connection: socket.socket) -> _End | None:
    """Ask the system about the server's end of a connection.

    Returns:
        ``None`` if that end is closed, or the system cannot tell.
    """
    try:
        ours, theirs = connection.getsockname(), connection.getpeername()
    except OSError:
        return None
    ends = struct.pack(">HH", theirs[1], ours[1]) + b"".join(
        socket.inet_pton(connection.family, end[0]).ljust(16, b"\0") for end in (theirs, ours)
    )
    asked = _DIAG_REQUEST.pack(connection.family, socket.IPPROTO_TCP, _WITH_TCP_INFO, 0, _ANY_STATE)
    asked += ends + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    length = _DIAG_HEADER.size + len(asked)
    head = _DIAG_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as diagnosis:
            diagnosis.send(head + asked)
            answer = diagnosis.recv(8192)
    except OSError:
        return None
    if _DIAG_HEADER.unpack_from(answer)[1] == _ERROR:
        return None
    unread, unsent = _DIAG_ANSWER.unpack_from(answer)
    return _End(_tcp_bytes_received(answer), unread, unsent)


def _tcp_bytes_received(answer: bytes) -> int:
    at = _DIAG_ANSWER.size
    while True:
        size, kind = struct.unpack_from("=HH", answer, at)
        if kind == _TCP_INFO:
            (received,) = struct.unpack_from("=Q", answer, at + 4 + _BYTES_RECEIVED_IN_TCP_INFO)
            return int(received)
        at += (size + 3) & ~3
