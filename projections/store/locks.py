"""Locks that are released when the process that holds them ends, even after a crash."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from projections.store import postgresql_locks
from projections.store.database import Database
from projections.store.private_files import open_private_file


@contextmanager
def task_lock(database: Database, task: str) -> Iterator[bool]:
    """Hold the lock for a task on a database if it is free; never wait for it.

    On SQLite it is a lock of the operating system on a file beside the database, released when the
    process ends. The file stays; its existence means nothing. On PostgreSQL it is an advisory lock,
    released when the connection ends.

    Yields:
        Whether the lock is held; if not, another process is doing the task.

    Raises:
        LedgerUnavailable: the server did not answer.
    """
    if not database.is_a_file:
        with postgresql_locks.task_lock(database.writer, task) as alone:
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
