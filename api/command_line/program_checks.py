"""Checks of the program and of what it runs on."""

import platform
import sys
from importlib import metadata

from api.command_line.checks import Check
from projections.store.sqlite_driver import driver, driver_name

_OLDEST_PYTHON = (3, 11)
# https://sqlite.org/wal.html#walresetbug: repaired in 3.51.3, and in these older lines.
_REPAIRED = (3, 51, 3)
_REPAIRED_LINES = {(3, 50): 7, (3, 44): 6}


def check_program() -> Check:
    """Say which version of the program this is."""
    return Check("keyledger", "ok", metadata.version("keyledger"))


def check_python() -> Check:
    """Check the version of Python."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < _OLDEST_PYTHON:
        return Check("python", "fail", found, "use Python 3.11 or newer")
    return Check("python", "ok", found)


def check_sqlite(version: tuple[int, ...] = driver.sqlite_version_info) -> Check:
    """Check SQLite for a rare bug of its write-ahead log."""
    found = f"{'.'.join(map(str, version))} ({driver_name()})"
    if _is_repaired(version):
        return Check("sqlite", "ok", found)
    return Check(
        "sqlite",
        "warn",
        f"{found}: this version has a rare bug that can damage the database when several"
        " processes write",
        "install the package pysqlite3, or use a Python with SQLite 3.51.3 or newer (or 3.50.7,"
        " 3.44.6); until then, let only one process write at a time",
    )


def _is_repaired(version: tuple[int, ...]) -> bool:
    patch = _REPAIRED_LINES.get((version[0], version[1]))
    return version >= _REPAIRED or (patch is not None and version[2] >= patch)
