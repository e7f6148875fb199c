"""Kinds of work, each with threads of its own, so that none waits for another.

A route that blocks runs in the threads of its kind: revocations and other changes, health checks,
verification and cheap reads never wait behind costly reads. Costly reads are admitted for each
credential and for each workspace, and few of them run at a time: they hold the interpreter and the
processor, which all threads of a process share.

`WorkRoute` is the one place where a route gets its kind. A route that only reads is costly unless
it says otherwise, and every other one is a change.
"""

import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from enum import StrEnum
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.routing import APIRoute

from api.http.openapi import refusal
from api.http.read_limits import ReadLimits
from api.settings import Settings
from projections.store.database import Database

P = ParamSpec("P")
T = TypeVar("T")


class Work(StrEnum):
    """A kind of work."""

    PROBE = "probe"
    """Health checks and metrics."""

    VERIFY = "verify"
    """Verification of tokens; Argon2 may take a while."""

    CHANGE = "change"
    """Whatever appends events."""

    READ = "read"
    """Reads of a few rows by an index, and files."""

    COSTLY_READ = "costly read"
    """Reads that may look at many rows, admitted for each credential."""

    STREAM = "stream"
    """Answers that may have no end; their endpoint admits them for each credential."""

    TAIL = "tail"
    """What a live tail reads when something was appended; no route's."""


_WORK = "__work__"
_THREADS = {Work.PROBE: 4, Work.VERIFY: 40, Work.CHANGE: 40, Work.READ: 8, Work.TAIL: 2}
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Threads:
    """The threads of one process, for each kind of work, and the limits of costly reads."""

    def __init__(self, costly_reads: int) -> None:
        """Let so many costly reads run at a time."""
        costly = CapacityLimiter(costly_reads)
        self.limiters = {work: CapacityLimiter(most) for work, most in _THREADS.items()}
        self.limiters |= {Work.COSTLY_READ: costly, Work.STREAM: costly}
        self.pages = ReadLimits("costly reads")
        self.exports = ReadLimits("exports")

    async def run(self, work: Work, function: Callable[P, T], *args: Any, **named: Any) -> T:  # noqa: ANN401 - the function's own
        """Run a function that blocks in a thread of a kind of work."""
        call = partial(function, *args, **named)
        return await run_sync(call, limiter=self.limiters[work])

    async def iterate(self, work: Work, parts: Iterator[T]) -> AsyncIterator[T]:
        """Take each part in a thread of a kind of work, and none once nobody wants it."""
        while True:
            part: tuple[T] | None = await self.run(work, _next, parts)
            if part is None:
                return
            yield part[0]


def costly_reads_at_once(database: Database, settings: Settings) -> int:
    """Return how many costly reads may run at a time in one process.

    Those of a file take the processor of this machine; half of it is left to all else. Those of a
    server leave half of the connections.
    """
    if database.is_a_file:
        return max(1, (os.cpu_count() or 1) // (2 * settings.workers))
    return max(1, settings.database_connections // 2)


def does(work: Work) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Say what kind of work an endpoint does, where it is not the usual one of its method."""

    def mark(endpoint: Callable[P, T]) -> Callable[P, T]:
        setattr(endpoint, _WORK, work)
        return endpoint

    return mark


def threads_of(request: Request) -> Threads:
    """Return the threads of the app that a request came to."""
    return cast("Threads", request.app.state.threads)


def _next(parts: Iterator[T]) -> tuple[T] | None:
    """Return the next part in a tuple; a thread cannot hand over a `StopIteration`."""
    for part in parts:
        return (part,)
    return None


async def admit_export(request: Request) -> None:
    """Hold a place for an export until its answer has been sent, or broken off.

    Raises:
        TooManyReads: as for `ReadLimits.admitted`.
    """
    # FastAPI leaves this stack when the answer has ended.
    ending: AsyncExitStack = request.scope["fastapi_inner_astack"]
    await ending.enter_async_context(threads_of(request).exports.admitted(request))


class WorkRoute(APIRoute):
    """A route whose endpoint runs in the threads of its kind of work."""

    work: Work

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 - FastAPI's own
        methods = set(options.get("methods") or {"GET"})
        usual = Work.COSTLY_READ if methods <= _READS else Work.CHANGE
        self.work = getattr(endpoint, _WORK, usual)
        if not inspect.iscoroutinefunction(endpoint):
            endpoint = _in_threads(endpoint, self.work)
        elif self.work is Work.COSTLY_READ:
            raise TypeError(f"{endpoint.__name__} is async: nothing would limit its reads")
        if self.work in (Work.COSTLY_READ, Work.STREAM) and options.get("responses"):
            options["responses"] = options["responses"] | {429: refusal(429)}
        super().__init__(path, endpoint, **options)


def _in_threads(endpoint: Callable[..., T], work: Work) -> Callable[..., Any]:
    if "request" not in inspect.signature(endpoint).parameters:
        raise TypeError(f"{endpoint.__name__} needs the parameter `request`, to find its threads")

    @wraps(endpoint)
    async def run(**values: Any) -> T:  # noqa: ANN401 - the endpoint's own
        request: Request = values["request"]
        threads = threads_of(request)
        if work is Work.STREAM:
            await admit_export(request)
        if work is not Work.COSTLY_READ:
            return await threads.run(work, endpoint, **values)
        async with threads.pages.admitted(request):
            return await threads.run(work, endpoint, **values)

    return run
