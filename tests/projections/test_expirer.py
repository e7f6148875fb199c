import json
import os
import sys
from collections import Counter
from datetime import datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import URL

import projections.expirer
from domain.errors import LedgerUnavailable
from domain.key_ledger import Changes
from projections.expirer import expire_due_keys
from tests.conftest import NOON, SettableClock
from tests.projections.ledgers import HOUR, Keys, differing_rows, keys_in
from tests.projections.processes import CONTEXT, start
from tests.raw_sql import count_events, dump, plant_row, sql

EXPIRED = "SELECT originator_id FROM events WHERE topic = 'ApiKey.Expired'"


def expirations(address: URL) -> Counter[bytes]:
    return Counter(uuid for (uuid,) in sql(address, EXPIRED))


def test_a_due_key_gets_one_expired_event(keys: Keys, clock: SettableClock) -> None:
    made = keys.create(lives=HOUR)
    clock.now = NOON + HOUR - timedelta(microseconds=1)
    assert keys.expire_due() == 0
    clock.now = NOON + HOUR
    assert keys.expire_due() == 1
    ((topic, state),) = sql(keys.address, "SELECT topic, state FROM events WHERE id = 2")
    assert topic == "ApiKey.Expired"
    assert json.loads(state)["actor"] == {"type": "system", "id": "expirer"}
    assert json.loads(state)["timestamp"] == "2026-03-03T13:00:00.000000Z"
    assert keys.show(made.key_id).version == 2
    assert sql(keys.address, "SELECT revoked, expired FROM auth_lookup") == [(0, 1)]


def test_a_second_expiry_scan_finds_nothing(keys: Keys, clock: SettableClock) -> None:
    for _ in range(3):
        keys.create(lives=HOUR)
    clock.advance(hours=1)
    assert keys.expire_due() == 3
    before = dump(keys.address)
    assert keys.expire_due() == 0
    assert dump(keys.address) == before


def test_keys_that_are_not_due_are_left_alone(keys: Keys, clock: SettableClock) -> None:
    keys.create()
    keys.create(lives=3 * HOUR)
    revoked = keys.create(lives=HOUR)
    keys.revoke(revoked.key_id)
    prolonged = keys.create(lives=HOUR)
    keys.update(prolonged.key_id, Changes(expires_at=NOON + 5 * HOUR))
    clock.advance(hours=2)
    before = dump(keys.address)
    assert keys.expire_due() == 0
    assert dump(keys.address) == before


def test_a_rotated_key_is_due_after_its_grace(keys: Keys, clock: SettableClock) -> None:
    made = keys.create()
    keys.rotate(made.key_id, grace=HOUR)
    clock.advance(hours=1)
    assert keys.expire_due() == 1
    assert keys.show(made.key_id).version == 3


def test_more_than_a_batch_is_done_in_one_call_however_long_it_was_off(
    keys: Keys, clock: SettableClock
) -> None:
    number = projections.expirer.BATCH + 20
    for minutes in range(number):
        keys.create(lives=timedelta(minutes=1 + minutes % 7))
    clock.advance(days=400)
    assert keys.expire_due() == number
    assert set(expirations(keys.address).values()) == {1}
    assert count_events(keys.address) == 2 * number
    assert keys.expire_due() == 0


def test_once_it_is_stopped_it_leaves_the_rest_to_the_next_call(
    keys: Keys, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.expirer.BATCH", 2)
    for _ in range(7):
        keys.create(lives=HOUR)
    clock.advance(hours=1)
    batches = iter([False, True])
    done = expire_due_keys(
        keys.database, keys.opened.ledger, now=keys.now, is_stopped=lambda: next(batches)
    )
    assert done == 4
    assert keys.expire_due() == 3


@pytest.mark.parametrize("number", [4, 5, 8])
def test_a_stream_ends_after_a_full_last_batch(
    keys: Keys, clock: SettableClock, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("projections.expirer.BATCH", 4)
    for _ in range(number):
        keys.create(lives=HOUR)
    clock.advance(hours=1)
    assert keys.expire_due() == number
    assert set(expirations(keys.address).values()) == {1}


@pytest.mark.parametrize(
    "key_id",
    ["apikey_00000000-0000-4000-8000-00000000000%d", "no key id at all %d", "", "apikey_%d"],
)
def test_planted_rows_stop_nobody(
    keys: Keys, clock: SettableClock, monkeypatch: pytest.MonkeyPatch, key_id: str
) -> None:
    monkeypatch.setattr("projections.expirer.BATCH", 2)
    keys.create(lives=HOUR)
    for number in range(5 if "%" in key_id else 1):
        plant_row(
            keys.address,
            "key_list",
            position=-1 - number,
            key_id=key_id.replace("%d", str(number)),
            expires_at="2026-01-01T00:00:00.000000Z",
        )
    last = keys.create(lives=HOUR)
    clock.advance(hours=1)
    assert keys.expire_due() == 2
    assert keys.show(last.key_id).version == 2
    assert keys.expire_due() == 0


def test_a_row_that_says_active_of_a_revoked_key_brings_no_event(
    keys: Keys, clock: SettableClock
) -> None:
    made = keys.create(lives=HOUR)
    keys.revoke(made.key_id)
    sql(keys.address, "UPDATE key_list SET status = 'active'")
    clock.advance(hours=1)
    assert keys.expire_due() == 0
    assert count_events(keys.address) == 2


def test_a_damaged_history_delays_no_other_expiry(keys: Keys, clock: SettableClock) -> None:
    keys.create(lives=HOUR)
    keys.create(lives=HOUR)
    sql(keys.address, "UPDATE events SET state = x'ff' WHERE id = 1")
    clock.advance(hours=1)
    assert keys.expire_due() == 1


def test_without_the_database_it_says_so(keys: Keys) -> None:
    sql(keys.address, "DROP TABLE key_list")
    with pytest.raises(LedgerUnavailable):
        keys.expire_due()


def expire_together(data_dir: Path, now: datetime, barrier: Barrier, said: Path) -> int:
    with said.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    projections.expirer.BATCH = 10
    with keys_in(data_dir, now=now) as keys:
        barrier.wait(30)
        appended = keys.expire_due()
    sys.stdout.flush()
    return appended


def test_processes_that_do_it_at_once_append_one_event_for_each_key_and_say_nothing(
    data_dir: Path, tmp_path: Path
) -> None:
    number, processes = 150, 3
    with keys_in(data_dir) as keys:
        for _ in range(number):
            keys.create(lives=HOUR)
    barrier = CONTEXT.Barrier(processes)
    running = [
        start(expire_together, data_dir, NOON + HOUR, barrier, tmp_path / f"said {each}")
        for each in range(processes)
    ]
    appended = []
    for each in running:
        with each:
            appended.append(each.result())
    with keys_in(data_dir, now=NOON + HOUR) as keys:
        assert keys.expire_due() == 0
        assert sum(appended) == number
        assert set(expirations(keys.address).values()) == {1}
        assert len(expirations(keys.address)) == number
        assert differing_rows(keys) == {}
    assert [(tmp_path / f"said {each}").read_text() for each in range(processes)] == [""] * 3
