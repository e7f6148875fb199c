"""The key list: the fields of keys that people and programs see."""

from dataclasses import fields
from sys import intern
from typing import Any

from sqlalchemy import Column, ColumnElement, FromClause, Index, MetaData, Table, and_
from sqlalchemy.sql.elements import Grouping

from domain.api_key import ApiKey
from domain.times import to_text
from domain.tokens import display_prefix
from projections.store.column_types import big_integer
from projections.views.key_fields import FIELDS, columns, to_column
from projections.views.view import ABOUT_NO_KEY, Handler, Handlers, Values, view_of_keys

table = Table(
    "key_list",
    MetaData(),
    Column("position", big_integer, primary_key=True, autoincrement=False),
    *columns(),
)


def age(keys: FromClause) -> ColumnElement[int]:
    """Return an expression that is smaller the newer a key is: the order of pages and indexes.

    For a query with an order and a limit, PostgreSQL may use any index in that order and skip rows
    that do not match, because it assumes that matches are spread evenly. They are not: the newest
    keys are hardly ever expired, and a workspace may have no new keys for years. The position
    itself is the primary key, in the order of all workspaces' keys. This expression is only in the
    intended indexes.
    """
    return Grouping(-keys.c.position)


Index("by_age", table.c.workspace, age(table))
Index("by_status", table.c.workspace, table.c.status, age(table))
will_expire = and_(table.c.status == "active", table.c.expires_at.is_not(None))
Index("by_end", table.c.expires_at, sqlite_where=will_expire, postgresql_where=will_expire)


# Plain strings: SQLAlchemy's column names are slower as dictionary keys. `values_of` adds two.
_EMPTY_ROW: Values = dict.fromkeys(
    intern(str.__str__(column.name))
    for column in table.c
    if column.name not in {"position", "key_id"}
)
_OF_CREATED = [field.name for field in fields(ApiKey.Created) if field.name in FIELDS]


def _created(event: ApiKey.Created) -> Values:
    # Filling a copy is faster than growing a dictionary.
    values = _EMPTY_ROW.copy()
    for name in _OF_CREATED:
        values[name] = to_column(getattr(event, name))
    values["prefix"] = display_prefix(event.token_prefix, event.lookup_id)
    values["status"] = "active"
    values["created_at"] = to_text(event.timestamp)
    values["created_by_type"] = event.actor["type"]
    values["created_by_id"] = event.actor["id"]
    values["version"] = event.originator_version
    return values


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


def _sets(name: str) -> Handler:
    """Return a handler for events that have a field's new value under the field's name."""

    def handle(event: Any) -> Values:  # noqa: ANN401 - of any kind that has the field
        return {name: to_column(getattr(event, name)), "version": event.originator_version}

    return handle


HANDLERS: Handlers = {
    ApiKey.Created: _created,
    ApiKey.Revoked: _revoked,
    ApiKey.Expired: _expired,
    ApiKey.Rotated: _rotated,
    ApiKey.ExpirationChanged: _sets("expires_at"),
    ApiKey.Renamed: _sets("name"),
    ApiKey.ScopesChanged: _sets("scopes"),
    **ABOUT_NO_KEY,
}
VIEW = view_of_keys(
    version=3,
    table=table,
    handlers=HANDLERS,
    updates=(
        *("name", "scopes", "status", "expires_at", "revoked_at", "revoked_by_type"),
        *("revoked_by_id", "revoke_reason", "rotated_to", "version"),
    ),
)
