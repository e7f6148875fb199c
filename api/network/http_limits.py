"""Limits on what one client can send, and on how long the server waits for it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The limits of one connection.

    Args:
        head_bytes: longest request line and headers together.
        body_bytes: longest body.
        head_seconds: from the first byte of a request, or from the start of the connection, to the
            end of its headers.
        body_seconds: between two parts of a body.
        idle_seconds: between an answer and the first byte of the next request.
        write_seconds: for which a client may read nothing of an answer.
    """

    head_bytes: int = 65_536
    body_bytes: int = 65_536
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    write_seconds: float = 30.0

    @property
    def target_bytes(self) -> int:
        """Longest request line; a longer target has a status of its own (414)."""
        return self.head_bytes // 2


MAX_HEADERS = 100
"""Most headers of a request, and most fields of its trailer section."""

MAX_CHUNKS = 16_384
"""Most chunks of a body."""

MAX_EXTENSION_BYTES = 4096
"""Longest extensions of all chunks of a body together."""

SLOWEST_BYTES_PER_SECOND = 1024
"""Slowest average rate of a body, and of a client that reads an answer."""

BUFFERED_BYTES = 65_536
"""After so many bytes of later requests, no more are read until the current answer is sent."""

DISCARDED_BYTES = 1_048_576
"""After a refusal, so many bytes are read and ignored, so that the client can read the answer."""

DISCARD_SECONDS = 2.0
"""After a refusal, how long the server waits for the client to close the connection."""
