"""Another account of the machine, for tests that root runs."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give files to another account: run the tests as root"
)

NOBODY = pwd.getpwnam("nobody")


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """Yield a folder that every account can reach; pytest's own folders are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def owned_by_nobody(folder: Path) -> Path:
    """Create a private folder; if root runs the tests, it belongs to another account."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    return folder


_AS_NOBODY = """
import os, sys
from api.command_line import main

folder, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ledger = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("KEYLEDGER_")}
command = ["keyledger", *sys.argv[4:]]


def ran(*arguments):
    sys.argv = ["keyledger", *arguments, "--data-dir", folder]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code


# The account may not be able to read the program: import all of it before.
with open(os.devnull, "w") as sys.stdout:
    ran("keys", "create", "--name", "a", "--scopes", "a:b")
    ran("doctor", "--json")
sys.stdout = sys.__stdout__
os.environ.update(ledger)
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
sys.argv = command
main()
"""


def as_nobody(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of the other account.

    Args:
        folder: folder for a temporary ledger.
    """
    return subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, folder, *map(str, NOBODY[2:4]), *arguments],
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
