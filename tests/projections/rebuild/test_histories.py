"""Random histories: live rows, rebuilt rows and the aggregates agree."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.api_key import ApiKey
from domain.errors import AlreadyRotated, ConcurrentChange, KeyExpired, KeyRevoked
from domain.key_ids import to_uuid
from domain.verdict import Code
from projections.rebuild.rebuild import check, rebuild
from projections.views.registry import VIEWS
from tests.conftest import NOON, SettableClock
from tests.engines import address_of, fresh_copy
from tests.projections.histories import History, Step, steps
from tests.projections.ledgers import HOUR, Keys, keys_in, use_batches_of
from tests.projections.processes import start
from tests.raw_sql import Rows, count_events, sql, view_rows


@pytest.fixture
def any_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back the size of the batches after a test that changes it."""
    for module in ("shadow_table", "rebuild"):
        monkeypatch.setattr(f"projections.rebuild.{module}.BATCH", 1)
    monkeypatch.setattr("projections.rebuild.shadow_table.KEYS", 1)


def check_against_aggregates(keys: Keys, history: History) -> None:
    for made, workspace in history.made:
        key: ApiKey = keys.opened.ledger.repository.get(to_uuid(made.key_id))
        shown = keys.show(made.key_id, workspace=workspace)
        assert (
            key.workspace,
            key.name,
            tuple(key.scopes),
            key.expires_at,
            key.created_on,
            key.status(keys.now),
            key.rotated_from,
            key.rotated_to,
            key.version,
        ) == (
            shown.workspace,
            shown.name,
            shown.scopes,
            shown.expires_at,
            shown.created_at,
            shown.status,
            shown.rotated_from,
            shown.rotated_to,
            shown.version,
        )
        lookup = sql(
            keys.address,
            "SELECT name, revoked, expired, verifier FROM auth_lookup WHERE key_id = ?",
            made.key_id,
        )
        assert lookup == [(key.name, key.revoked, key.expired, key.verifier)]
        assert keys.verify(made.token) is CODES[key.status(keys.now)]


def rows_from_events_alone(data_dir: Path) -> dict[str, Rows]:
    """Open a ledger after it lost everything derived; return the rows that are rebuilt."""
    address = address_of(data_dir)
    for view in VIEWS:
        sql(address, f"DROP TABLE {view.name}")
    sql(address, "DELETE FROM projection_states")
    with keys_in(data_dir) as again:
        return view_rows(again.address)


CODES = {"active": Code.VALID, "revoked": Code.REVOKED, "expired": Code.EXPIRED}

# Each kind of event, a race of each kind, and a key whose whole life is in one batch.
LIVES = [Step("create", 0, 5), Step("create", 1), Step("create", 2)]


@pytest.mark.usefixtures("any_batches")
@settings(max_examples=12, deadline=None)
@given(commands=steps, batch=st.integers(1, 9))
@example(
    commands=[
        *LIVES,
        *(
            Step(verb, n, n)
            for n, verb in enumerate(
                ("rename", "narrow", "end", "rotate", "wait", "expire", "revoke", "update")
            )
        ),
    ],
    batch=3,
)
@example(commands=[*LIVES, *(Step("race", n, n) for n in range(7))], batch=2)
def test_live_rows_equal_a_replay_and_the_aggregates(
    empty_ledger: Path, commands: list[Step], batch: int
) -> None:
    with TemporaryDirectory() as folder:
        data_dir = fresh_copy(empty_ledger, Path(folder) / "data")
        clock = SettableClock(NOON)
        with keys_in(data_dir, clock=clock) as keys:
            history = History(keys, clock, [])
            history.play(commands)
            check_against_aggregates(keys, history)
            live = view_rows(keys.address)
            use_batches_of(batch)
            events = count_events(keys.address)
            for view in VIEWS:
                assert check(keys.database, view).differing == 0
                report = rebuild(keys.database, view, clock=clock)
                assert (report.events, report.differing) == (events, 0)
            assert view_rows(keys.address) == live
            check_against_aggregates(keys, history)
        assert rows_from_events_alone(data_dir) == live


def be_busy(data_dir: Path, key_ids: list[str], seed: int) -> int:
    chance = random.Random(seed)
    done = 0
    with keys_in(data_dir) as keys:
        for number in range(60):
            key_id = chance.choice(key_ids)
            try:
                match chance.randrange(6):
                    case 0:
                        keys.create(f"{seed} {number}")
                    case 1 if chance.random() < 0.3:
                        keys.revoke(key_id)
                    case 2 if chance.random() < 0.3:
                        keys.rotate(key_id, grace=HOUR)
                    case _:
                        keys.rename(key_id, f"{seed} {number}")
            except (ConcurrentChange, KeyRevoked, KeyExpired, AlreadyRotated):
                continue
            done += 1
    return done


def test_processes_that_change_the_same_keys_at_once_leave_one_truth(data_dir: Path) -> None:
    with keys_in(data_dir) as keys:
        key_ids = [keys.create(f"{number}").key_id for number in range(12)]
    running = [start(be_busy, data_dir, key_ids, seed) for seed in range(3)]
    done = []
    for each in running:
        with each:
            done.append(each.result())
    assert min(done) > 0
    with keys_in(data_dir) as keys:
        live = view_rows(keys.address)
        for view in VIEWS:
            assert rebuild(keys.database, view, clock=lambda: NOON).differing == 0
        assert view_rows(keys.address) == live


@pytest.mark.usefixtures("any_batches")
def test_a_view_s_rows_do_not_depend_on_where_batches_end(data_dir: Path) -> None:
    clock = SettableClock(NOON)
    with keys_in(data_dir, clock=clock) as keys:
        chance = random.Random(5)
        history = History(keys, clock, [])
        history.play(
            [
                Step(
                    chance.choice(
                        ["create", "rename", "narrow", "rotate", "end", "revoke", "race"]
                    ),
                    chance.randrange(20),
                    chance.randrange(20),
                )
                for _ in range(60)
            ]
        )
        live = view_rows(keys.address)
        for batch in (1, 2, 3, 5, 1000):
            use_batches_of(batch)
            for view in VIEWS:
                assert rebuild(keys.database, view, clock=clock).differing == 0
            assert view_rows(keys.address) == live
