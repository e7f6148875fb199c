"""Choose the one SQLite library that the whole program uses.

SQLite before 3.51.3 (other than 3.50.7 and 3.44.6) has a bug that can damage a database in WAL mode
when several processes write (https://sqlite.org/wal.html#walresetbug). Most Pythons come with such
a version. The package `pysqlite3` brings a newer SQLite with the same interface, where it has a
wheel; elsewhere the standard library's is used, and ``keyledger doctor`` warns.

All code that opens the database, or catches the driver's exceptions, uses `driver`; so do the
tests. Two SQLite libraries in one process must never have the same file open: POSIX locks belong to
the process, so closing the file in one library drops the locks of the other
(https://sqlite.org/howtocorrupt.html, section 2.2.1). For the same reason no code may open the file
of a database that is in use by other means.
"""

import sqlite3 as _standard
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3 as driver
else:
    try:
        from pysqlite3 import dbapi2 as driver
    except ImportError:
        driver = _standard
    if driver.sqlite_version_info < _standard.sqlite_version_info:
        driver = _standard

__all__ = ["driver", "driver_name"]


def driver_name() -> str:
    """Return the name of the library in use, for display."""
    return "standard library" if driver is _standard else "pysqlite3"
