"""Deadlines of a connection."""

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from math import inf


class Deadline:
    """Calls a function at a deadline; postponing the deadline costs nothing.

    A timer is started only if the running one would end too late. A timer that ends before the
    deadline starts again. So a connection that serves thousands of requests a second starts one
    timer per idle timeout.
    """

    __slots__ = ("_at", "_call", "_loop", "_timer", "_timer_ends")

    def __init__(self, loop: AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._at = inf
        self._timer: TimerHandle | None = None
        self._timer_ends = inf

    def set_after(self, seconds: float) -> None:
        """Set the deadline this many seconds from now."""
        self.set_at(self._loop.time() + seconds)

    def set_at(self, at: float) -> None:
        """Set the deadline, in event loop time."""
        self._at = at
        if at < self._timer_ends:
            self._start(at)

    def clear(self) -> None:
        """Remove the deadline."""
        self._at = inf

    def stop(self) -> None:
        """Remove the deadline and the timer."""
        self._at = self._timer_ends = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ends = at
        self._timer = self._loop.call_later(at - self._loop.time(), self._end)

    def _end(self) -> None:
        self._timer, self._timer_ends = None, inf
        at, now = self._at, self._loop.time()
        if at <= now:
            self._at = inf
            self._call()
        elif at != inf:
            self._start(at)
