"""Past pages equal a replay up to that time, for any history and any clock."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.api_key import ApiKey, Status
from domain.errors import KeyNotFound
from domain.key_ids import to_uuid
from domain.times import from_text
from projections.queries.filters import Filters
from projections.queries.keys_as_of import list_keys_at, show_key_at
from projections.store.events import Recorded, decode_rows, read_rows
from projections.views.key_fields import ListedKey
from tests.conftest import NOON, SettableClock
from tests.engines import fresh_copy
from tests.projections.histories import History, Step, steps
from tests.projections.ledgers import HOUR, Keys, keys_in
from tests.raw_sql import sql

TICK = timedelta(microseconds=1)
WORKSPACES = ("default", "other")


def events_of(keys: Keys) -> list[Recorded]:
    with keys.database.read() as connection:
        return decode_rows(read_rows(connection, after=0, limit=None))


def interesting_times(events: list[Recorded]) -> set[datetime]:
    """Return the times when something happened or ended, and times between, before and after."""
    times: set[datetime] = {event.timestamp for _, event in events}
    ends = {getattr(event, "expires_at", None) for _, event in events}
    times |= {end for end in ends if end is not None}
    at = {time + span for time in times for span in (-TICK, timedelta(0), HOUR / 2)}
    return at | {min(times) - HOUR, max(times) + 1000 * HOUR}


def replayed(events: list[Recorded], at: datetime) -> dict[int, ApiKey]:
    """Fold each key's events up to a time, the newest key first, by the aggregate alone."""
    found: dict[int, ApiKey] = {}
    by_key = sorted(events, key=lambda each: (each.event.originator_id, each.position))
    for _, history in groupby(by_key, key=lambda each: each.event.originator_id):
        key: ApiKey | None = None
        first = 0
        for position, event in history:
            if event.timestamp > at:
                break
            first = first or position
            key = event.mutate(key)
        if key is not None:
            found[first] = key
    return dict(sorted(found.items(), reverse=True))


def fields_of(shown: ListedKey) -> tuple[Any, ...]:
    return (
        shown.key_id,
        shown.name,
        shown.scopes,
        shown.expires_at,
        shown.created_at,
        shown.status,
        shown.rotated_from,
        shown.rotated_to,
        shown.version,
    )


def said_by(key: ApiKey, at: datetime) -> tuple[Any, ...]:
    return (
        key.key_id,
        key.name,
        tuple(key.scopes),
        key.expires_at,
        key.created_on,
        key.status(at),
        key.rotated_from,
        key.rotated_to,
        key.version,
    )


def pages(
    keys: Keys, workspace: str, filters: Filters, at: datetime, limit: int
) -> Iterator[ListedKey]:
    before: int | None = None
    with keys.database.read() as connection:
        while page := list_keys_at(
            connection, workspace, filters, at=at, before=before, limit=limit
        ):
            assert len(page) <= limit
            yield from page
            before = page[-1].position


def check_past(keys: Keys, at: datetime, limit: int) -> None:
    """See that all that is told of a time is what a replay to that time gives."""
    there = replayed(events_of(keys), at)
    for workspace in WORKSPACES:
        right = {
            position: said_by(key, at)
            for position, key in there.items()
            if key.workspace == workspace
        }
        for status in (None, *get_args(Status)):
            found = list(pages(keys, workspace, Filters(status=status), at, limit))
            expected = [each for each in right.items() if status in (None, each[1][5])]
            assert [(key.position, fields_of(key)) for key in found] == expected, (at, status)
            if status is None:
                check_shown(keys, workspace, at, found)


def check_shown(keys: Keys, workspace: str, at: datetime, found: list[ListedKey]) -> None:
    listed = {key.key_id: key for key in found}
    with keys.database.read() as connection:
        for (key_id,) in sql(keys.address, "SELECT key_id FROM key_list"):
            if key_id in listed:
                assert show_key_at(connection, workspace, key_id, at=at) == listed[key_id]
            else:
                with pytest.raises(KeyNotFound):
                    show_key_at(connection, workspace, key_id, at=at)


def check_versions(keys: Keys) -> None:
    """See that each key's versions follow on each other, from the first one on."""
    rows = sql(
        keys.address,
        "SELECT key_id, version, held_from, held_until FROM key_versions"
        " ORDER BY position, version",
    )
    for key_id, versions in groupby(rows, key=lambda row: row[0]):
        _, numbers, begins, ends = zip(*versions, strict=True)
        assert numbers == tuple(range(1, len(numbers) + 1))
        assert ends == (*begins[1:], None)
        assert list(begins) == sorted(begins)
        key: ApiKey = keys.opened.ledger.repository.get(to_uuid(key_id))
        assert (numbers[-1], from_text(begins[0])) == (key.version, key.created_on)


def use_buckets_of(monkeypatch: pytest.MonkeyPatch, positions: int) -> None:
    for name in ("CREATED_BUCKET", "ENDED_BUCKET"):
        monkeypatch.setattr(f"projections.queries.keys_as_of.{name}", positions)


# Each kind of event, at times that come in order and not.
LIVES = [Step("create", n % 2, n) for n in range(1, 9)]
CHANGES = ("rename", "rotate", "wait", "end", "turn back", "narrow", "expire", "revoke", "update")


@settings(max_examples=8, deadline=None)
@given(commands=steps, size=st.sampled_from([1, 2, 3, 1024]), limit=st.integers(1, 4))
@example(commands=[*LIVES, *(Step(verb, n, 5) for n, verb in enumerate(CHANGES))], size=2, limit=2)
@example(
    commands=[
        Step("create", 0, 5),
        Step("wait", 0, 9),
        Step("create", 0, 3),
        Step("turn back", 0, 8),
        *(Step("create", 0, 2) for _ in range(5)),
        Step("wait", 0, 2),
        Step("expire"),
        Step("revoke", 0, 0),
        Step("turn back", 0, 1),
        Step("revoke", 3, 1),
    ],
    size=1,
    limit=3,
)
def test_as_of_equals_a_replay_up_to_that_time(
    empty_ledger: Path, commands: list[Step], size: int, limit: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        use_buckets_of(patch, size)
        data_dir = fresh_copy(empty_ledger, Path(folder) / "data")
        clock = SettableClock(NOON)
        with keys_in(data_dir, clock=clock) as keys:
            History(keys, clock, []).play([Step("create"), *commands])
            check_versions(keys)
            for at in interesting_times(events_of(keys)):
                check_past(keys, at, limit)
