"""Ledgers as the tests of this room use them: worked on as callers do, looked into from outside."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import projections.rebuild
import projections.shadow
from api.composition import OpenLedger, opened_ledger
from api.settings import read_settings
from domain.caller import Actor, Caller
from domain.judge import Code
from domain.key_ledger import Changes, Issued
from domain.verifiers import CHEAPEST, OnChange, ignore_change
from projections import auth_lookup, key_list
from projections.database import Database
from projections.expirer import expire_due_keys
from projections.key_list import show_key
from projections.listed_key import ListedKey
from projections.rebuild import Clock, check
from projections.views import VIEWS
from tests.conftest import NOON

Rows = list[tuple[Any, ...]]

KEY_VIEWS = (key_list.VIEW, auth_lookup.VIEW)
"""The views that have one row for each key, named by the position of its first event."""

ADA = Caller(Actor("cli", "ada"), holds=("*",))
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Made:
    """A key, and the token that was shown once."""

    key_id: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Keys:
    """Commands on a ledger, with what a test does not care about filled in."""

    opened: OpenLedger

    @property
    def database(self) -> Database:
        return self.opened.database

    @property
    def path(self) -> Path:
        return self.opened.database.path

    @property
    def now(self) -> datetime:
        return self.opened.clock()

    def create(
        self,
        name: str = "payments",
        *,
        scopes: tuple[str, ...] = ("mcp:read",),
        workspace: str = "default",
        lives: timedelta | None = None,
        prefix: str = "key",
        by: Caller = ADA,
    ) -> Made:
        issued = self.opened.ledger.create_key(
            workspace=workspace,
            name=name,
            scopes=list(scopes),
            expires_at=None if lives is None else self.now + lives,
            token_prefix=prefix,
            by=by,
            at=self.now,
        )
        return made(issued)

    def revoke(
        self,
        key_id: str,
        *,
        workspace: str = "default",
        reason: str | None = None,
        by: Caller = ADA,
    ) -> None:
        self.opened.ledger.revoke_key(
            key_id, workspace=workspace, reason=reason, comment=None, by=by, at=self.now
        )

    def rotate(
        self,
        key_id: str,
        *,
        workspace: str = "default",
        grace: timedelta = timedelta(0),
        by: Caller = ADA,
    ) -> Made:
        issued = self.opened.ledger.rotate_key(
            key_id, workspace=workspace, grace=grace, by=by, at=self.now
        )
        return made(issued)

    def update(
        self, key_id: str, changes: Changes, *, workspace: str = "default", by: Caller = ADA
    ) -> None:
        self.opened.ledger.update_key(key_id, changes, workspace=workspace, by=by, at=self.now)

    def rename(self, key_id: str, name: str) -> None:
        self.update(key_id, Changes(name=name))

    def expire_due(self) -> int:
        return expire_due_keys(self.database, self.opened.ledger, now=self.now)

    def verify(self, token: str, *scopes: str, workspace: str | None = None) -> Code:
        answer = self.opened.authentication.verify(token, scopes, now=self.now, workspace=workspace)
        return answer.verdict.code

    def show(self, key_id: str, *, workspace: str = "default") -> ListedKey:
        with self.database.read() as connection:
            return show_key(connection, workspace, key_id, now=self.now)


def made(issued: Issued) -> Made:
    assert issued.token is not None
    return Made(issued.key_id, issued.token.reveal())


@contextmanager
def keys_in(
    data_dir: Path,
    *,
    now: datetime = NOON,
    clock: Clock | None = None,
    on_argon2: OnChange = ignore_change,
) -> Iterator[Keys]:
    """Open the ledger of a folder, with secrets that no other process draws."""
    with opened_ledger(
        read_settings(data_dir=data_dir),
        clock=clock or (lambda: now),
        argon2_profile=CHEAPEST,
        on_argon2=on_argon2,
    ) as opened:
        yield Keys(opened)


def fresh_copy(of: Path, to: Path) -> Path:
    """Copy the folder of a ledger that nobody has open, in place of whatever is there."""
    shutil.rmtree(to, ignore_errors=True)
    return shutil.copytree(of, to)


def database_file(data_dir: Path) -> Path:
    return data_dir / "keyledger.sqlite3"


def use_batches_of(events: int) -> None:
    """Make replays take small batches, for as long as this process lives."""
    for module in (projections.shadow, projections.rebuild):
        vars(module)["BATCH"] = events
    projections.shadow.KEYS = max(1, events // 2)


def sql(path: Path, statement: str, *parameters: object) -> Rows:
    """Run one statement on the file itself, past all that the program does."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        return connection.execute(statement, parameters).fetchall()


def rows_of(path: Path, table: str) -> Rows:
    return sql(path, f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608 - names from the tests


def plant_row(path: Path, table: str, **values: object) -> None:
    """Copy the first row of a table, with some values changed, past all that the program does."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        cursor = connection.execute(f"SELECT * FROM {table} ORDER BY 1")  # noqa: S608 - as above
        names = [name for name, *_ in cursor.description]
        row = dict(zip(names, cursor.fetchone(), strict=True)) | values
        marks = ", ".join("?" * len(names))
        connection.execute(f"INSERT INTO {table} VALUES ({marks})", list(row.values()))  # noqa: S608


def edit_rows(path: Path, table: str, *positions: int, **values: object) -> None:
    """Change columns of the rows at some positions, or of all, past all that the program does."""
    columns = ", ".join(f"{name} = ?" for name in values)
    statement = f"UPDATE {table} SET {columns}{_at(positions)}"  # noqa: S608 - as above
    sql(path, statement, *values.values())


def delete_rows(path: Path, table: str, *positions: int) -> None:
    """Delete the rows at some positions, or all, past all that the program does."""
    sql(path, f"DELETE FROM {table}{_at(positions)}")  # noqa: S608 - as above


def lose_events(data_dir: Path, *, after: int) -> None:
    """Delete the newest events and all that was derived from them, past all that the program does.

    What is left is just what the ledger was when it had no more.
    """
    for table, position in (("events", "id"), *((view.name, "position") for view in VIEWS)):
        sql(database_file(data_dir), f"DELETE FROM {table} WHERE {position} > ?", after)  # noqa: S608


def value_at(path: Path, table: str, position: int, column: str) -> Any:  # noqa: ANN401
    """Return one value as it is stored, of the one row at a position."""
    ((value,),) = sql(path, f"SELECT {column} FROM {table}{_at((position,))}")  # noqa: S608
    return value


def last_row_at(path: Path, table: str, position: int) -> int:
    """Return which row at a position is the last; a view may have several for a key."""
    found = sql(path, f"SELECT max(rowid) FROM {table}{_at((position,))}")  # noqa: S608 - as above
    return int(found[0][0])


def edit_row(path: Path, table: str, row: int, **values: object) -> None:
    """Change columns of one row, past all that the program does."""
    columns = ", ".join(f"{name} = ?" for name in values)
    sql(path, f"UPDATE {table} SET {columns} WHERE rowid = {row}", *values.values())  # noqa: S608


def value_in(path: Path, table: str, row: int, column: str) -> Any:  # noqa: ANN401
    """Return one value as it is stored."""
    ((value,),) = sql(path, f"SELECT {column} FROM {table} WHERE rowid = {row}")  # noqa: S608
    return value


def _at(positions: tuple[int, ...]) -> str:
    return f" WHERE position IN ({', '.join(map(str, positions))})" if positions else ""


def view_rows(path: Path) -> dict[str, Rows]:
    """Return all rows of all live views."""
    return {view.name: rows_of(path, view.name) for view in VIEWS}


def differing_rows(keys: Keys) -> dict[str, int]:
    """Return how many rows of each view are not what the events say; sound views are left out."""
    counts = {view.name: check(keys.database, view).differing for view in VIEWS}
    return {name: count for name, count in counts.items() if count}


def count_events(path: Path) -> int:
    return int(sql(path, "SELECT count(*) FROM events")[0][0])


def tables_of(path: Path) -> set[str]:
    return {name for (name,) in sql(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")}


def dump(path: Path) -> list[str]:
    """Return all that is in a database, as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())
