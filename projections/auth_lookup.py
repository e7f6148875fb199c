"""The auth lookup: the row behind a lookup id, with all that a verdict needs."""

from datetime import datetime

import orjson
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    Text,
    and_,
    select,
)

from domain.api_key import ApiKey
from domain.judge import AuthRow
from domain.times import from_text, to_text
from projections.schema import big_integer, key_digests
from projections.view import Values, View

table = Table(
    "auth_lookup",
    MetaData(),
    Column("position", big_integer, primary_key=True, autoincrement=False),
    Column("key_id", String(43), nullable=False, unique=True),
    Column("lookup_id", String(16), nullable=False, unique=True),
    Column("workspace", String(63), nullable=False),
    Column("name", Text, nullable=False),
    Column("role", String(20), nullable=False),
    Column("token_prefix", String(16), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("expires_at", String(27)),
    Column("revoked", Boolean, nullable=False),
    Column("expired", Boolean, nullable=False),
    Column("verifier", Text, nullable=False),
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


VIEW = View(
    version=1,
    table=table,
    handlers={
        ApiKey.Created: _created,
        ApiKey.Revoked: _revoked,
        ApiKey.Expired: _expired,
        ApiKey.Rotated: _end_changed,
        ApiKey.ExpirationChanged: _end_changed,
        ApiKey.Renamed: _renamed,
        ApiKey.ScopesChanged: _scopes_changed,
    },
)


def find(
    connection: Connection, lookup_id: str, pepper_id: str
) -> tuple[AuthRow, bytes | None] | None:
    """Return the row behind a lookup id, and the digest under a pepper if there is one."""
    row = connection.execute(
        select(table, key_digests.c.digest)
        .outerjoin(
            key_digests,
            and_(
                key_digests.c.lookup_id == table.c.lookup_id,
                key_digests.c.pepper_id == pepper_id,
            ),
        )
        .where(table.c.lookup_id == lookup_id)
    ).one_or_none()
    if row is None:
        return None
    auth_row = AuthRow(
        lookup_id=row.lookup_id,
        key_id=row.key_id,
        workspace=row.workspace,
        name=row.name,
        role=row.role,
        token_prefix=row.token_prefix,
        scopes=tuple(orjson.loads(row.scopes)),
        expires_at=None if row.expires_at is None else from_text(row.expires_at),
        revoked=row.revoked,
        expired=row.expired,
        verifier=row.verifier,
    )
    return auth_row, row.digest


def _text_or_none(at: datetime | None) -> str | None:
    return None if at is None else to_text(at)
