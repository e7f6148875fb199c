"""A cached key is never used after a change was committed, at whatever step the change falls.

The cache is filled in steps: the freshness check, the reading of new events, the reading of a row.
Here a change is committed before, between and after all of those steps, one after the other, and
the next verification must take it into account.
"""

import gc
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import combinations
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest
from sqlalchemy import select, update

from domain.errors import LedgerUnavailable
from domain.key_ledger import Changes
from domain.pepper import Pepper
from domain.tokens import Token, mint
from domain.verdict import Code
from domain.verifiers import CHEAPEST, Argon2Gate
from projections.auth.authentication import Authentication
from projections.auth.cache import CachedKey
from projections.auth.freshness import open_freshness_check
from projections.rebuild.rebuild import rebuild
from projections.store.sqlite_driver import driver as sqlite3
from projections.views import auth_lookup
from projections.views.registry import view_named
from tests.conftest import SettableClock
from tests.projections.ledgers import Keys, Made, keys_in
from tests.projections.processes import CONTEXT, start
from tests.raw_sql import count_events, sql

Change = Callable[[Keys, Made], object]


class Answer(list[tuple[Any, ...]]):
    """What a statement was answered, read from the database already."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        return self[0] if self else None


class WatchedConnection:
    """The connection of a freshness check; notes which rows are read, and can act at any step."""

    def __init__(self, check: Any) -> None:  # noqa: ANN401 - of either engine
        self.steps = 0
        self.happens_at = -1
        self.looked_up: list[str] = []
        self.happens: Callable[[], object] = list
        self._real, check._connection = check._connection, self  # noqa: SLF001 - there is no other way in between

    def execute(self, statement: str, values: Sequence[object] = (), **options: object) -> Answer:
        self._step()
        answer = Answer(self._real.execute(statement, values, **options).fetchall())
        if "FROM auth_lookup" in statement:
            self.looked_up.append(str(values[1]))
        self._step()
        return answer

    def close(self) -> None:
        self._real.close()

    def let_happen(self, what: Callable[[], object], *, at: int) -> None:
        """Let something happen at a step from now, which is step 0."""
        self.steps, self.happens_at, self.happens = 0, at, what

    def _step(self) -> None:
        if self.steps == self.happens_at:
            self.happens()
        self.steps += 1


@dataclass(frozen=True)
class Checker:
    """An authentication with a watched connection."""

    keys: Keys
    connection: WatchedConnection
    authentication: Authentication

    def check(self, made: Made) -> Code:
        answer = self.authentication.verify(made.token, ["mcp:read"], now=self.keys.now)
        return answer.verdict.code

    def is_refused(self, made: Made) -> bool:
        """Tell whether a check is refused since the database lacks what was seen of it."""
        try:
            self.check(made)
        except LedgerUnavailable as error:
            assert "has seen the event at position" in str(error)  # noqa: PT017 - any number of times
            return True
        return False

    def reads(self, *keys: Made) -> list[Made]:
        """Check keys in turn; return those whose rows were not in memory."""
        read = []
        for made in keys:
            before = len(self.connection.looked_up)
            assert self.check(made) is Code.VALID
            if len(self.connection.looked_up) > before:
                read.append(made)
        return read


MakeChecker = Callable[..., Checker]


@pytest.fixture
def checker_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeChecker]:
    with ExitStack() as at_the_end:

        def make(keys: Keys, *, cache_size: int = 100) -> Checker:
            check = open_freshness_check(keys.database)
            watched = WatchedConnection(check)
            at_the_end.callback(check.close)
            gate = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)
            pepper = Pepper((keys.data_dir / "pepper").read_bytes())
            with monkeypatch.context() as patched:
                # Only here: another ledger that is opened later has a check of its own.
                patched.setattr(
                    "projections.auth.authentication.open_freshness_check", lambda _database: check
                )
                authentication = Authentication(keys.database, gate, pepper, cache_size=cache_size)
            return Checker(keys, watched, authentication)

        yield make


def set_max_new_events(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    for module in ("new_events", "freshness_sqlite"):
        monkeypatch.setattr(f"projections.auth.{module}.MAX_NEW_EVENTS", most)


def revoke(keys: Keys, made: Made) -> None:
    keys.revoke(made.key_id)


def rotate(keys: Keys, made: Made) -> None:
    keys.rotate(made.key_id)


def narrow(keys: Keys, made: Made) -> None:
    keys.update(made.key_id, Changes(scopes=["a:b"]))


def end_soon(keys: Keys, made: Made) -> None:
    keys.update(made.key_id, Changes(expires_at=keys.now + timedelta(microseconds=1)))


def heal(keys: Keys, _made: Made) -> None:
    """Rebuild a table in which somebody had planted a row with more scopes."""
    rebuild(keys.database, view_named("auth_lookup"), clock=keys.opened.clock)


def restore(keys: Keys, made: Made) -> None:
    """Put an older ledger in this one's place; another process appends as many events to it."""
    if keys.database.is_a_file:
        restore_from(older_copy(keys), keys.path)
    else:
        take_the_last_event_back(keys)
    with keys_in(keys.data_dir) as other:
        other.revoke(made.key_id)


def take_the_last_event_back(keys: Keys) -> None:
    """Let the next event of a server's ledger have the position of what was its last one."""
    ((last,),) = sql(keys.address, "SELECT max(id) FROM events")
    its_version = "SELECT originator_version FROM events WHERE id = ?"
    sql(
        keys.address,
        f"DELETE FROM key_versions WHERE version = ({its_version}) AND position ="  # noqa: S608 - all from here
        " (SELECT one.id FROM events one JOIN events other USING (originator_id)"
        " WHERE one.originator_version = 1 AND other.id = ?)",
        last,
        last,
    )
    sql(keys.address, "DELETE FROM entries WHERE position = ?", last)
    sql(keys.address, "DELETE FROM events WHERE id = ?", last)
    sql(keys.address, "SELECT setval(pg_get_serial_sequence('events', 'id'), ?)", last - 1)


CHANGES: dict[Change, Code] = {
    revoke: Code.REVOKED,
    rotate: Code.EXPIRED,
    narrow: Code.INSUFFICIENT_SCOPE,
    end_soon: Code.EXPIRED,
    heal: Code.INSUFFICIENT_SCOPE,
}


def older_copy(keys: Keys) -> Path:
    return keys.path.with_suffix(".older")


def restore_from(copy: Path, to: Path) -> None:
    """Restore as operators do with SQLite's own online backup."""
    with closing(sqlite3.connect(copy)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def plant_scopes(keys: Keys, made: Made) -> None:
    """Give a row other scopes and a correct seal, which needs the pepper."""
    table = auth_lookup.table
    mine = table.c.key_id == made.key_id
    with keys.database.write() as connection:
        row = dict(connection.execute(select(table).where(mine)).mappings().one())
        del row["seal"]
        row["scopes"] = '["mcp:read"]'
        seal = keys.database.seals.auth_row(row.values())
        connection.execute(update(table).where(mine).values(scopes=row["scopes"], seal=seal))


def prepare(keys: Keys, change: Change) -> tuple[Made, Made]:
    """Make the key that is checked and another, ready for the change."""
    made, other = keys.create(), keys.create("other")
    if change is restore:
        if keys.database.is_a_file:
            restore_from(keys.path, older_copy(keys))
        keys.rename(other.key_id, "what the older ledger does not know")
    if change is heal:
        narrow(keys, made)
        plant_scopes(keys, made)
    return made, other


def nothing(_keys: Keys, _checker: Checker, _made: Made, _other: Made) -> None:
    """The key was never verified: its row is read and cached."""


def checked_before(_keys: Keys, checker: Checker, made: Made, _other: Made) -> None:
    """The key is in memory, and nothing has happened since."""
    assert checker.check(made) is Code.VALID


def news_of_another(keys: Keys, checker: Checker, made: Made, other: Made) -> None:
    """Both keys are in memory, and there is news of the other."""
    checked_before(keys, checker, made, other)
    assert checker.check(other) is Code.VALID
    keys.rename(other.key_id, "news")


def news_of_itself(keys: Keys, checker: Checker, made: Made, other: Made) -> None:
    """The key is in memory, and there is harmless news of it."""
    checked_before(keys, checker, made, other)
    keys.rename(made.key_id, "news")


def more_news_than_looked_at(keys: Keys, checker: Checker, made: Made, other: Made) -> None:
    checked_before(keys, checker, made, other)
    for number in range(12):
        keys.rename(other.key_id, f"{number}")


Memory = Callable[[Keys, Checker, Made, Made], None]
MEMORIES: list[Memory] = [
    nothing,
    checked_before,
    news_of_another,
    news_of_itself,
    more_news_than_looked_at,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_verification_after_a_change_sees_it_at_every_step(
    data_dir: Path,
    checker_of: MakeChecker,
    monkeypatch: pytest.MonkeyPatch,
    change: Change,
    memory: Memory,
) -> None:
    """The change is committed at each step of a check in turn; the loop ends when it fell after."""
    set_max_new_events(monkeypatch, 10)
    clock = SettableClock()
    fell_between = 0
    at = 0
    with keys_in(data_dir, clock=clock) as keys:
        while True:
            made, other = prepare(keys, change)
            checker = checker_of(keys)
            memory(keys, checker, made, other)
            checker.connection.let_happen(partial(change, keys, made), at=at)
            checker.check(made)
            if checker.connection.steps <= at:
                break
            fell_between += 1
            clock.advance(seconds=1)
            refused = checker.check(made)
            assert refused is CHANGES[change], f"step {at} of {checker.connection.steps}"
            assert checker.check(made) is refused
            at += 1
        # The check alone is two steps. A row to be read adds steps, and so do new events where they
        # come in another answer.
        least = 2 if memory is checked_before or not keys.database.is_a_file else 4
    assert fell_between >= least


@pytest.mark.parametrize("memory", [nothing, news_of_another, more_news_than_looked_at])
def test_an_older_ledger_is_refused_whenever_it_replaces_the_newer_one(
    data_dir: Path, checker_of: MakeChecker, monkeypatch: pytest.MonkeyPatch, memory: Memory
) -> None:
    """It takes the place of the newer one at each step of a check; the loop ends after the last."""
    set_max_new_events(monkeypatch, 10)
    at = 0
    fell_between = True
    while fell_between:
        # Each time a new process, which knows nothing of the time before.
        with keys_in(data_dir) as keys:
            made, other = prepare(keys, restore)
            checker = checker_of(keys)
            memory(keys, checker, made, other)
            checker.connection.let_happen(partial(restore, keys, made), at=at)
            checker.is_refused(made)
            fell_between = checker.connection.steps > at
            checker.connection.happens_at = -1
            if fell_between:
                assert checker.is_refused(made), f"step {at}"
                assert checker.is_refused(other)
                with pytest.raises(LedgerUnavailable):
                    keys.create("nothing is appended to it either")
            at += 1
    assert at > 2


@pytest.mark.parametrize("memory", [nothing, news_of_another, news_of_itself])
def test_two_changes_during_one_verification_are_both_seen_after_it(
    keys: Keys, checker_of: MakeChecker, memory: Memory
) -> None:
    """Another key's change, at one step, is found by the check; the key's own comes at a later."""
    both = 0
    for first, second in combinations(range(10), 2):
        made, other = keys.create(), keys.create("other")
        checker = checker_of(keys)
        memory(keys, checker, made, other)
        watched = checker.connection

        def revoke_the_other(
            watched: WatchedConnection = watched,
            made: Made = made,
            other: Made = other,
            at: int = second,
        ) -> None:
            keys.revoke(other.key_id)
            watched.happens_at, watched.happens = at, lambda: keys.revoke(made.key_id)

        watched.let_happen(revoke_the_other, at=first)
        checker.check(made)
        done, watched.happens_at = watched.steps, -1
        if done > second:
            both += 1
            assert checker.check(made) is Code.REVOKED
            assert checker.check(other) is Code.REVOKED
    assert both >= (6 if keys.database.is_a_file else 1)


def revoke_when_told(data_dir: Path, pipe: Pipe) -> None:
    with keys_in(data_dir) as keys:
        while key_id := pipe.recv():
            keys.revoke(key_id)
            pipe.send("done")


def test_a_row_that_another_process_revokes_during_the_reading_is_not_cached(
    keys: Keys, checker_of: MakeChecker
) -> None:
    ours, theirs = CONTEXT.Pipe()
    with start(revoke_when_told, keys.data_dir, theirs) as other:

        def tell(key_id: str) -> None:
            ours.send(key_id)
            assert ours.poll(30)
            assert ours.recv() == "done"

        for _ in range(10):
            made = keys.create()
            checker = checker_of(keys)
            checker.check(keys.create("first, so that the state of the table is known"))
            keys.rename(made.key_id, "news")
            # Two steps each: the question, the news, the state, the row; the first three are one
            # where they are in the same answer.
            steps = 8 if keys.database.is_a_file else 4
            checker.connection.let_happen(partial(tell, made.key_id), at=steps - 1)
            assert checker.check(made) is Code.VALID, "the row was read before"
            assert checker.connection.steps == steps
            assert checker.check(made) is Code.REVOKED
        ours.send("")
        other.result()


def test_an_event_evicts_only_its_own_key(keys: Keys, checker_of: MakeChecker) -> None:
    made = [keys.create(f"{number}") for number in range(6)]
    checker = checker_of(keys)
    assert checker.reads(*made) == made
    assert checker.reads(*made) == []
    keys.rename(made[2].key_id, "news")
    keys.rename(made[4].key_id, "news")
    keys.create("one more")
    assert checker.reads(*made) == [made[2], made[4]]
    sql(keys.address, "UPDATE key_digests SET digest = digest")
    assert checker.reads(*made) == [], "a commit without an event is no news of a key"
    unknown = Token("key", "0" * 16, "0" * 43).reveal()
    for _ in range(3):
        checker.authentication.verify(unknown, [], now=keys.now)
    assert checker.reads(*made) == []


def test_more_new_events_than_the_maximum_clear_the_cache(
    keys: Keys, checker_of: MakeChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_max_new_events(monkeypatch, 5)
    made = [keys.create(f"{number}") for number in range(8)]
    checker = checker_of(keys)
    for events, read_again in [(4, made[:1]), (5, made), (4, made[:1]), (12, made), (1, made[:1])]:
        checker.reads(*made)
        for number in range(events):
            keys.rename(made[0].key_id, f"{events} {number}")
        assert checker.reads(*made) == read_again
        answer = checker.authentication.verify(made[0].token, [], now=keys.now)
        assert answer.position == count_events(keys.address)


def test_a_rebuilt_table_is_read_again(keys: Keys, checker_of: MakeChecker) -> None:
    made = [keys.create(f"{number}") for number in range(4)]
    checker = checker_of(keys)
    checker.reads(*made)
    rebuild(keys.database, view_named("key_list"), clock=keys.opened.clock)
    assert checker.reads(*made) == [], "the other view's table is not read here"
    rebuild(keys.database, view_named("auth_lookup"), clock=keys.opened.clock)
    assert checker.reads(*made) == made
    assert checker.reads(*made) == []


@pytest.mark.only_on("sqlite")
def test_an_older_file_is_refused_until_the_newer_one_is_back(
    keys: Keys, checker_of: MakeChecker
) -> None:
    made = [keys.create(f"{number}") for number in range(4)]
    older, newer = older_copy(keys), keys.path.with_suffix(".newer")
    restore_from(keys.path, older)
    checker = checker_of(keys)
    for events_lost, events_since in [(2, 0), (2, 1), (2, 2), (2, 3), (1, 1)]:
        case = f"{events_lost} lost, {events_since} since"
        for number in range(events_lost):
            keys.rename(made[3].key_id, f"lost {number}")
        checker.check(made[0])
        restore_from(keys.path, newer)
        restore_from(older, keys.path)
        with keys_in(keys.data_dir) as other:
            for number in range(events_since):
                other.rename(made[3].key_id, f"since {number}")
        assert checker.is_refused(made[0]), case
        assert checker.is_refused(made[3]), case
        restore_from(newer, keys.path)
        assert [checker.check(each) for each in made] == [Code.VALID] * 4, case


@pytest.mark.parametrize("what", ["a check", "a change"])
@pytest.mark.parametrize("events", [1, 5])
def test_a_ledger_without_its_last_events_is_refused_until_they_are_back(
    keys: Keys, checker_of: MakeChecker, events: int, what: str
) -> None:
    """The process has seen them in a check, or has only made them itself."""
    made = [keys.create(f"{number}") for number in range(6)]
    checker = checker_of(keys)
    if what == "a check":
        checker.check(made[0])
    sql(keys.address, "CREATE TABLE saved AS SELECT * FROM events WHERE id > ?", 6 - events)
    sql(keys.address, "DELETE FROM events WHERE id > ?", 6 - events)
    assert checker.is_refused(made[0])
    assert checker.is_refused(made[5])
    sql(keys.address, "INSERT INTO events SELECT * FROM saved WHERE id < 6")
    assert checker.is_refused(made[0]), "the last one is still missing"
    sql(keys.address, "INSERT INTO events SELECT * FROM saved WHERE id = 6")
    assert [checker.check(each) for each in made] == [Code.VALID] * 6


def test_after_a_restart_an_older_ledger_is_read(keys: Keys, checker_of: MakeChecker) -> None:
    """Changes to it are refused, by the checkpoints outside, which is another check."""
    made = [keys.create(f"{number}") for number in range(2)]
    checker = checker_of(keys)
    sql(keys.address, "DELETE FROM events WHERE id > 1")
    assert checker.is_refused(made[0])
    with keys_in(keys.data_dir) as restarted:
        assert checker_of(restarted).check(made[0]) is Code.VALID


def test_memory_is_bounded_and_keeps_what_was_used_last(
    keys: Keys, checker_of: MakeChecker
) -> None:
    """Compare with a model of a cache in which each use makes a key the newest."""
    most = 4
    elsewhere = rows_in_memory()
    made = [keys.create(f"{number}") for number in range(12)]
    checker = checker_of(keys, cache_size=most)
    chance = random.Random(5)
    model: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for turn in range(300):
        each = made[min(chance.randrange(12), chance.randrange(12))]
        if turn % 20 == 0:
            # News of keys that are in memory, and of such as were put out of it.
            keys.rename(each.key_id, f"{turn}")
            model.pop(each.key_id, None)
            each = chance.choice(made)
        remembered = each.key_id in model
        hits += remembered
        assert checker.reads(each) == ([] if remembered else [each])
        model[each.key_id] = None
        model.move_to_end(each.key_id)
        if len(model) > most:
            model.popitem(last=False)
        if turn % 50 == 0:
            assert rows_in_memory() <= elsewhere + most
    assert 50 < hits < 250


def rows_in_memory() -> int:
    gc.collect()
    return sum(isinstance(each, CachedKey) for each in gc.get_objects())


def test_a_key_in_use_stays_cached_however_many_others_come(
    keys: Keys, checker_of: MakeChecker
) -> None:
    hot, *others = (keys.create(f"{number}") for number in range(10))
    checker = checker_of(keys, cache_size=2)
    checker.reads(hot)
    for other in others:
        assert checker.reads(other, hot) == [other]


def test_an_unknown_or_wrong_token_evicts_no_key(keys: Keys, checker_of: MakeChecker) -> None:
    made = [keys.create(f"{number}") for number in range(2)]
    checker = checker_of(keys, cache_size=2)
    checker.reads(*made)
    for _ in range(10):
        checker.authentication.verify(mint("key", token_bytes).reveal(), [], now=keys.now)
    assert checker.reads(*made) == []


def close(_keys: Keys, checker: Checker) -> Callable[[], object]:
    """The connection is closed."""
    checker.connection.close()
    return list


def take_the_events_away(keys: Keys, _checker: Checker) -> Callable[[], object]:
    sql(keys.address, "ALTER TABLE events RENAME TO gone")
    return lambda: sql(keys.address, "ALTER TABLE gone RENAME TO events")


def take_the_generation_away(keys: Keys, _checker: Checker) -> Callable[[], object]:
    sql(keys.address, "ALTER TABLE projection_states RENAME TO gone")
    return lambda: sql(keys.address, "ALTER TABLE gone RENAME TO projection_states")


def write_garbage(keys: Keys, _checker: Checker) -> Callable[[], object]:
    """The disk gives back garbage where the tables were."""
    sql(keys.address, "PRAGMA wal_checkpoint(TRUNCATE)")
    whole = keys.path.read_bytes()
    sql(keys.address, "UPDATE key_digests SET digest = digest")
    sql(keys.address, "PRAGMA wal_checkpoint(TRUNCATE)")
    with keys.path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (len(whole) - 100))
    return list


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(close, marks=pytest.mark.only_on("sqlite")),  # a server's is replaced
        take_the_events_away,
        take_the_generation_away,
        pytest.param(write_garbage, marks=pytest.mark.only_on("sqlite")),
    ],
)
def test_the_cache_is_not_used_while_the_database_cannot_be_asked(
    keys: Keys,
    checker_of: MakeChecker,
    break_it: Callable[[Keys, Checker], Callable[[], object]],
) -> None:
    made = keys.create()
    checker = checker_of(keys)
    assert checker.check(made) is Code.VALID
    if break_it is not write_garbage:
        keys.revoke(made.key_id)
    mend = break_it(keys, checker)
    for _ in range(3):
        with pytest.raises(LedgerUnavailable):
            checker.check(made)
    mend()
    if break_it in (take_the_events_away, take_the_generation_away):
        assert checker.check(made) is Code.REVOKED


# A server answers all of it at once.
@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("step", range(4))
def test_a_failure_while_new_events_are_read_loses_none_of_them(
    keys: Keys, checker_of: MakeChecker, step: int
) -> None:
    """The steps are those of the news and of the state; the next check looks at them again."""
    made = keys.create()
    checker = checker_of(keys)
    assert checker.check(made) is Code.VALID
    keys.revoke(made.key_id)

    def fail() -> None:
        raise LedgerUnavailable

    checker.connection.let_happen(fail, at=2 + step)
    with pytest.raises(LedgerUnavailable):
        checker.check(made)
    checker.connection.happens_at = -1
    assert checker.check(made) is Code.REVOKED
