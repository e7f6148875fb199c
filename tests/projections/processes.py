"""Real processes, for tests about kills and about two processes at once.

A fork server imports the program once. Each process is then forked from it, in milliseconds and
without any open database of the tests. It runs a function of a module, and the result comes back
through a pipe.
"""

import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Engine, event

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["__main__", "alembic.command", "api.composition", "tests.projections.ledgers"]
)

DEADLINE_SECONDS = 60


@dataclass
class Running:
    """A function in a separate process; leaving the ``with`` block ends the process."""

    process: ForkServerProcess
    pipe: Connection

    def result(self) -> Any:  # noqa: ANN401 - whatever the function returns
        """Wait for the result of the function."""
        assert self.pipe.poll(DEADLINE_SECONDS), "the process takes too long"
        succeeded, value = self.pipe.recv()
        assert succeeded, value
        self.join()
        return value

    def join(self) -> int:
        """Wait for the end of the process, and return its exit code."""
        self.process.join(DEADLINE_SECONDS)
        assert self.process.exitcode is not None, "the process takes too long"
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        assert self.join() == -signal.SIGKILL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


def start(function: Callable[..., Any], *args: object) -> Running:
    """Run a function in a process of its own."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_report, args=(theirs, function, args), daemon=True)
    process.start()
    theirs.close()
    return Running(process, ours)


def run(function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - as above
    """Run a function in a process of its own, and return what it returns."""
    with start(function, *args) as running:
        return running.result()


def run_until_killed(function: Callable[..., Any], *args: object) -> bool:
    """Run a function that may kill its own process; return whether it did."""
    with start(function, *args) as running:
        exitcode = running.join()
        if exitcode == 0:
            running.result()
        assert exitcode in (0, -signal.SIGKILL, -signal.SIGXFSZ)
        return exitcode != 0


def _report(pipe: Connection, function: Callable[..., Any], args: tuple[object, ...]) -> None:
    try:
        value = function(*args)
    except BaseException:  # noqa: BLE001 - told on the other side
        pipe.send((False, traceback.format_exc()))
    else:
        pipe.send((True, value))


def die() -> None:
    """End this process abruptly like a power failure, without any cleanup."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_system_call(number: int) -> Callable[[], None]:
    """Kill this process at the n-th file operation from now on.

    Counted are Python's audit events about files, such as opening, renaming and linking, and each
    sync to disk twice: once before and once after it.

    Returns:
        A function that ends the counting.
    """
    left = number

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            die()

    def audit(event: str, _args: object) -> None:
        if event.startswith(("open", "os.", "fcntl.", "shutil.", "tempfile.")):
            count()

    def sync(fd: Any) -> None:  # noqa: ANN401 - as in `os`
        count()
        to_the_disk(fd)
        count()

    def spare() -> None:
        nonlocal left
        left = 0

    to_the_disk, os.fsync = os.fsync, sync
    sys.addaudithook(audit)
    return spare


def die_when_a_file_reaches(size: int) -> None:
    """Kill this process when it writes beyond a file size; write everything before that."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


_CHANGES_NOTHING = ("SELECT", "PRAGMA", "BEGIN", "SAVEPOINT", "RELEASE")


def die_at_statement(number: int, *, when: str) -> Callable[[], None]:
    """Kill this process at its n-th SQL statement from now on.

    Args:
        when: ``before_cursor_execute`` counts all statements, and comes after a commit between two
            of them; ``after_cursor_execute`` counts statements that change something, and comes
            before the commit.

    Returns:
        A function that ends the counting.
    """
    left = number

    def count(_c: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal left
        if when == "after_cursor_execute" and statement.startswith(_CHANGES_NOTHING):
            return
        left -= 1
        if left == 0:
            die()

    def spare() -> None:
        nonlocal left
        left = 0

    event.listen(Engine, when, count)
    return spare
