"""The database engines, and which of them stores the ledger of a folder.

For a ledger in PostgreSQL, a file beside its folder names the database. Code that gets the folder
finds the database through it, also in another process. So a test mentions no engine unless it is
about one.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Protocol

from sqlalchemy import URL, make_url

from api.settings import Settings, read_settings
from projections.auth.pepper_file import read_or_make_pepper
from projections.store.database import Database, open_database
from projections.store.seals import Seals
from tests.database_copies import DatabaseCopies
from tests.postgresql import Server, create_database, running_server

SQLITE = "sqlite"
POSTGRESQL = "postgresql"


class Engine(Protocol):
    """A database engine for ledgers."""

    @property
    def name(self) -> str: ...

    def new_place(self, data_dir: Path) -> Path:
        """Choose this engine for the ledger of a folder; return the folder."""

    @contextmanager
    def tidied(self) -> Iterator[None]:
        """Remove databases created meanwhile; files are removed with their folder."""


class SQLite:
    """Stores a ledger in a file of its folder."""

    name = SQLITE

    def new_place(self, data_dir: Path) -> Path:
        return data_dir

    @contextmanager
    def tidied(self) -> Iterator[None]:
        yield


@dataclass(frozen=True)
class PostgreSQL:
    """Stores each ledger in a database of its own."""

    server: Server

    name = POSTGRESQL

    def new_place(self, data_dir: Path) -> Path:
        url = self.server.url(f"ledger_{token_hex(6)}")
        _planned(data_dir).write_text(url.render_as_string(hide_password=False))
        return data_dir

    @contextmanager
    def tidied(self) -> Iterator[None]:
        copies = _copies_on(self.server.url("postgres"))
        before = copies.used()
        yield
        copies.release(before)


@contextmanager
def engine_called(name: str) -> Iterator[Engine]:
    """Start an engine, if it needs that."""
    if name == SQLITE:
        yield SQLite()
    else:
        with running_server() as server:
            yield PostgreSQL(server)


def address_of(data_dir: Path) -> URL:
    """Return the URL of a folder's database; the first call creates one on PostgreSQL."""
    planned, made = _planned(data_dir), _made(data_dir)
    with suppress(FileNotFoundError), planned.open() as plan:
        # Processes that open a ledger at the same time call this at the same time, too.
        fcntl.flock(plan, fcntl.LOCK_EX)
        if planned.exists():
            create_database(make_url(plan.read()))
            planned.rename(made)
    if made.exists():
        return make_url(made.read_text())
    return file_address(database_file(data_dir))


def file_address(file: Path) -> URL:
    """Return the URL of a database file."""
    return URL.create("sqlite", database=str(file))


def database_file(data_dir: Path) -> Path:
    """Return the file of a folder's database on SQLite."""
    return data_dir / "keyledger.sqlite3"


def settings_of(data_dir: Path, **given: object) -> Settings:
    """Return the settings for the ledger of a folder on its engine."""
    return read_settings(data_dir=data_dir, database_url=url_to_set(data_dir), **given)


def url_to_set(data_dir: Path) -> str | None:
    """Return the value of ``database_url`` for a folder; ``None`` if it is not set."""
    address = address_of(data_dir)
    if address.get_backend_name() == SQLITE:
        return None
    return address.render_as_string(hide_password=False)


def fresh_copy(of: Path, to: Path) -> Path:
    """Copy the ledger of a folder that nobody has open; replace an existing one."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(of, to)
    source = address_of(of)
    if source.get_backend_name() == POSTGRESQL:
        made = _made(to)
        name = make_url(made.read_text()).database if made.exists() else None
        copy = _copies_on(source.set(database="postgres")).make(str(source.database), name=name)
        _planned(to).unlink(missing_ok=True)
        made.write_text(source.set(database=copy).render_as_string(hide_password=False))
    return to


@cache
def _copies_on(server: URL) -> DatabaseCopies:
    return DatabaseCopies(server)


def empty_database(data_dir: Path) -> None:
    """Reset the database to its state before it was created."""
    address = address_of(data_dir)
    if address.get_backend_name() == POSTGRESQL:
        create_database(address)
    for file in data_dir.glob(f"{database_file(data_dir).name}*"):
        file.unlink()


def _planned(data_dir: Path) -> Path:
    return data_dir.with_name(f"{data_dir.name}.planned-database")


def _made(data_dir: Path) -> Path:
    return data_dir.with_name(f"{data_dir.name}.database")


def sealed_database(data_dir: Path, url: URL | None = None) -> Database:
    """Open a database with the seals of a data folder's pepper.

    Args:
        data_dir: the folder.
        url: another database than the folder's.
    """
    seals = Seals(read_or_make_pepper(data_dir / "pepper", token_bytes))
    return open_database(url or address_of(data_dir)).sealed_by(seals)
