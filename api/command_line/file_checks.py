"""Checks of the ledger's files and of the disk that they are on."""

import os
import shlex
import shutil
import stat
from pathlib import Path

from api.command_line.checks import Check
from api.command_line.local_ledger import NO_LEDGER
from domain.pepper import Pepper
from projections.store.file_modes import open_to_others

OWNER = "run as the ledger's owner"

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_TOO_FULL = 64 * _MIB
_NEARLY_FULL = _GIB


def check_folder(folder: Path) -> Check:
    """Check that nobody else can look into the data folder."""
    name = "data folder"
    if not folder.is_dir():
        return Check(name, "fail", f"{folder} does not exist", NO_LEDGER)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check(name, "fail", f"{folder} cannot be used by this account", OWNER)
    found, is_private = _mode(folder)
    if is_private:
        return Check(name, "ok", found)
    remedy = f"chmod 700 {shlex.quote(str(folder))}"
    if folder.stat().st_mode & stat.S_IWOTH:
        return Check(name, "fail", f"{found}: other accounts can replace the files in it", remedy)
    return Check(name, "warn", f"{found}: other accounts can list it", remedy)


def check_private_file(name: str, path: Path, about: str) -> Check:
    """Check that nobody else can read or write a file, ``about`` which something is known."""
    found = f"{_mode(path)[0]}, {about}"
    if not open_to_others(path.stat()):
        return Check(name, "ok", found)
    remedy = f"chmod 600 {shlex.quote(str(path))}"
    return Check(name, "fail", f"{found}: other accounts can open it", remedy)


def check_pepper(path: Path) -> Check:
    """Check that the pepper is there and can be used; its bytes are never shown."""
    name = "pepper"
    try:
        pepper = Pepper(path.read_bytes())
    except FileNotFoundError:
        return Check(
            name,
            "warn",
            f"{path} does not exist",
            "restore it: the ledger is sealed with it and opens with no other",
        )
    except OSError as error:
        return Check(name, "fail", f"{path}: {error.strerror}", OWNER)
    except ValueError as error:
        remedy = "restore the file: the ledger is sealed with it"
        return Check(name, "fail", f"{path}: {error}", remedy)
    return check_private_file(name, path, f"id {pepper.pepper_id}")


def check_disk(path: Path) -> Check:
    """Check that there is room for the database to grow and to be rebuilt."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    # A rebuild makes every view a second time beside the first.
    wanted = max(_NEARLY_FULL, 2 * path.stat().st_size if os.access(path, os.F_OK) else 0)
    found = f"{readable_size(free)} free"
    if free < _TOO_FULL:
        return Check("disk", "fail", found, f"free space on the disk of {folder}")
    if free < wanted:
        remedy = f"free space: a rebuild may need up to {readable_size(wanted)}"
        return Check("disk", "warn", found, remedy)
    return Check("disk", "ok", found)


def readable_size(size: int) -> str:
    """Write a number of bytes for people."""
    return f"{size / _GIB:,.1f} GiB" if size >= _GIB else f"{size / _MIB:,.1f} MiB"


def _mode(path: Path) -> tuple[str, bool]:
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"{path}, mode {mode:04o}", not mode & (stat.S_IRWXG | stat.S_IRWXO)
