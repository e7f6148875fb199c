"""The auth lookup: the row behind a lookup id, with all that a verdict needs."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import (
    Boolean,
    Column,
    MetaData,
    Table,
    and_,
    bindparam,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from domain.api_key import ApiKey
from domain.audit_log import Forked
from domain.judge import AuthRow
from domain.times import from_text, to_text
from projections.column_types import big_integer, text
from projections.schema import key_digests
from projections.view import Handlers, Values, changes_nothing, view_of_keys

table = Table(
    "auth_lookup",
    MetaData(),
    Column("position", big_integer, primary_key=True, autoincrement=False),
    Column("key_id", text(43), nullable=False),
    Column("lookup_id", text(16), nullable=False, unique=True),
    Column("workspace", text(63), nullable=False),
    Column("name", text(), nullable=False),
    Column("role", text(20), nullable=False),
    Column("token_prefix", text(16), nullable=False),
    Column("scopes", text(), nullable=False),
    Column("expires_at", text(27)),
    Column("revoked", Boolean, nullable=False),
    Column("expired", Boolean, nullable=False),
    Column("verifier", text(), nullable=False),
)


def _created(event: ApiKey.Created) -> Values:
    return {
        "lookup_id": event.lookup_id,
        "workspace": event.workspace,
        "name": event.name,
        "role": event.role,
        "token_prefix": event.token_prefix,
        "scopes": orjson.dumps(event.scopes).decode(),
        "expires_at": _text_or_none(event.expires_at),
        "revoked": False,
        "expired": False,
        "verifier": event.verifier,
    }


def _revoked(_event: ApiKey.Revoked) -> Values:
    return {"revoked": True}


def _expired(_event: ApiKey.Expired) -> Values:
    return {"expired": True}


def _end_changed(event: ApiKey.Rotated | ApiKey.ExpirationChanged) -> Values:
    return {"expires_at": _text_or_none(event.expires_at)}


def _renamed(event: ApiKey.Renamed) -> Values:
    return {"name": event.name}


def _scopes_changed(event: ApiKey.ScopesChanged) -> Values:
    return {"scopes": orjson.dumps(event.scopes).decode()}


HANDLERS: Handlers = {
    ApiKey.Created: _created,
    ApiKey.Revoked: _revoked,
    ApiKey.Expired: _expired,
    ApiKey.Rotated: _end_changed,
    ApiKey.ExpirationChanged: _end_changed,
    ApiKey.Renamed: _renamed,
    ApiKey.ScopesChanged: _scopes_changed,
    Forked: changes_nothing,
}
VIEW = view_of_keys(version=2, table=table, handlers=HANDLERS)


_COLUMNS = [column for column in table.c if column.name != "verifier"]
_NAMES = [column.name for column in _COLUMNS]
_FIND = (
    select(*_COLUMNS, table.c.verifier, key_digests.c.digest)
    .outerjoin(
        key_digests,
        and_(
            key_digests.c.lookup_id == table.c.lookup_id,
            key_digests.c.pepper_id == bindparam("pepper_id"),
        ),
    )
    .where(table.c.lookup_id == bindparam("lookup_id"))
)
_FIND_IN_SQLITE = str(_FIND.compile(dialect=sqlite.dialect()))
_FIND_IN_POSTGRESQL = str(
    _FIND.compile(dialect=postgresql.psycopg.dialect(paramstyle="format"))  # type: ignore[no-untyped-call]
)

Found = tuple[AuthRow, bytes | None]
"""A row of the auth lookup, and the digest under a pepper if there is one."""


def find_in_sqlite(
    read: Callable[..., list[tuple[Any, ...]]], lookup_id: str, pepper_id: str
) -> Found | None:
    """Return what is behind a lookup id, by a function that runs SQL on SQLite's own driver."""
    rows = read(_FIND_IN_SQLITE, pepper_id, lookup_id)
    return _found(rows[0]) if rows else None


def find_in_postgresql(
    read: Callable[..., list[tuple[Any, ...]]], lookup_id: str, pepper_id: str
) -> Found | None:
    """Return what is behind a lookup id, by a function that runs SQL on PostgreSQL's own driver."""
    rows = read(_FIND_IN_POSTGRESQL, (pepper_id, lookup_id))
    return _found(rows[0]) if rows else None


def _found(row: Sequence[Any]) -> Found:
    *values, verifier, digest = row
    named = dict(zip(_NAMES, values, strict=True))
    auth_row = AuthRow(
        position=named["position"],
        lookup_id=named["lookup_id"],
        key_id=named["key_id"],
        workspace=named["workspace"],
        name=named["name"],
        role=named["role"],
        token_prefix=named["token_prefix"],
        scopes=tuple(orjson.loads(named["scopes"])),
        expires_at=None if named["expires_at"] is None else from_text(named["expires_at"]),
        revoked=bool(named["revoked"]),
        expired=bool(named["expired"]),
        verifier=verifier,
    )
    return auth_row, digest


def _text_or_none(at: datetime | None) -> str | None:
    return None if at is None else to_text(at)
