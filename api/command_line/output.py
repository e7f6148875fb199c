"""Standard output, with errors that say what could not be written.

A command whose output is lost must not end as if it had been shown: a full disk, a closed pipe and
a closed descriptor all raise `OutputFailed`.
"""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, TextIO, cast

CLOSED = "it is closed"


_BROKEN_PIPE = os.strerror(errno.EPIPE)


class OutputFailed(Exception):
    """Standard output could not be written completely; the message says why."""

    @property
    def is_broken_pipe(self) -> bool:
        """Whether the reader stopped reading, as ``head`` does; this is not an error."""
        return str(self) == _BROKEN_PIPE


class _Checked:
    """A stream whose errors are raised as `OutputFailed`."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of a stream
        return getattr(self._stream, name)

    @property
    def buffer(self) -> "_Checked":
        return _Checked(cast("TextIO", self._stream).buffer)

    def write(self, content: Any) -> int:  # noqa: ANN401 - text or bytes
        return int(_checked(self._stream.write, content))

    def flush(self) -> None:
        _checked(self._stream.flush)


def standard_output() -> TextIO:
    """Return standard output as it is now.

    Raises:
        OutputFailed: the process was started without one.
    """
    if sys.stdout is None:
        raise OutputFailed(CLOSED)
    return cast("TextIO", _Checked(sys.stdout))


def keep_descriptors() -> None:
    """Open the null device in place of each standard stream that is closed.

    Otherwise the next file that is opened, such as the database, would get the descriptor that
    other code writes its messages to. Python has noted already that the stream is closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def finish_output(*, interrupted: bool = False) -> str | None:
    """Write what is buffered, so that nothing is left for the end of the process.

    Args:
        interrupted: whether to drop it, since a reader that does not read would hold up the end.

    Returns:
        Why it could not be written; ``None`` if it was. What is left is dropped.
    """
    why = None
    for stream in (sys.stderr, sys.stdout):
        if stream is None:
            continue
        if interrupted and stream is sys.stdout:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            why = _reason(error)
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return why


def _checked(write: Callable[..., Any], *content: object) -> Any:  # noqa: ANN401 - as `write` returns
    try:
        return write(*content)
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeError):
            raise
        raise OutputFailed(_reason(error)) from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or CLOSED
