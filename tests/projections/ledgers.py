"""Ledgers for tests, with the commands that callers use."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import URL

import projections.rebuild.rebuild
import projections.rebuild.shadow_table
from api.composition import OpenLedger, opened_ledger
from domain.caller import Actor, Caller
from domain.key_ledger import Changes, Issued
from domain.verdict import Code
from domain.verifiers import CHEAPEST, OnChange, ignore_change
from projections.expirer import expire_due_keys
from projections.queries.keys_now import show_key
from projections.rebuild.rebuild import Clock, check
from projections.store.database import Database
from projections.views import auth_lookup, key_list
from projections.views.key_fields import ListedKey
from projections.views.registry import VIEWS
from tests.conftest import NOON
from tests.engines import settings_of

KEY_VIEWS = (key_list.VIEW, auth_lookup.VIEW)
"""Views with one row for each key, named by the position of its first event."""

ADA = Caller(Actor("cli", "ada"), holds=("*",))
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Made:
    """A key, and its token."""

    key_id: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Keys:
    """Commands on a ledger with defaults for arguments that a test does not care about."""

    opened: OpenLedger

    @property
    def database(self) -> Database:
        return self.opened.database

    @property
    def address(self) -> URL:
        """URL of the database, for changes outside the program."""
        return self.opened.database.url

    @property
    def data_dir(self) -> Path:
        return self.opened.settings.data_dir

    @property
    def path(self) -> Path:
        """The file of an SQLite database."""
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
        settings_of(data_dir),
        clock=clock or (lambda: now),
        argon2_profile=CHEAPEST,
        on_argon2=on_argon2,
    ) as opened:
        yield Keys(opened)


def use_batches_of(events: int) -> None:
    """Make replays use small batches for the lifetime of this process."""
    for module in (projections.rebuild.shadow_table, projections.rebuild.rebuild):
        vars(module)["BATCH"] = events
    projections.rebuild.shadow_table.KEYS = max(1, events // 2)


def differing_rows(keys: Keys) -> dict[str, int]:
    """Return how many rows of each view differ from the events; leave out views without any."""
    counts = {view.name: check(keys.database, view).differing for view in VIEWS}
    return {name: count for name, count in counts.items() if count}
