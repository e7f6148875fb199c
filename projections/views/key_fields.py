"""The fields of a key, declared once.

A field is an attribute of `ListedKey`, and its `About` says the rest. The table of the key list and
the reading of its rows, the JSON, the OpenAPI schema, the CSV, the command line and the console
follow from this declaration. `projections.views.key_list` sets the values.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from types import UnionType
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import orjson
from sqlalchemy import Column, Integer
from sqlalchemy.types import TypeEngine

from domain.api_key import Status
from domain.caller import Actor
from domain.times import from_text, to_text
from projections.store.column_types import text
from projections.store.unreadable_rows import check_types

TIME = text(27)
_KEY_ID = text(43)
_EXAMPLE = "apikey_5f0c3a52-7d0e-8b4e-9d2b-1c7a4f8e6b21"


@dataclass(frozen=True, slots=True)
class About:
    """Properties of a field besides name and type.

    Args:
        label: name of the field for people.
        description: one sentence for the OpenAPI document.
        column: type of its column; ``None`` for the default of its type.
        stored: whether the key list has a column for it.
        example: example for the OpenAPI document; ``...`` for none.
        minimum: smallest number.
    """

    label: str
    description: str
    column: TypeEngine[Any] | None = None
    stored: bool = True
    example: object = ...
    minimum: int | None = None


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as people and programs see it; nothing in it can be used to call with the key.

    A field is a text, a time, an actor, a list of texts or a number; ``None`` is a missing value.
    ``position`` is that of the key's first event, and is not shown.
    """

    position: int
    key_id: Annotated[str, About("Key id", "Id of the key.", _KEY_ID, example=_EXAMPLE)]
    workspace: Annotated[
        str, About("Workspace", "Workspace of the key.", text(63), example="default")
    ]
    name: Annotated[str, About("Name", "Name of the key.", example="payments-api")]
    prefix: Annotated[
        str, About("Prefix", "First characters of the token.", text(28), example="key_7Rk2mQx9...")
    ]
    scopes: Annotated[
        tuple[str, ...], About("Scopes", "Scopes of the key.", example=["mcp:read", "mcp:write"])
    ]
    role: Annotated[str, About("Role", "Role of the key.", text(20), example="Member")]
    status: Annotated[Status, About("Status", "Status of the key.", text(7))]
    expires_at: Annotated[
        datetime | None, About("Expires", "Expiry time; null: the key never expires.")
    ]
    created_at: Annotated[datetime, About("Created", "Time of creation.")]
    created_by: Annotated[Actor, About("Created by", "The actor that created the key.")]
    revoked_at: Annotated[
        datetime | None, About("Revoked", "Time of revocation; null: not revoked.")
    ]
    revoked_by: Annotated[Actor | None, About("Revoked by", "The actor that revoked the key.")]
    revoke_reason: Annotated[str | None, About("Reason", "Reason of the revocation.")]
    rotated_from: Annotated[
        str | None,
        About("Rotated from", "Id of the key that this key replaces.", _KEY_ID, example=None),
    ]
    rotated_to: Annotated[
        str | None,
        About(
            "Rotated to",
            "Id of the key that replaces this key.",
            _KEY_ID,
            example="apikey_9b1f8f0e-3c57-8d6a-a1f4-52c0d9e7a310",
        ),
    ]
    last_used_at: Annotated[
        datetime | None,
        About(
            "Last used",
            "Minute of the last use, recorded within a minute; null: never used, or not known"
            " because `as_of` was given.",
            stored=False,
        ),
    ]
    version: Annotated[int, About("Version", "Number of the key's events.", example=1, minimum=1)]


class Field(NamedTuple):
    """A declared field.

    Args:
        kind: its type, without ``None``.
        optional: whether the value may be ``None``.
    """

    name: str
    kind: Any
    optional: bool
    about: About

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns: an actor has one for the type and one for the id."""
        return (f"{self.name}_type", f"{self.name}_id") if self.kind is Actor else (self.name,)


def _declared() -> Iterator[Field]:
    for each in fields(ListedKey):
        if get_origin(each.type) is Annotated:
            kind, about = get_args(each.type)
            optional = isinstance(kind, UnionType)
            yield Field(each.name, get_args(kind)[0] if optional else kind, optional, about)


FIELDS = {field.name: field for field in _declared()}
"""The fields that are shown, by name, in the order of the JSON."""

_LIST = tuple[str, ...]
_COLUMN_TYPES: dict[Any, TypeEngine[Any]] = {datetime: TIME, int: Integer()}


def columns() -> Iterator[Column[Any]]:
    """Create the columns of the stored fields."""
    for field in FIELDS.values():
        if field.about.stored:
            types = [field.about.column or _COLUMN_TYPES.get(field.kind, text())]
            if field.kind is Actor:
                types = [text(10), text()]
            for name, column_type in zip(field.columns, types, strict=True):
                yield Column(name, column_type, nullable=field.optional)


def to_column(value: Any) -> Any:  # noqa: ANN401 - of the type of any field
    """Return a value of an event in its stored form."""
    if isinstance(value, datetime):
        return to_text(value)
    return orjson.dumps(value).decode() if isinstance(value, list) else value


def read_fields(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row, or its like
    """Read the declared fields from a row of the key list.

    Args:
        row: has the columns as attributes, and the fields that the key list does not store.

    Raises:
        TypeError, ValueError: a value is not in the form that the program writes.
    """
    return {field.name: _read(field, row) for field in FIELDS.values()}


def _read(field: Field, row: Any) -> Any:  # noqa: ANN401 - as above
    check_types(row, int if field.kind is int else str, *field.columns, or_none=field.optional)
    values = [getattr(row, name) for name in field.columns]
    if values[0] is None:
        return None
    return _READERS.get(field.kind, _as_it_is)(*values)


def _as_it_is(value: object) -> object:
    return value


_READERS: dict[Any, Callable[..., Any]] = {
    Actor: Actor,
    datetime: from_text,
    _LIST: lambda value: tuple(orjson.loads(value)),
}
