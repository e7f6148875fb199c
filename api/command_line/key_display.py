"""Tables and lines about keys and their events."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.text import Text

from api.command_line.listing import Column, write_listing, write_record
from api.command_line.terminal import one_line
from api.command_line.time_formats import date, from_now, readable, to_the_minute
from domain.audit_log import LedgerEvent
from domain.caller import Actor
from domain.public_event import public_event
from domain.times import from_text
from projections.store.events import Recorded
from projections.views.key_fields import FIELDS, ListedKey

_STATUS_STYLES = {"active": "green", "revoked": "red", "expired": "yellow"}
_KEY_COLUMNS = (
    Column("KEY ID"),
    Column("NAME", wraps=True),
    Column("PREFIX"),
    Column("SCOPES", wraps=True),
    Column("STATUS"),
    Column("EXPIRES", wraps=True),
    Column("CREATED"),
)
_EVENT_COLUMNS = (
    Column("EVENT"),
    Column("VERSION", right=True),
    Column("AT"),
    Column("BY"),
    Column("POSITION", right=True),
    Column("WHAT", wraps=True),
)
# Before that, "Never" would be a guess: a server records uses at intervals.
_USES_ARE_KNOWN_AFTER = timedelta(minutes=1)
# For auditors, who have --json.
_NOT_FOR_PEOPLE = frozenset({"verifier_sha256", "request_sha256", "lookup_id", "role"})


def write_keys(
    console: Console, keys: Sequence[ListedKey], now: datetime, *, with_workspace: bool = False
) -> None:
    """Write a list of keys."""
    rows = [
        [
            Text(key.key_id),
            _text(key.name),
            _text(key.prefix),
            _scopes(key),
            _status(key),
            _end(key.expires_at, now, date),
            Text(date(key.created_at)),
        ]
        for key in keys
    ]
    if with_workspace:
        rows = [[_text(key.workspace), *row] for key, row in zip(keys, rows, strict=True)]
    columns = (Column("WORKSPACE"), *_KEY_COLUMNS) if with_workspace else _KEY_COLUMNS
    write_listing(console, columns, rows)


def write_key(console: Console, key: ListedKey, now: datetime) -> None:
    """Write the fields of one key."""
    write_record(console, _fields(key, now))


def write_history(console: Console, history: Sequence[Recorded]) -> None:
    """Write the events of a key."""
    rows = [
        [
            Text(recorded.event.TOPIC.removeprefix("ApiKey."), style="bold"),
            Text(str(recorded.event.originator_version)),
            Text(readable(recorded.event.timestamp)),
            _text("{type}:{id}".format(**recorded.event.actor)),
            Text(str(recorded.position)),
            _event_data(recorded.event),
        ]
        for recorded in history
    ]
    write_listing(console, _EVENT_COLUMNS, rows)


def _fields(key: ListedKey, now: datetime) -> Iterator[tuple[str, Text]]:
    """Yield the label and the text of each field that the key has."""
    for name, field in FIELDS.items():
        shown = _WRITERS[name](key, now) if name in _WRITERS else _value(getattr(key, name))
        if shown is not None:
            yield field.about.label.lower(), shown


def _value(value: object) -> Text | None:
    """Write a value by its type."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return Text(readable(value))
    if isinstance(value, Actor):
        return _text(f"{value.type}:{value.id}")
    return _text(", ".join(value) if isinstance(value, tuple) else str(value))


def _text(text: str) -> Text:
    return Text(one_line(text))


def _scopes(key: ListedKey) -> Text:
    return _text(", ".join(key.scopes))


def _status(key: ListedKey) -> Text:
    return Text(key.status, style=_STATUS_STYLES[key.status])


def _end(at: datetime | None, now: datetime, write: Callable[[datetime], str]) -> Text:
    return Text("Never" if at is None else f"{write(at)} {from_now(at, now)}")


def _created(key: ListedKey, _now: datetime) -> Text:
    return _time_and_actor(key.created_at, key.created_by)


def _last_used(key: ListedKey, now: datetime) -> Text | None:
    at = key.last_used_at
    if at is not None:
        return Text(f"{to_the_minute(at)} {from_now(at, now)}")
    return Text("Never") if now - key.created_at > _USES_ARE_KNOWN_AFTER else None


def _revoked(key: ListedKey, _now: datetime) -> Text | None:
    if key.revoked_at is None or key.revoked_by is None:
        return None
    reason = f": {key.revoke_reason}" if key.revoke_reason else ""
    return _time_and_actor(key.revoked_at, key.revoked_by).append(one_line(reason))


def _with_another(_key: ListedKey, _now: datetime) -> None:
    """Write nothing: the field is shown together with another."""


_WRITERS: dict[str, Callable[[ListedKey, datetime], Text | None]] = {
    "key_id": lambda key, _now: Text(key.key_id, style="bold"),
    "status": lambda key, _now: _status(key),
    "expires_at": lambda key, now: _end(key.expires_at, now, readable),
    "created_at": _created,
    "created_by": _with_another,
    "revoked_at": _revoked,
    "revoked_by": _with_another,
    "revoke_reason": _with_another,
    "last_used_at": _last_used,
}
"""The fields that are not written by the type of their value."""


def _time_and_actor(at: datetime, actor: Actor) -> Text:
    return Text(f"{readable(at)} by ").append(one_line(f"{actor.type}:{actor.id}"))


def _event_data(event: LedgerEvent) -> Text:
    data: dict[str, Any] = public_event(event)["data"]
    values = (
        f"{name}={_value_text(name, value)}"
        for name, value in data.items()
        if value is not None and name not in _NOT_FOR_PEOPLE
    )
    return _text(", ".join(values))


def _value_text(name: str, value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return readable(from_text(str(value))) if name.endswith("_at") else str(value)
