"""Locks that end with the process that holds them, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from projections.store import postgresql_locks
from projections.store.database import Database
from projections.store.private_files import open_private_file


@contextmanager
def exclusively(database: Database, task: str) -> Iterator[bool]:
    """Hold the one lock of this name on the database, if it is free; never wait for it.

    For a file, the lock is the operating system's, on a file beside the database's: a process that
    is killed lets go of it. The file stays, and means nothing by itself. For a server, it is a lock
    of the server's, and a connection that is cut lets go of it.

    Yields:
        Whether the lock is held; if not, somebody else is at the task.

    Raises:
        LedgerUnavailable: the server cannot be asked.
    """
    if not database.is_a_file:
        with postgresql_locks.exclusively(database.writer, task) as alone:
            yield alone
        return
    path = database.path.with_name(f"{database.path.name}.{task}.lock")
    handle = open_private_file(path, database.owner)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
