"""Ledgers without a server: created quickly, and compared with their events."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from api.composition import OpenLedger, opened_ledger
from domain.api_key import ApiKey
from domain.caller import Actor, Caller
from domain.credential import issue
from domain.key_ids import derived_uuid
from domain.names import DEFAULT_WORKSPACE
from domain.verifiers import CHEAPEST, Argon2Gate
from projections.auth.pepper_file import read_or_make_pepper
from projections.rebuild.rebuild import check
from projections.views.registry import VIEWS
from tests.engines import settings_of

MAKER = Caller(Actor("cli", "maker"), holds=("*",))
SOUND = {view.name: 0 for view in VIEWS}
"""What `differences` finds in a sound ledger."""


class MadeKey(NamedTuple):
    """A key that was made without a server, and its token."""

    key_id: str
    token: str
    name: str


@contextmanager
def direct(data_dir: Path) -> Iterator[OpenLedger]:
    """Open a ledger in this process, beside the servers that may have it open."""
    with opened_ledger(settings_of(data_dir), argon2_profile=CHEAPEST) as opened:
        yield opened


def differences(data_dir: Path) -> dict[str, int]:
    """Return for each view how many of its rows are not what the events say."""
    with direct(data_dir) as opened:
        return {view.name: check(opened.database, view).differing for view in VIEWS}


def make_keys(
    data_dir: Path,
    names: list[str],
    *,
    expires_at: datetime | None = None,
    renamings: int = 0,
    at_once: int = 500,
) -> list[MadeKey]:
    """Make many keys in few transactions, with verifiers that take no time.

    Each is renamed as often as told, the last time to the name that it was to have.
    """
    with direct(data_dir) as opened:
        return [
            made
            for start in range(0, len(names), at_once)
            for made in _make(opened, names[start : start + at_once], expires_at, renamings)
        ]


def admin_token(data_dir: Path, workspace: str = DEFAULT_WORKSPACE) -> str:
    """Make a key that may do everything in a workspace; return its token."""
    with direct(data_dir) as opened:
        issued = opened.ledger.create_key(
            workspace=workspace,
            name="admin",
            scopes=["*"],
            expires_at=None,
            token_prefix="key",
            by=MAKER,
            at=datetime.now(UTC),
        )
    assert issued.token is not None
    return issued.token.reveal()


def _make(
    opened: OpenLedger, names: list[str], expires_at: datetime | None, renamings: int
) -> list[MadeKey]:
    gate = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)
    pepper = read_or_make_pepper(opened.settings.pepper_path, secrets.token_bytes)
    made, keys, digests = [], [], []
    for name in names:
        token, credential = issue("key", random=secrets.token_bytes, gate=gate, pepper=pepper)
        now = datetime.now(UTC)
        key = ApiKey.create(
            credential,
            key_id=derived_uuid("lookup id", credential.lookup_id),
            workspace=DEFAULT_WORKSPACE,
            name=f"{name} {renamings}" if renamings else name,
            scopes=["mcp:read"],
            expires_at=expires_at,
            by=MAKER,
            at=now,
        )
        for left in reversed(range(renamings)):
            key.rename(f"{name} {left}" if left else name, by=MAKER, at=now)
        keys.append(key)
        digests.append(credential.digest)
        made.append(MadeKey(key.key_id, token.reveal(), name))
    opened.ledger.save(*keys, digests=digests)
    return made
