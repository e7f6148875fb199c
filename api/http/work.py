"""Kinds of work, each with its own threads, so that none waits for another.

A blocking route runs in the threads of its kind: changes, health checks, verification and cheap
reads never wait for costly reads. Costly reads are limited per credential and per workspace, and
few run at the same time: they hold the GIL and the processor, which all threads of a process share.

`WorkRoute` decides the kind of a route. A route that only reads is costly unless it is marked
otherwise; every other route is a change.
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
    """Verification of tokens; Argon2 takes a while."""

    CHANGE = "change"
    """Everything that appends events."""

    READ = "read"
    """Reads of a few rows by index, and files."""

    COSTLY_READ = "costly read"
    """Reads of possibly many rows, limited per credential."""

    STREAM = "stream"
    """Answers that may be endless, limited per credential by their endpoints."""

    LIVE_STREAM = "live stream"
    """Reads of event streams after something was appended; not of any route."""


_WORK = "__work__"
_THREADS = {Work.PROBE: 4, Work.VERIFY: 40, Work.CHANGE: 40, Work.READ: 8, Work.LIVE_STREAM: 2}
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Threads:
    """The threads of a process for each kind of work, and the limits of costly reads."""

    def __init__(self, costly_reads: int) -> None:
        """Allow ``costly_reads`` costly reads at the same time."""
        costly = CapacityLimiter(costly_reads)
        self.limiters = {work: CapacityLimiter(most) for work, most in _THREADS.items()}
        self.limiters |= {Work.COSTLY_READ: costly, Work.STREAM: costly}
        self.pages = ReadLimits("costly reads")
        self.exports = ReadLimits("exports")

    async def run(self, work: Work, function: Callable[P, T], *args: Any, **named: Any) -> T:  # noqa: ANN401 - the function's own
        """Run a blocking function in a thread of this kind of work."""
        call = partial(function, *args, **named)
        return await run_sync(call, limiter=self.limiters[work])

    async def iterate(self, work: Work, parts: Iterator[T]) -> AsyncIterator[T]:
        """Yield each part, computed in a thread of this kind of work; stop when not iterated."""
        while True:
            part: tuple[T] | None = await self.run(work, _next, parts)
            if part is None:
                return
            yield part[0]


def costly_reads_at_once(database: Database, settings: Settings) -> int:
    """Return the maximum number of concurrent costly reads in one process.

    Reads of SQLite use this machine's processor; half of it is left for other work. Reads of
    PostgreSQL leave half of the connections.
    """
    if database.is_a_file:
        return max(1, (os.cpu_count() or 1) // (2 * settings.workers))
    return max(1, settings.database_connections // 2)


def does(work: Work) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Mark an endpoint with a kind of work that differs from the default of its method."""

    def mark(endpoint: Callable[P, T]) -> Callable[P, T]:
        setattr(endpoint, _WORK, work)
        return endpoint

    return mark


def threads_of(request: Request) -> Threads:
    """Return the threads of the app that serves a request."""
    return cast("Threads", request.app.state.threads)


def _next(parts: Iterator[T]) -> tuple[T] | None:
    """Return the next part in a tuple, or ``None``; threads cannot pass on a `StopIteration`."""
    for part in parts:
        return (part,)
    return None


async def admit_export(request: Request) -> None:
    """Hold a place for an export until its answer was sent or aborted.

    Raises:
        TooManyReads: as for `ReadLimits.admitted`.
    """
    # FastAPI closes this stack when the answer has ended.
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
