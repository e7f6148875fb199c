"""Access reports: keys that were active, now and in the past, and keys to review."""

from datetime import datetime, timedelta

import pytest

from domain.errors import Invalid
from domain.key_ledger import Changes
from projections.queries.access_report import (
    ALL_KEYS,
    CALLERS,
    Access,
    Review,
    Selection,
    list_access,
    reviewed,
)
from projections.store.last_uses import minute_of
from projections.store.schema import last_uses
from tests.conftest import NOON, SettableClock
from tests.projections.ledgers import ADA, HOUR, Keys

DAY = timedelta(days=1)


def told(
    keys: Keys,
    selection: Selection = CALLERS,
    *,
    at: datetime | None = None,
    workspace: str | None = None,
) -> list[Access]:
    with keys.database.read() as connection:
        return list(
            list_access(
                connection,
                selection,
                at=at or keys.now,
                past=at is not None,
                workspace=workspace,
            )
        )


def names(accesses: list[Access]) -> list[str]:
    return [access.key.name for access in accesses]


def test_the_report_lists_keys_that_were_active_at_the_time(
    keys: Keys, clock: SettableClock
) -> None:
    first = keys.create("revoked later")
    keys.create("ends soon", lives=HOUR)
    clock.advance(minutes=30)
    keys.revoke(first.key_id)
    clock.advance(hours=1)
    keys.create("young")

    assert names(told(keys)) == ["young"]
    assert names(told(keys, at=NOON)) == ["ends soon", "revoked later"]
    assert names(told(keys, at=NOON + HOUR / 2)) == ["ends soon"]
    assert names(told(keys, at=NOON + HOUR)) == []
    assert names(told(keys, at=NOON - HOUR)) == []
    assert len(told(keys, ALL_KEYS)) == 3


def test_the_last_change_is_the_one_before_the_time(keys: Keys, clock: SettableClock) -> None:
    made = keys.create()
    later = clock.advance(hours=1)
    keys.rename(made.key_id, "renamed")
    (then,), (now,) = told(keys, at=NOON), told(keys)
    assert (then.changed_at, then.key.name) == (NOON, "payments")
    assert (now.changed_at, now.changed_by, now.key.name) == (later, ADA.actor, "renamed")


@pytest.mark.parametrize("at", [None, NOON])
def test_keys_come_by_workspace_however_many_there_are(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, at: datetime | None
) -> None:
    monkeypatch.setattr("projections.queries.access_report._PAGE", 2)
    for number in range(5):
        keys.create(f"{number}", workspace="b")
    keys.create("other", workspace="a")
    assert names(told(keys, at=at)) == ["other", "4", "3", "2", "1", "0"]
    assert names(told(keys, at=at, workspace="a")) == ["other"]
    assert told(keys, at=at, workspace="none") == []


def test_each_review_finds_its_keys_and_no_others(keys: Keys, clock: SettableClock) -> None:
    for life in (None, timedelta(days=100), timedelta(days=200)):
        keys.create(f"old, {life}", lives=life)
    used = keys.create("used", lives=timedelta(days=400))
    clock.advance(days=91)
    keys.create("admin", scopes=("*",), lives=timedelta(days=300))
    keys.create("all", scopes=("*:*", "a:b"), lives=timedelta(days=300))
    keys.create("reads all", scopes=("*:read",), lives=timedelta(days=300))
    gone = keys.create("gone", scopes=("*",))
    keys.revoke(gone.key_id)
    with keys.database.write() as connection:
        position = keys.show(used.key_id).position
        used_at = minute_of(keys.now).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        connection.execute(last_uses.insert().values(position=position, used_at=used_at))

    def found(review: Review, *, since: datetime | None = None) -> set[str]:
        selection = reviewed(review, keys.now, within=30 * DAY, since=since, older_than=90 * DAY)
        return set(names(told(keys, selection)))

    old = {"old, None", "old, 100 days, 0:00:00", "old, 200 days, 0:00:00"}
    young = {"admin", "all", "reads all"}
    assert found("no-expiry") == {"old, None"}
    assert found("expiring") == {"old, 100 days, 0:00:00"}
    assert found("unused", since=keys.now - DAY) == old
    assert found("never-used") == old | young
    assert found("full-access") == {"admin", "all"}
    assert found("rotated-late") == old | {"used"}


def test_a_successor_is_not_listed_as_rotated_late(keys: Keys, clock: SettableClock) -> None:
    made = keys.create("old")
    clock.advance(days=91)
    keys.rotate(made.key_id)
    late = reviewed("rotated-late", keys.now, within=DAY, since=None, older_than=90 * DAY)
    assert told(keys, late) == []


def test_the_unused_review_requires_a_time() -> None:
    with pytest.raises(Invalid, match="since"):
        reviewed("unused", NOON, within=DAY, since=None, older_than=DAY)


def test_changes_of_names_alone_do_not_hide_who_changed(keys: Keys) -> None:
    made = keys.create()
    keys.update(made.key_id, Changes(name="b", scopes=["a:b"]))
    (access,) = told(keys)
    assert access.key.version == 3
    assert access.changed_by == ADA.actor
