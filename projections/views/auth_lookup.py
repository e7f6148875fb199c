"""The auth lookup: the row of a lookup id, with everything that a verdict needs.

Each row has a seal over all its columns, and the version of its key's last event. A row is used
only if its seal is valid and its version is that of the last event in the store: neither a forged
row nor an old row that was put back grants anything.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    LargeBinary,
    MetaData,
    Table,
    and_,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from domain.api_key import ApiKey
from domain.errors import RowNotSealed
from domain.key_ids import to_key_id
from domain.times import from_text, to_text
from domain.verdict import AuthRow
from projections.store.column_types import big_integer, text
from projections.store.events import first_positions
from projections.store.invalid_utf8 import tolerate_invalid_utf8
from projections.store.schema import events, key_digests
from projections.store.seals import Seals
from projections.views.view import (
    ABOUT_NO_KEY,
    Folded,
    Handlers,
    Values,
    insert_rows,
    update_rows,
    view_of_keys,
)

_AT_ONCE = 500

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
    Column("version", big_integer, nullable=False),
    Column("seal", LargeBinary(32)),
)
SEALED = [column.name for column in table.c if column.name != "seal"]
"""The columns that a row's seal covers, in order."""

_TRUTHS = [SEALED.index(name) for name in ("revoked", "expired")]
_sealed_values = itemgetter(*SEALED)


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


def _versioned(handler: Callable[[Any], Values]) -> Callable[[Any], Values]:
    """Make a handler also set the version, which every event of a key changes."""

    def handle(event: ApiKey.Event) -> Values:
        values = handler(event)
        values["version"] = event.originator_version
        return values

    return handle


HANDLERS: Handlers = {
    ApiKey.Created: _versioned(_created),
    ApiKey.Revoked: _versioned(_revoked),
    ApiKey.Expired: _versioned(_expired),
    ApiKey.Rotated: _versioned(_end_changed),
    ApiKey.ExpirationChanged: _versioned(_end_changed),
    ApiKey.Renamed: _versioned(_renamed),
    ApiKey.ScopesChanged: _versioned(_scopes_changed),
    **ABOUT_NO_KEY,
}


def _write(connection: Connection, written: Table, folded: Folded, seals: Seals) -> None:
    made, changed, _ = folded
    for values in made.values():
        values["seal"] = seals.auth_row(_sealed_values(values))
    insert_rows(connection, written, made.values())
    if changed:
        changes = _sealed_changes(connection, written, folded, seals)
        update_rows(table.name, connection, written, changes)


def _sealed_changes(
    connection: Connection, written: Table, folded: Folded, seals: Seals
) -> list[Values]:
    """Return the changes with the seals of the resulting rows.

    A row with an invalid seal is changed nevertheless, so that a revocation always succeeds, but it
    loses its seal, so that forged values are never sealed. The same holds for an old row that was
    put back with its seal, and for another key's row in this key's place: with the next version it
    would be a current row with values of no event.
    """
    _, changed, before = folded
    positions = first_positions(connection, changed)
    rows = _rows_at(connection, written, list(positions.values()))
    changes = []
    for uuid, values in changed.items():
        position = positions.get(uuid)
        row = rows.get(position)
        seal = None
        if (
            row is not None
            and seals.is_auth_row(_sealed_values(row), row["seal"])
            and row["version"] == before[uuid]
            and row["key_id"] == to_key_id(uuid)
        ):
            seal = seals.auth_row(_sealed_values(row | values))
        changes.append(values | {"seal": seal, "_position": position})
    return changes


def _rows_at(
    connection: Connection, written: Table, positions: list[int]
) -> dict[int | None, Values]:
    rows: dict[int | None, Values] = {}
    for start in range(0, len(positions), _AT_ONCE):
        some = positions[start : start + _AT_ONCE]
        query = select(written).where(written.c.position.in_(some))
        with tolerate_invalid_utf8(connection):
            found = connection.execute(query).mappings().all()
        rows |= {row["position"]: dict(row) for row in found}
    return rows


VIEW = view_of_keys(
    version=3,
    table=table,
    handlers=HANDLERS,
    updates=("name", "scopes", "expires_at", "revoked", "expired", "version", "seal"),
    write=_write,
)

_made = events.alias("made")
_key = (
    select(_made.c.originator_id)
    .where(_made.c.id == table.c.position)
    .correlate(table)
    .scalar_subquery()
)
# The newest event of the key whose first event has the row's position.
_VERSION = (
    select(func.max(events.c.originator_version))
    .where(events.c.originator_id == _key)
    .scalar_subquery()
)
_FIND = (
    select(
        *table.c,
        _VERSION,
        key_digests.c.lookup_id,
        key_digests.c.pepper_id,
        key_digests.c.digest,
        key_digests.c.seal,
    )
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
    read: Callable[..., list[tuple[Any, ...]]], lookup_id: str, pepper_id: str, seals: Seals
) -> Found | None:
    """Look up a lookup id, with a function that runs SQL on SQLite's driver.

    Raises:
        RowNotSealed: the row or its digest has no valid seal, or the row is not the newest.
    """
    return _found(read(_FIND_IN_SQLITE, pepper_id, lookup_id), lookup_id, seals)


def find_in_postgresql(
    read: Callable[..., list[tuple[Any, ...]]], lookup_id: str, pepper_id: str, seals: Seals
) -> Found | None:
    """Look up a lookup id, with a function that runs SQL on PostgreSQL's driver.

    Raises:
        RowNotSealed: as for `find_in_sqlite`.
    """
    return _found(read(_FIND_IN_POSTGRESQL, (pepper_id, lookup_id)), lookup_id, seals)


_WIDTH = len(table.c)
# Dummy row for an unknown lookup id: its seal is verified as well, so that the time does not reveal
# whether a lookup id is known.
_NOBODY = [0, "-" * 43, "-" * 16, "default", "-", "member", "key", '["-"]', None, 0, 0, "-" * 97, 1]
_NO_SEAL = bytes(32)


def _found(rows: Sequence[Sequence[Any]], lookup_id: str, seals: Seals) -> Found | None:
    if not rows:
        seals.is_auth_row(_as_sealed(_NOBODY), _NO_SEAL)
        return None
    values, seal = list(rows[0][: _WIDTH - 1]), rows[0][_WIDTH - 1]
    version, *digest = rows[0][_WIDTH:]
    named = dict(zip(SEALED, values, strict=True))
    if (
        len(rows) > 1
        or not seals.is_auth_row(_as_sealed(values), seal)
        or named["version"] != version
        or named["lookup_id"] != lookup_id
    ):
        raise not_sealed(lookup_id)
    if digest[0] is not None and not seals.is_digest(digest[:3], digest[3]):
        raise not_sealed(lookup_id)
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
        verifier=named["verifier"],
    )
    return auth_row, digest[2]


def _as_sealed(values: list[Any]) -> list[Any]:
    """Return a row's values as they are sealed: SQLite stores booleans as numbers."""
    for place in _TRUTHS:
        values[place] = bool(values[place])
    return values


def not_sealed(lookup_id: str) -> RowNotSealed:
    """Return the error for a row that would grant access and has no valid seal."""
    return RowNotSealed(
        f"the row of the lookup id {lookup_id} was changed and grants no access: find out who"
        " else can write to the database, and run: keyledger audit verify"
    )


def _text_or_none(at: datetime | None) -> str | None:
    return None if at is None else to_text(at)
