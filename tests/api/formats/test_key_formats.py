"""Each declared field of a key is shown, and the published orders stay as they are."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from api.command_line.key_display import write_key
from api.console.history import what_happened
from api.formats.access_csv import to_csv
from api.formats.as_json import key_as_json
from domain.caller import Actor
from projections.queries.access_report import Access
from projections.views.key_fields import FIELDS, ListedKey
from tests.conftest import NOON

WITH_ANOTHER = {"created_by", "revoked_by", "revoke_reason"}
"""Fields that the command line shows on the line of another."""
ADA = Actor("cli", "ada")
SAMPLES: dict[Any, object] = {
    str: "a text",
    int: 7,
    datetime: datetime(2031, 5, 6, 7, 8, tzinfo=UTC),
    Actor: ADA,
    tuple[str, ...]: ("mcp:read", "logs:*"),
}
VALUES: dict[str, Any] = {name: SAMPLES.get(field.kind, "active") for name, field in FIELDS.items()}
KEY = ListedKey(position=1, **VALUES)


def shown(key: ListedKey) -> str:
    written = io.StringIO()
    write_key(Console(file=written, width=200), key, NOON)
    return written.getvalue()


def test_the_csv_header_and_the_order_of_its_columns_are_published() -> None:
    assert next(to_csv([])) == (
        b"workspace,key_id,name,prefix,scopes,role,status,expires_at,created_at,created_by,"
        b"last_used_at,changed_at,changed_by,rotated_from,rotated_to,version\r\n"
    )


def test_a_csv_record_has_the_values_in_the_order_of_the_header() -> None:
    access = Access(KEY, NOON, Actor("key", "apikey_1"))
    _, record = to_csv([access])
    time = "2031-05-06T07:08:00.000000Z"
    assert record.decode() == (
        f"a text,a text,a text,a text,mcp:read logs:*,a text,active,{time},{time},cli:ada,"
        f"{time},{NOON:%Y-%m-%dT%H:%M:%S.%fZ},key:apikey_1,a text,a text,7\r\n"
    )


def test_a_missing_value_is_null_in_json_and_empty_in_csv() -> None:
    missing: dict[str, Any] = {name: None for name, field in FIELDS.items() if field.optional}
    nothing = replace(KEY, **missing)
    document = key_as_json(nothing)
    assert [name for name in document if document[name] is None] == [*missing]
    _, record = to_csv([Access(nothing, NOON, ADA)])
    assert record.endswith(b",cli:ada,,,7\r\n")


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in WITH_ANOTHER])
def test_the_command_line_shows_each_declared_field(name: str) -> None:
    label = FIELDS[name].about.label.lower()
    assert f"  {label}  " in shown(KEY)


def test_an_event_type_is_written_in_words() -> None:
    assert what_happened("ApiKey.ExpirationChanged") == "Expiration changed"
    assert what_happened("ApiKey.Revoked") == "Revoked"
