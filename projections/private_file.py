"""Files that only their owner may read, and that are there whole or not at all."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile


def make_private_file(path: Path, content: bytes) -> None:
    """Make a file that is on the disk when this returns; leave one that is there as it is.

    Raises:
        OSError: it cannot be made.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(file.name, path)
        except FileExistsError:
            return
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let the names of the files in a folder be on the disk when this returns.

    Raises:
        OSError: it cannot be done.
    """
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
