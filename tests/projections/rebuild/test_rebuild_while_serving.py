"""A rebuild while others append and verify: no read fails, and none is stale."""

import random
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import pytest

from domain.verdict import Code
from projections.queries.filters import Filters
from projections.queries.keys_now import list_keys
from projections.rebuild.rebuild import check, rebuild
from projections.views.registry import VIEWS
from tests.conftest import NOON
from tests.projections.ledgers import Keys, Made, keys_in, use_batches_of
from tests.projections.processes import CONTEXT, Running, start
from tests.raw_sql import count_events, tables_of, view_rows

ROUNDS = 30
"""How often each of the others does its work at least."""


def rounds_until_told(pipe: Pipe, work: Callable[[int], None]) -> int:
    """Work until told to stop; say when enough has been done."""
    number = 0
    while not pipe.poll():
        work(number)
        number += 1
        if number == ROUNDS:
            pipe.send("enough")
    return number


def append_and_verify(data_dir: Path, pipe: Pipe) -> int:
    """Give each key a life, and see at each step that it is what was acknowledged."""
    chance = random.Random(1)
    revoked: list[str] = []
    live: list[Made] = []
    with keys_in(data_dir) as keys:

        def work(number: int) -> None:
            made = keys.create(f"{number}")
            assert keys.verify(made.token, "mcp:read") is Code.VALID
            keys.rename(made.key_id, f"{number} renamed")
            assert keys.show(made.key_id).name == f"{number} renamed"
            successor = keys.rotate(made.key_id)
            assert keys.verify(made.token) is Code.EXPIRED
            keys.revoke(made.key_id)
            assert keys.verify(made.token) is Code.REVOKED
            assert keys.show(made.key_id).status == "revoked"
            assert keys.verify(successor.token, "mcp:read") is Code.VALID
            revoked.append(made.token)
            live.append(successor)
            assert keys.verify(chance.choice(revoked)) is Code.REVOKED
            assert keys.verify(chance.choice(live).token) is Code.VALID

        return rounds_until_told(pipe, work)


def verify_and_list(data_dir: Path, pipe: Pipe, revoked: list[str], live: list[str]) -> int:
    """Ask the same things again and again, of a ledger that is opened anew now and then."""
    with ExitStack() as stack:
        opened: list[Keys] = []

        def work(number: int) -> None:
            if number % 10 == 0:
                stack.close()
                opened[:] = [stack.enter_context(keys_in(data_dir))]
            (keys,) = opened
            assert {keys.verify(token) for token in revoked} == {Code.REVOKED}
            assert {keys.verify(token) for token in live} == {Code.VALID}
            with keys.database.read() as connection:
                page = list_keys(
                    connection, "still", Filters(), now=NOON, limit=len(revoked) + len(live) + 1
                )
            assert [key.status for key in page] == ["active"] * len(live) + ["revoked"] * len(
                revoked
            )

        return rounds_until_told(pipe, work)


@pytest.mark.timeout(170)
def test_rebuilding_views_is_invisible_to_clients(data_dir: Path) -> None:
    with keys_in(data_dir) as keys, ExitStack() as stack:
        revoked = [keys.create(workspace="still") for _ in range(5)]
        for made in revoked:
            keys.revoke(made.key_id, workspace="still")
        live = [keys.create(workspace="still") for _ in range(5)]
        pipes: list[Pipe] = []

        def others(function: Callable[..., int], *args: object) -> Running:
            ours, theirs = CONTEXT.Pipe()
            pipes.append(ours)
            return stack.enter_context(start(function, data_dir, theirs, *args))

        running = [
            others(append_and_verify),
            others(append_and_verify),
            others(verify_and_list, *([each.token for each in some] for some in (revoked, live))),
        ]
        use_batches_of(200)
        stack.callback(use_batches_of, 10_000)
        rebuilds = 0
        while rebuilds < 3 or not all(pipe.poll() for pipe in pipes):
            for other in running:
                assert other.process.is_alive(), other.result()
            for view in VIEWS:
                assert check(keys.database, view).differing == 0
                assert rebuild(keys.database, view, clock=lambda: NOON).differing == 0
            rebuilds += 1
        for pipe in pipes:
            pipe.send("stop")
        rounds = [other.result() for other in running]
        assert min(rounds) >= ROUNDS

        rows = view_rows(keys.address)
        for view in VIEWS:
            report = rebuild(keys.database, view, clock=lambda: NOON)
            assert (report.events, report.differing) == (count_events(keys.address), 0)
        assert view_rows(keys.address) == rows
        assert "key_list_previous" not in tables_of(keys.address)
