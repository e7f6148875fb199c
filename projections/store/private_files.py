"""Create the files and folders of a ledger; no other module of the program creates files.

Every file has mode 0600, and no new folder is writable for others, whatever the umask. A file
belongs to the owner of the ledger even if root creates it; otherwise the service could not open it
afterwards.

Root may work in a folder that another account can write to. So no symbolic link is followed when a
file is created, and the owner is changed only of files that were created here.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO, NamedTuple

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_PARENT_MODE = 0o755


class FileOwner(NamedTuple):
    """User id and group id of a file's owner."""

    uid: int
    gid: int


def owner_of(path: Path) -> FileOwner | None:
    """Return the owner of a file or folder; ``None`` if it does not exist or is not accessible."""
    try:
        found = path.stat()
    except OSError:
        return None
    return FileOwner(found.st_uid, found.st_gid)


def make_private_folder(path: Path) -> None:
    """Create a folder that only its owner can use, and missing parents; keep an existing folder.

    If root creates it, it belongs to the owner of its parent folder.

    Raises:
        OSError: the folder cannot be created.
    """
    for parent in reversed(path.parents):
        if not parent.exists():
            _make_folder(parent, _PARENT_MODE)
    if not path.is_dir():
        _make_folder(path, _FOLDER_MODE)


def make_private_file(path: Path, content: bytes, owner: FileOwner | None = None) -> None:
    """Create a file and sync it to disk; keep a file that exists.

    Args:
        owner: owner of the new file; ``None`` for the owner of its folder.

    Raises:
        OSError: the file cannot be created, or is a symbolic link to a file that does not exist.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:
        _set_owner(file.fileno(), path, owner)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(file.name, path)
        except FileExistsError:
            _check_not_dangling(path)
            return
    sync_folder(path.parent)


@contextmanager
def new_private_file(path: Path, owner: FileOwner | None = None) -> Iterator[tuple[BinaryIO, Path]]:
    """Write a file that replaces any existing file of that name when it is complete.

    Args:
        owner: owner of the new file; ``None`` for the owner of its folder.

    Yields:
        The open file, and its temporary path.

    Raises:
        OSError: the file cannot be created.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            _set_owner(file.fileno(), path, owner)
            # The inner file object, which has the declared type.
            yield file.file, Path(file.name)  # type: ignore[misc]
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).rename(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def open_private_file(path: Path, owner: FileOwner | None = None) -> int:
    """Open a file for reading and writing; create it if it does not exist.

    Args:
        owner: owner of a new file; ``None`` for the owner of its folder.

    Returns:
        A file descriptor.

    Raises:
        OSError: the file cannot be opened or created, or is a symbolic link to a file that does
            not exist.
    """
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        # With O_EXCL, a symbolic link is never followed.
        handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    except FileExistsError:
        _check_not_dangling(path)
        return os.open(path, flags)
    try:
        _set_owner(handle, path, owner)
    except BaseException:
        os.close(handle)
        path.unlink()
        raise
    return handle


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that the names of new files in it survive a crash.

    Raises:
        OSError: the folder cannot be synced.
    """
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _make_folder(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode)
    except FileExistsError:
        # Another process may have created it at the same time.
        if not path.is_dir():
            raise
        return
    owner = owner_of(path.parent)
    if owner is not None and os.geteuid() == 0:
        os.chown(path, *owner, follow_symlinks=False)


def _check_not_dangling(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            errno.ENOENT, "it is a symbolic link to a file that is not there", str(path)
        )


def _set_owner(handle: int, path: Path, owner: FileOwner | None) -> None:
    """Set mode and owner of a file that was just created.

    Only root can change the owner of a file; otherwise only the group is set, if allowed.
    """
    os.fchmod(handle, _FILE_MODE)
    owner = owner or owner_of(path.parent)
    found = os.fstat(handle)
    if owner is None or (found.st_uid, found.st_gid) == owner:
        return
    if os.geteuid() == 0:
        os.fchown(handle, *owner)
    elif found.st_uid == owner.uid:
        # The account may not be a member of that group.
        with suppress(PermissionError):
            os.fchown(handle, -1, owner.gid)
