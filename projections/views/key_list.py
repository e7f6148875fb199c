"""The key list: what people and programs see of the keys."""

from datetime import datetime

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    Index,
    Integer,
    MetaData,
    Table,
    and_,
)
from sqlalchemy.sql.elements import Grouping

from domain.api_key import ApiKey
from domain.audit_log import Forked, Resealed
from domain.times import to_text
from domain.tokens import display_prefix
from projections.store.column_types import big_integer, text
from projections.views.view import Handlers, Values, changes_nothing, view_of_keys

TIME = text(27)

table = Table(
    "key_list",
    MetaData(),
    Column("position", big_integer, primary_key=True, autoincrement=False),
    Column("key_id", text(43), nullable=False),
    Column("workspace", text(63), nullable=False),
    Column("name", text(), nullable=False),
    Column("prefix", text(28), nullable=False),
    Column("scopes", text(), nullable=False),
    Column("role", text(20), nullable=False),
    Column("status", text(7), nullable=False),
    Column("expires_at", TIME),
    Column("created_at", TIME, nullable=False),
    Column("created_by_type", text(10), nullable=False),
    Column("created_by_id", text(), nullable=False),
    Column("revoked_at", TIME),
    Column("revoked_by_type", text(10)),
    Column("revoked_by_id", text()),
    Column("revoke_reason", text()),
    Column("rotated_from", text(43)),
    Column("rotated_to", text(43)),
    Column("version", Integer, nullable=False),
)


def age(keys: FromClause) -> ColumnElement[int]:
    """Return what is the smaller the newer a key is: the order of pages, and of their indexes.

    PostgreSQL answers a query that has an order and a limit along any index in that order, and
    passes over what does not fit, for it believes that what fits is spread evenly. It is not: the
    newest keys are hardly ever expired, and a workspace may have had no new ones for years. The
    positions themselves are the primary key, which is in the order of all workspaces' keys; of
    this expression, only the indexes are that are meant.
    """
    return Grouping(-keys.c.position)


Index("by_age", table.c.workspace, age(table))
Index("by_status", table.c.workspace, table.c.status, age(table))
will_expire = and_(table.c.status == "active", table.c.expires_at.is_not(None))
Index("by_end", table.c.expires_at, sqlite_where=will_expire, postgresql_where=will_expire)


def _created(event: ApiKey.Created) -> Values:
    return {
        "workspace": event.workspace,
        "name": event.name,
        "prefix": display_prefix(event.token_prefix, event.lookup_id),
        "scopes": orjson.dumps(event.scopes).decode(),
        "role": event.role,
        "status": "active",
        "expires_at": _text_or_none(event.expires_at),
        "created_at": to_text(event.timestamp),
        "created_by_type": event.actor["type"],
        "created_by_id": event.actor["id"],
        "revoked_at": None,
        "revoked_by_type": None,
        "revoked_by_id": None,
        "revoke_reason": None,
        "rotated_from": event.rotated_from,
        "rotated_to": None,
        "version": event.originator_version,
    }


def _revoked(event: ApiKey.Revoked) -> Values:
    return {
        "status": "revoked",
        "revoked_at": to_text(event.timestamp),
        "revoked_by_type": event.actor["type"],
        "revoked_by_id": event.actor["id"],
        "revoke_reason": event.reason,
        "version": event.originator_version,
    }


def _expired(event: ApiKey.Expired) -> Values:
    return {"status": "expired", "version": event.originator_version}


def _rotated(event: ApiKey.Rotated) -> Values:
    return {
        "rotated_to": event.successor_id,
        "expires_at": to_text(event.expires_at),
        "version": event.originator_version,
    }


def _expiration_changed(event: ApiKey.ExpirationChanged) -> Values:
    return {
        "expires_at": _text_or_none(event.expires_at),
        "version": event.originator_version,
    }


def _renamed(event: ApiKey.Renamed) -> Values:
    return {"name": event.name, "version": event.originator_version}


def _scopes_changed(event: ApiKey.ScopesChanged) -> Values:
    return {
        "scopes": orjson.dumps(event.scopes).decode(),
        "version": event.originator_version,
    }


HANDLERS: Handlers = {
    ApiKey.Created: _created,
    ApiKey.Revoked: _revoked,
    ApiKey.Expired: _expired,
    ApiKey.Rotated: _rotated,
    ApiKey.ExpirationChanged: _expiration_changed,
    ApiKey.Renamed: _renamed,
    ApiKey.ScopesChanged: _scopes_changed,
    Forked: changes_nothing,
    Resealed: changes_nothing,
}
VIEW = view_of_keys(version=3, table=table, handlers=HANDLERS)


def _text_or_none(at: datetime | None) -> str | None:
    return None if at is None else to_text(at)
