"""Keep files that contain secrets closed to other accounts.

If others can open a file, its mode is repaired if the file belongs to the ledger's owner, and the
file is rejected otherwise. A file of root may be readable by a service's group, as PostgreSQL
allows for TLS keys: secrets mounted into a service have such a mode.
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
"""Called with a sentence about a file whose mode was repaired."""

_log = structlog.get_logger()
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# Opens the path only, not the file: closing a database file would drop the locks of this process.
_PATH_ONLY = getattr(os, "O_PATH", None)


class OpenToOthers(LedgerUnavailable):
    """Other accounts can open a file that contains a secret."""


def log_repair(said: str) -> None:
    """Log a repair."""
    _log.warning("file_mode_repaired", detail=said)


def open_to_others(found: os.stat_result) -> bool:
    """Return whether accounts other than the owner can open a file, beyond what the rule allows."""
    if not stat.S_ISREG(found.st_mode):
        return False
    allowed = stat.S_IRGRP if is_for_a_service(found) else 0
    return bool(found.st_mode & _OTHERS & ~allowed)


def is_for_a_service(found: os.stat_result) -> bool:
    """Return whether a file belongs to root and may be readable by a service's group."""
    return found.st_uid == 0 and (found.st_gid != 0 or os.geteuid() != 0)


def keep_private(path: Path, on_repair: OnRepair = log_repair) -> None:
    """Remove the access of other accounts to a file.

    Args:
        on_repair: called if other accounts had access.

    Raises:
        OpenToOthers: the mode cannot be changed, or the file does not belong to the ledger's owner.
        OSError: the file does not exist.
    """
    found = path.stat()
    if not open_to_others(found):
        return
    with suppress(OSError):
        _repair(path, found)
    refuse_open_to_others(path)
    on_repair(
        f"other accounts could open {path} (mode {_mode(found)}); its mode is now"
        f" {_mode(path.stat())}. If another account may have read it, treat its content as"
        " disclosed"
    )


def keep_database_private(path: Path | None, on_repair: OnRepair = log_repair) -> None:
    """Remove the access of other accounts to a database file and the files beside it.

    Args:
        path: the database file; ``None`` for a database on a server.
        on_repair: called for each file that other accounts had access to.

    Raises:
        OpenToOthers: as for `keep_private`.
    """
    if path is None:
        return
    for suffix in ("", "-wal", "-shm"):
        # SQLite removes these files when the last process closes the database.
        with suppress(OSError):
            keep_private(path.with_name(f"{path.name}{suffix}"), on_repair)


def refuse_open_to_others(path: Path) -> None:
    """Reject a file that other accounts can open.

    Raises:
        OpenToOthers: other accounts can open it.
        OSError: the file does not exist.
    """
    found = path.stat()
    if open_to_others(found):
        mode = "640" if is_for_a_service(found) else "600"
        message = (
            f"other accounts can open {path} (mode {_mode(found)}): run chmod {mode}"
            f" {shlex.quote(str(path))}"
        )
        raise OpenToOthers(message)


def _repair(path: Path, found: os.stat_result) -> None:
    """Change the mode of a file that belongs to this account; as root, to the folder's owner.

    Other files are left alone: the folder's owner could have put a symbolic link to another
    account's file there, for root to change.
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
