"""Limits on what a client may send, and on how long the server waits for it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The limits of a connection.

    Args:
        head_bytes: maximum size of request line and headers together.
        body_bytes: maximum size of a body.
        head_seconds: maximum time from the first byte of a request, or from the start of the
            connection, to the end of the headers.
        body_seconds: maximum time between two parts of a body.
        idle_seconds: maximum time between an answer and the first byte of the next request.
        write_seconds: maximum time in which a client reads nothing of an answer.
    """

    head_bytes: int = 65_536
    body_bytes: int = 65_536
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    write_seconds: float = 30.0

    @property
    def target_bytes(self) -> int:
        """Maximum size of a request line; a longer target is answered with 414."""
        return self.head_bytes // 2


MAX_HEADERS = 100
"""Maximum number of headers of a request, and of fields in its trailer section."""

MAX_CHUNKS = 16_384
"""Maximum number of chunks of a body."""

MAX_EXTENSION_BYTES = 4096
"""Maximum size of the chunk extensions of a body together."""

SLOWEST_BYTES_PER_SECOND = 1024
"""Minimum average rate of a body, and of a client that reads an answer."""

BUFFERED_BYTES = 65_536
"""Once this many bytes of later requests are buffered, reading pauses until the answer is sent."""

DISCARDED_BYTES = 1_048_576
"""Bytes that are read and ignored after a refusal, so that the client can read the answer."""

DISCARD_SECONDS = 2.0
"""Time that the server waits after a refusal for the client to close the connection."""
