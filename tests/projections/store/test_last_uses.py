import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import URL

import projections.store.last_uses
from domain.errors import LedgerUnavailable
from domain.times import to_text
from domain.verdict import Code
from projections.queries.filters import Filters
from projections.queries.keys_as_of import list_keys_at, show_key_at
from projections.queries.keys_now import list_keys
from projections.rebuild.rebuild import check, rebuild
from projections.store.last_uses import LastUses
from projections.store.schema import HEAD
from projections.views import auth_lookup
from projections.views.key_fields import ListedKey
from projections.views.registry import VIEWS
from tests.conftest import NOON, SettableClock
from tests.engines import address_of, database_file
from tests.projections.ledgers import HOUR, Keys, differing_rows, keys_in
from tests.projections.processes import CONTEXT, die, run_until_killed, start
from tests.projections.store.old_ledgers import sign_all_events
from tests.raw_sql import go_on, rows_of, sql, stop_at, view_rows

MINUTE = timedelta(minutes=1)
OLD_DATABASE = Path(__file__).with_name("old_databases") / "revision-0001.sqlite3"


def flush(keys: Keys) -> int:
    return keys.opened.last_uses.flush(keys.database)


def stored(address: URL) -> dict[int, str]:
    return dict(sql(address, "SELECT position, used_at FROM last_uses"))


def written(address: URL) -> dict[str, str]:
    return dict(
        sql(address, "SELECT key_id, used_at FROM last_uses JOIN key_list USING (position)")
    )


def listed(keys: Keys, filters: Filters | None = None) -> list[ListedKey]:
    with keys.database.read() as connection:
        return list_keys(connection, "default", filters or Filters(), now=keys.now, limit=1000)


def test_a_use_is_shown_to_the_minute_once_it_is_written(keys: Keys, clock: SettableClock) -> None:
    made = keys.create()
    clock.now = NOON + timedelta(minutes=5, seconds=59, microseconds=999_999)
    assert keys.verify(made.token) is Code.VALID
    assert keys.show(made.key_id).last_used_at is None
    assert flush(keys) == 1
    assert keys.show(made.key_id).last_used_at == NOON + 5 * MINUTE
    assert listed(keys) == [keys.show(made.key_id)]
    assert flush(keys) == 0


def test_an_argon2_verification_is_a_use_too(data_dir: Path) -> None:
    with keys_in(data_dir) as keys:
        made = keys.create()
        sql(keys.address, "DELETE FROM key_digests")
    with keys_in(data_dir, now=NOON + HOUR) as keys:
        assert keys.verify(made.token) is Code.VALID
        assert flush(keys) == 1
        assert keys.show(made.key_id).last_used_at == NOON + HOUR


@pytest.mark.parametrize("cold", [False, True])
def test_a_refused_verification_is_not_a_use(
    keys: Keys, clock: SettableClock, *, cold: bool
) -> None:
    good = keys.create("good")
    revoked = keys.create("revoked")
    keys.revoke(revoked.key_id)
    expired = keys.create("expired", lives=HOUR)
    clock.advance(hours=1)
    if cold:
        sql(keys.address, "DELETE FROM key_digests")
    other = keys.create("other")
    wrong = good.token[:20] + other.token[20:]
    assert keys.verify("nonsense") is Code.MALFORMED
    assert keys.verify(wrong) in (Code.NOT_FOUND, Code.MALFORMED)
    assert keys.verify(revoked.token) is Code.REVOKED
    assert keys.verify(expired.token) is Code.EXPIRED
    assert keys.verify(good.token, "mcp:write") is Code.INSUFFICIENT_SCOPE
    assert keys.verify(good.token, workspace="other") is Code.NOT_FOUND
    assert flush(keys) == 0
    assert written(keys.address) == {}


def test_a_use_before_the_revocation_stays_known_after_it(keys: Keys, clock: SettableClock) -> None:
    made = keys.create()
    keys.verify(made.token)
    keys.revoke(made.key_id)
    clock.advance(hours=1)
    assert keys.verify(made.token) is Code.REVOKED
    flush(keys)
    assert keys.show(made.key_id).last_used_at == NOON


def test_stored_uses_only_move_forward(keys: Keys) -> None:
    key_id = keys.create().key_id
    for at, expected in (
        (NOON, NOON),
        (NOON + 2 * MINUTE, NOON + 2 * MINUTE),
        (NOON + MINUTE, NOON + 2 * MINUTE),
        (NOON + 2 * MINUTE + timedelta(seconds=59), NOON + 2 * MINUTE),
        (NOON + 3 * MINUTE, NOON + 3 * MINUTE),
    ):
        uses = LastUses()
        uses.touch(1, at)
        uses.flush(keys.database)
        assert keys.show(key_id).last_used_at == expected


def test_uses_change_nothing_but_their_own_table(keys: Keys) -> None:
    made = [keys.create() for _ in range(5)]
    before = (
        view_rows(keys.address),
        rows_of(keys.address, "events"),
        rows_of(keys.address, "key_digests"),
    )
    versions = [keys.show(each.key_id).version for each in made]
    for each in made:
        keys.verify(each.token)
    assert flush(keys) == 5
    after = (
        view_rows(keys.address),
        rows_of(keys.address, "events"),
        rows_of(keys.address, "key_digests"),
    )
    assert after == before
    assert [keys.show(each.key_id).version for each in made] == versions
    sql(keys.address, "DELETE FROM last_uses")
    assert [keys.verify(each.token) for each in made] == [Code.VALID] * 5


def test_a_rebuild_leaves_uses_alone_and_a_check_does_not_miss_them(keys: Keys) -> None:
    made = keys.create()
    keys.verify(made.token)
    flush(keys)
    before = keys.show(made.key_id), rows_of(keys.address, "last_uses")
    for view in VIEWS:
        assert check(keys.database, view).differing == 0
        assert rebuild(keys.database, view, clock=lambda: NOON).differing == 0
    assert (keys.show(made.key_id), rows_of(keys.address, "last_uses")) == before
    assert before[0].last_used_at == NOON


@pytest.mark.only_on("sqlite")
def test_a_flush_evicts_no_key_from_the_cache(
    keys: Keys, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [keys.create() for _ in range(3)]
    found: list[str] = []
    find = auth_lookup.find_in_sqlite

    def noting(read: Callable[..., object], lookup_id: str, *rest: object) -> object:
        found.append(lookup_id)
        return find(read, lookup_id, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(auth_lookup, "find_in_sqlite", noting)
    with keys_in(data_dir) as others:
        for each in made:
            assert keys.verify(each.token) is others.verify(each.token) is Code.VALID
        assert len(found) == 6
        assert flush(keys) == 3
        for each in made:
            assert keys.verify(each.token) is others.verify(each.token) is Code.VALID
    assert len(found) == 6


@pytest.mark.only_on("sqlite")
def test_nothing_is_written_without_new_events(keys: Keys) -> None:
    made = keys.create()
    for _ in range(2):
        keys.verify(made.token)
        flush(keys)
    wal = keys.path.with_name(f"{keys.path.name}-wal")
    before = wal.read_bytes()
    keys.verify(made.token)
    assert flush(keys) == 1, "the same minute"
    assert wal.read_bytes() == before


def test_a_flush_that_fails_keeps_what_it_had_to_write(keys: Keys, clock: SettableClock) -> None:
    first, second, third = (keys.create() for _ in range(3))
    keys.verify(first.token)
    keys.verify(second.token)
    sql(keys.address, "ALTER TABLE last_uses RENAME TO away")
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            flush(keys)
    clock.advance(minutes=1)
    assert keys.verify(second.token) is keys.verify(third.token) is Code.VALID
    sql(keys.address, "ALTER TABLE away RENAME TO last_uses")
    assert flush(keys) == 3
    assert written(keys.address) == {
        first.key_id: to_text(NOON),
        second.key_id: to_text(NOON + MINUTE),
        third.key_id: to_text(NOON + MINUTE),
    }


def test_a_use_recorded_during_a_failed_flush_wins(keys: Keys) -> None:
    uses = LastUses()
    uses.touch(7, NOON)

    class Failing:
        def write(self) -> None:
            uses.touch(7, NOON + MINUTE)
            raise LedgerUnavailable("not now")

    with pytest.raises(LedgerUnavailable):
        uses.flush(Failing())  # type: ignore[arg-type]
    uses.flush(keys.database)
    assert stored(keys.address) == {7: to_text(NOON + MINUTE)}


def test_written_batches_are_done_and_the_others_are_kept(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projections.store.last_uses, "_AT_ONCE", 2)
    uses = LastUses()
    for position in range(1, 7):
        uses.touch(position, NOON)
    stop_at(keys.address, "INSERT", "last_uses", when="NEW.position = 4")
    with pytest.raises(LedgerUnavailable):
        uses.flush(keys.database)
    assert sorted(stored(keys.address)) == [1, 2]
    go_on(keys.address, "last_uses")
    assert uses.flush(keys.database) == 4
    assert sorted(stored(keys.address)) == [1, 2, 3, 4, 5, 6]


def test_no_use_is_lost_between_threads_and_flushes(keys: Keys) -> None:
    uses, stopped = LastUses(), Event()
    positions = range(1, 51)

    def use(thread: int) -> dict[int, str]:
        at = NOON
        while not stopped.is_set():
            at += MINUTE
            for position in positions[thread::4]:
                uses.touch(position, at)
        return dict.fromkeys(positions[thread::4], to_text(at))

    with ThreadPoolExecutor(4) as pool:
        using = [pool.submit(use, thread) for thread in range(4)]
        flushed = 0
        while flushed < 5 * len(positions):
            flushed += uses.flush(keys.database)
        stopped.set()
        last = {position: at for each in using for position, at in each.result().items()}
    uses.flush(keys.database)
    assert stored(keys.address) == last


def use_and_flush(data_dir: Path, tokens: list[str], seed: int, barrier: Barrier) -> datetime:
    """Verify all tokens, again and again at random times; return the latest."""
    chance, latest = random.Random(seed), NOON
    clock = SettableClock()
    with keys_in(data_dir, clock=clock) as keys:
        barrier.wait(30)
        for _ in range(20):
            clock.now = NOON + chance.randint(0, 10_000) * MINUTE
            latest = max(latest, clock.now)
            chance.shuffle(tokens)
            for token in tokens:
                assert keys.verify(token) is Code.VALID
            flush(keys)
    return latest


def test_processes_that_flush_at_once_agree_on_the_latest_use(data_dir: Path) -> None:
    with keys_in(data_dir) as keys:
        made = [keys.create() for _ in range(30)]
        tokens, number = [each.token for each in made], 3
        barrier = CONTEXT.Barrier(number)
        running = [start(use_and_flush, data_dir, tokens, seed, barrier) for seed in range(number)]
        latest = NOON
        for each in running:
            with each:
                latest = max(latest, each.result())
        assert written(keys.address) == {each.key_id: to_text(latest) for each in made}
        assert differing_rows(keys) == {}


def use_and_die(data_dir: Path, written_token: str, lost_token: str) -> None:
    with keys_in(data_dir) as keys:
        keys.verify(written_token)
        flush(keys)
        keys.verify(lost_token)
        keys.create("made before the end")
        die()


def test_a_kill_loses_what_was_not_flushed_and_nothing_else(data_dir: Path) -> None:
    with keys_in(data_dir) as keys:
        first, second = keys.create("first"), keys.create("second")
    assert run_until_killed(use_and_die, data_dir, first.token, second.token)
    with keys_in(data_dir) as keys:
        assert written(keys.address) == {first.key_id: to_text(NOON)}
        assert [key.name for key in listed(keys)] == ["made before the end", "second", "first"]
        assert keys.verify(first.token) is keys.verify(second.token) is Code.VALID
        assert differing_rows(keys) == {}


def test_last_uses_are_unknown_in_the_past(keys: Keys, clock: SettableClock) -> None:
    made = keys.create()
    keys.verify(made.token)
    flush(keys)
    clock.advance(hours=1)
    with keys.database.read() as connection:
        shown = show_key_at(connection, "default", made.key_id, at=clock.now)
        (first,) = list_keys_at(connection, "default", Filters(), at=clock.now, limit=10)
    assert shown.last_used_at is first.last_used_at is None


@pytest.mark.only_on("sqlite")
def test_a_database_without_last_uses_is_migrated_and_records_them(
    data_dir: Path,
) -> None:
    data_dir.mkdir()
    database_file(data_dir).write_bytes(OLD_DATABASE.read_bytes())
    assert sql(address_of(data_dir), "SELECT version_num FROM alembic_version") == [("0001",)]
    events = rows_of(address_of(data_dir), "events")
    sign_all_events(database_file(data_dir), data_dir)
    with keys_in(data_dir, now=NOON + 10_000 * HOUR) as keys:
        assert sql(address_of(data_dir), "SELECT version_num FROM alembic_version") == [(HEAD,)]
        assert written(keys.address) == {}
        assert {key.last_used_at for key in listed(keys)} == {None}
        assert listed(keys, Filters(never_used=True)) == listed(keys)
        made = keys.create()
        keys.verify(made.token)
        flush(keys)
        assert keys.show(made.key_id).last_used_at == NOON + 10_000 * HOUR
    *sealed, _new = rows_of(address_of(data_dir), "events")
    assert [event[:-1] for event in sealed] == events
