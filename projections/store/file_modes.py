"""Keep files with secrets closed to other accounts.

The rule for a file that others can open: repair its mode if it belongs to the ledger's owner, else
refuse it. A file of root may be readable by the group of a service, as PostgreSQL allows it for TLS
keys: a secret that is mounted for a service has such a mode.
"""

import os
import shlex
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from domain.errors import LedgerUnavailable
from projections.store.private_files import owner_of

OnRepair = Callable[[str], None]
"""Is called with a sentence about a file whose mode was repaired."""

_log = structlog.get_logger()
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# A path alone, which is not opened: closing a database's file would drop the locks of this process.
_PATH_ONLY = getattr(os, "O_PATH", None)


class OpenToOthers(LedgerUnavailable):
    """A file with a secret can be opened by other accounts."""


def log_repair(said: str) -> None:
    """Write a repair to the log."""
    _log.warning("file_mode_repaired", detail=said)


def open_to_others(found: os.stat_result) -> bool:
    """Tell whether accounts other than the owner can open a file, beyond what the rule allows."""
    if not stat.S_ISREG(found.st_mode):
        return False
    allowed = stat.S_IRGRP if is_for_a_service(found) else 0
    return bool(found.st_mode & _OTHERS & ~allowed)


def is_for_a_service(found: os.stat_result) -> bool:
    """Tell whether a file is one of root's that a group of a service may read."""
    return found.st_uid == 0 and (found.st_gid != 0 or os.geteuid() != 0)


def keep_private(path: Path, on_repair: OnRepair = log_repair) -> None:
    """Take the access of others from a file; say so.

    Args:
        on_repair: is called if there was any.

    Raises:
        OpenToOthers: the mode cannot be changed, or the file is not of the ledger's owner.
        OSError: the file cannot be found.
    """
    found = path.stat()
    if not open_to_others(found):
        return
    with suppress(OSError):
        _repair(path, found)
    refuse_open_to_others(path)
    on_repair(
        f"other accounts could open {path} (mode {_mode(found)}); its mode is now"
        f" {_mode(path.stat())}. If one of them may have read it, consider its content disclosed"
    )


def keep_database_private(path: Path | None, on_repair: OnRepair = log_repair) -> None:
    """Take the access of others from the file of a database, and from its log beside it.

    Args:
        path: of the file; ``None`` for a database on a server.
        on_repair: is called if there was any.

    Raises:
        OpenToOthers: as for `keep_private`.
    """
    if path is None:
        return
    for suffix in ("", "-wal", "-shm"):
        # SQLite removes its log when the last process closes the database.
        with suppress(OSError):
            keep_private(path.with_name(f"{path.name}{suffix}"), on_repair)


def refuse_open_to_others(path: Path) -> None:
    """Refuse a file that others can open.

    Raises:
        OpenToOthers: they can.
        OSError: the file cannot be found.
    """
    found = path.stat()
    if open_to_others(found):
        mode = "640" if is_for_a_service(found) else "600"
        message = (
            f"other accounts can open {path} (mode {_mode(found)}); run:"
            f" chmod {mode} {shlex.quote(str(path))}"
        )
        raise OpenToOthers(message)


def _repair(path: Path, found: os.stat_result) -> None:
    """Change the mode of a file that belongs to this account, or, for root, to the folder's owner.

    The folder's owner could make a symbolic link to a file of somebody else, for root to change.
    """
    folder = owner_of(path.parent)
    if found.st_uid != (os.geteuid() or (0 if folder is None else folder.uid)):
        return
    mode = stat.S_IMODE(found.st_mode) & ~_OTHERS
    if _PATH_ONLY is None:
        path.chmod(mode, follow_symlinks=False)
        return
    handle = os.open(path, _PATH_ONLY | os.O_CLOEXEC)
    try:
        if os.path.samestat(found, os.fstat(handle)):
            Path(f"/proc/self/fd/{handle}").chmod(mode)
    finally:
        os.close(handle)


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"
