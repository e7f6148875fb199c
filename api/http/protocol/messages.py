"""HTTP/1.1 framing: splits the bytes of a connection into messages (RFC 9112, section 6).

Only this module decides where a message ends. A message is returned when head and body have arrived
completely, so a request with wrong framing has no effect. After an error, nothing else on the
connection is read as a request.

The result depends only on the bytes, not on how the network splits them: limits and rules apply at
the same byte, however many parts arrive.
"""

import re
from enum import Enum
from typing import NamedTuple

from api.http.protocol.head import CHUNKED, Head, checked_field, parsed_head
from api.http.protocol.refusals import Refused
from api.network.http_limits import MAX_CHUNKS, MAX_EXTENSION_BYTES, MAX_HEADERS, HttpLimits

_END_OF_LINE = b"\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)")
_LONGEST_CHUNK_LINE = MAX_EXTENSION_BYTES + 16
# A client with one credential sends the same head many times. The last head is cached; the buffer
# keeps its bytes anyway.
_LONGEST_KEPT_HEAD = 1024
# The end of a head may be split between two parts, so this many bytes are searched again.
_OVERLAP = 3


class Message(NamedTuple):
    """A complete request."""

    head: Head
    body: bytes


class _At(Enum):
    """What the next bytes of a body are."""

    BODY = "body of a known length"
    CHUNK_LINE = "line with the size of a chunk"
    CHUNK = "data of a chunk"
    CHUNK_END = "end of the line after the data of a chunk"
    TRAILER = "trailer section"


class MessageReader:
    """Reads the messages of a connection."""

    __slots__ = (
        "_at", "_body", "_buffer", "_chunks", "_extensions", "_last", "_last_bytes", "_left",
        "_limits", "_looked_at", "_place", "_target_bytes", "_trailer_bytes", "_trailers", "head",
    )  # fmt: skip

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._target_bytes = limits.target_bytes
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._looked_at = 0
        self._last_bytes = b""
        self._last: Head | None = None
        self.head: Head | None = None
        """Head of a message whose body is incomplete."""

    def feed(self, data: bytes) -> None:
        """Add bytes from the network."""
        if self._at == len(self._buffer):
            self._buffer, self._at, self._looked_at = data, 0, 0
            return
        if self._at or isinstance(self._buffer, bytes):
            self._buffer = bytearray(memoryview(self._buffer)[self._at :])
            self._looked_at = max(0, self._looked_at - self._at)
            self._at = 0
        self._buffer += data

    @property
    def buffered(self) -> int:
        """Number of bytes that do not belong to a returned message."""
        return len(self._buffer) - self._at

    @property
    def begun(self) -> bool:
        """Whether part of a message has arrived."""
        return self.head is not None or self._at < len(self._buffer)

    @property
    def is_head(self) -> bool:
        """Whether the message that is being read has the method HEAD."""
        if self.head is not None:
            return self.head.method == b"HEAD"
        return self._buffer[self._at : self._at + 7].lstrip(_END_OF_LINE)[:5] == b"HEAD "

    def next(self) -> Message | None:
        """Return the next complete message; ``None`` if there is none yet.

        Raises:
            Refused: the bytes are not a message, or exceed a limit. Nothing more may be read from
                the connection.
        """
        if self.head is not None:
            return self._next_body()
        head = self._next_head()
        if head is None:
            return None
        length = head.length
        if length == 0:
            return Message(head, b"")
        start = self._at
        if 0 < length <= min(self._limits.body_bytes, len(self._buffer) - start):
            self._at = self._looked_at = start + length
            return Message(head, bytes(self._buffer[start : start + length]))
        self.head = head
        self._begin_body(length)
        return self._next_body()

    def _whole(self, body: bytes) -> Message:
        assert self.head is not None  # noqa: S101 - the caller has it
        message = Message(self.head, body)
        self.head = None
        self._looked_at = self._at
        return message

    def _next_head(self) -> Head | None:
        buffer, start, longest = self._buffer, self._at, self._limits.head_bytes
        if start == len(buffer):
            return None
        looked_at = self._looked_at
        if buffer[start] == 13 and buffer[start : start + 2] == _END_OF_LINE:  # noqa: PLR2004
            # One empty line is allowed before a request (RFC 9112, section 2.2).
            start += 2
            looked_at = max(start, looked_at)
        end = buffer.find(_END_OF_HEAD, looked_at, start + longest)
        if end < 0:
            self._check_unfinished(start)
            return None
        if end - start + len(_END_OF_LINE) > self._target_bytes:
            self._check_line(start)
        head_bytes = bytes(buffer[start:end])
        head = self._last
        if head is None or head_bytes != self._last_bytes:
            try:
                head = parsed_head(head_bytes)
            except Refused:
                # Report the same error as when the head arrives in parts.
                self._check_line_feeds(start, end)
                raise
            kept = len(head_bytes) <= _LONGEST_KEPT_HEAD
            self._last_bytes, self._last = (head_bytes, head) if kept else (b"", None)
        self._at = self._looked_at = end + len(_END_OF_HEAD)
        return head

    def _check_unfinished(self, start: int) -> None:
        """Reject bytes early that can no longer become a head."""
        buffer, longest = self._buffer, self._limits.head_bytes
        if start == len(buffer) or buffer[start:] == b"\r":
            return
        self._check_line(start)
        self._check_line_feeds(max(start, self._looked_at), start + longest)
        if len(buffer) - start >= longest:
            raise Refused(431, f"the headers are too long: send at most {longest} bytes")
        self._looked_at = max(start, len(buffer) - _OVERLAP)

    def _check_line(self, start: int) -> None:
        """Reject a request line that is too long or malformed."""
        buffer, end = self._buffer, start + self._target_bytes
        if not 65 <= buffer[start] <= 90:  # noqa: PLR2004 - a method begins with A to Z
            raise Refused(400, "the request line is not valid")
        if buffer.find(_END_OF_LINE, start, end) >= 0:
            return
        self._check_line_feeds(max(start, self._looked_at), end)
        if len(buffer) >= end:
            raise Refused(414, "the request target is too long")

    def _check_line_feeds(self, start: int, end: int) -> None:
        if _BARE_LINE_FEED.search(self._buffer, start, end):
            raise Refused(400, "a line ends without a carriage return")

    def _begin_body(self, length: int) -> None:
        self._body = bytearray()
        self._chunks = self._extensions = self._trailers = self._trailer_bytes = 0
        if length == CHUNKED:
            self._place = _At.CHUNK_LINE
            return
        if length > self._limits.body_bytes:
            raise self._long_body()
        self._place, self._left = _At.BODY, length

    def _next_body(self) -> Message | None:
        if self._place is _At.BODY:
            return self._whole(bytes(self._body)) if self._take() else None
        while self._place is not _At.TRAILER:
            if not self._next_of_chunk():
                return None
        while line := self._line(self._limits.head_bytes):
            self._take_trailer(line)
        return None if line is None else self._whole(bytes(self._body))

    def _next_of_chunk(self) -> bool:
        """Read the next part of a chunk; return whether it is complete."""
        if self._place is _At.CHUNK_END:
            return self._end_chunk()
        if self._place is _At.CHUNK:
            whole = self._take()
            self._place = _At.CHUNK_END if whole else _At.CHUNK
            return whole
        line = self._line(_LONGEST_CHUNK_LINE)
        if line is None:
            return False
        self._begin_chunk(line)
        return True

    def _take(self) -> bool:
        """Consume bytes of the body; return whether this part of it is complete."""
        taken = self._buffer[self._at : self._at + self._left]
        self._body += taken
        self._at += len(taken)
        self._left -= len(taken)
        return self._left == 0

    def _end_chunk(self) -> bool:
        end = self._buffer[self._at : self._at + 2]
        if not _END_OF_LINE.startswith(bytes(end)):
            raise Refused(400, "the data of a chunk is longer than its size")
        if len(end) < len(_END_OF_LINE):
            return False
        self._at += 2
        self._place = _At.CHUNK_LINE
        return True

    def _begin_chunk(self, line: bytes) -> None:
        parts = _CHUNK_LINE.fullmatch(line)
        if parts is None:
            raise Refused(400, "the size of a chunk is not valid")
        self._left = int(parts[1], 16)
        self._chunks += 1
        self._extensions += len(parts[2])
        if self._extensions > MAX_EXTENSION_BYTES:
            raise Refused(400, "the extensions of the chunks are too long")
        if self._left == 0:
            self._place = _At.TRAILER
            return
        if len(self._body) + self._left > self._limits.body_bytes:
            raise self._long_body()
        if self._chunks > MAX_CHUNKS:
            raise Refused(400, f"too many chunks: send at most {MAX_CHUNKS}")
        self._place = _At.CHUNK

    def _take_trailer(self, line: bytes) -> None:
        """Validate a trailer field and ignore it; it is no header (RFC 9110, section 6.5.1)."""
        self._trailers += 1
        self._trailer_bytes += len(line)
        if self._trailers > MAX_HEADERS or self._trailer_bytes > self._limits.head_bytes:
            raise Refused(431, f"too many trailer fields: send at most {MAX_HEADERS}")
        checked_field(line)

    def _line(self, longest: int) -> bytes | None:
        """Return the next line without its end; ``None`` if it is incomplete."""
        start = self._at
        end = self._buffer.find(b"\n", max(start, self._looked_at), start + longest + 2)
        if end < 0:
            if len(self._buffer) - start >= longest + 2:
                raise Refused(400, "a chunk size or trailer line is too long")
            self._looked_at = len(self._buffer)
            return None
        if end == start or self._buffer[end - 1] != 13:  # noqa: PLR2004 - a carriage return
            raise Refused(400, "a line ends without a carriage return")
        self._at = self._looked_at = end + 1
        return bytes(self._buffer[start : end - 1])

    def _long_body(self) -> Refused:
        return Refused(413, f"the body is too large: send at most {self._limits.body_bytes} bytes")
