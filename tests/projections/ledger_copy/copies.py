"""Ledgers to copy, ways to copy them, and what to compare."""

import random
import shutil
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

from sqlalchemy import insert

import projections.ledger_copy.copy
from domain.verdict import Code
from projections.ledger_copy.copy import CopyReport, copy_ledger
from projections.rebuild.rebuild import Progress, ignore_progress
from projections.store.database import open_database
from projections.store.schema import console_sessions
from projections.views.registry import VIEWS
from tests.conftest import NOON, SettableClock
from tests.engines import address_of, sealed_database
from tests.projections.histories import VERBS, History, Step
from tests.projections.ledgers import keys_in, use_batches_of
from tests.raw_sql import Rows, rows_of

TABLES = ("events", "key_digests", "last_uses", "checkpoints", *(view.name for view in VIEWS))
"""Tables that are the same in a copy."""

_FILES = ("pepper", "signing-key", "checkpoints.txt")


def live_in(data_dir: Path, commands: int) -> dict[str, Code]:
    """Create a history, checkpoints, uses and a console session in a ledger.

    Returns:
        The verdict for each of its tokens at noon.
    """
    chance = random.Random(commands)
    clock = SettableClock()
    with keys_in(data_dir, clock=clock) as keys:
        history = History(keys, clock, [])
        for _ in range(2):
            history.take(Step("create"))
            for _ in range(commands // 2):
                history.play(
                    [Step(chance.choice(VERBS), chance.randrange(21), chance.randrange(21))]
                )
            keys.opened.signer.sign()
    with keys_in(data_dir) as keys:
        tokens = {made.token: keys.verify(made.token) for made, _ in history.made}
        keys.opened.last_uses.flush(keys.database)
        with keys.database.write() as connection:
            connection.execute(
                insert(console_sessions).values(
                    value_sha256=bytes(32),
                    key_id=history.made[0][0].key_id,
                    lookup_id="0" * 16,
                    created_at="2026-03-03T12:00:00.000000Z",
                    expires_at="2026-03-03T20:00:00.000000Z",
                    used_at="2026-03-03T12:00:00.000000Z",
                )
            )
    return tokens


def copy(source: Path, target: Path, *, progress: Progress = ignore_progress) -> CopyReport:
    """Copy the ledger of a folder to the database of another one."""
    with (
        closing(open_database(address_of(source))) as ours,
        closing(sealed_database(source, address_of(target))) as theirs,
    ):
        return copy_ledger(ours, theirs, clock=lambda: NOON, progress=progress)


def move_in(source: Path, target: Path) -> None:
    """Copy the files beside the database, as if the folder were the same."""
    target.mkdir(exist_ok=True)
    for name in _FILES:
        shutil.copy(source / name, target / name)


def copy_in_batches_of(events: int, source: Path, target: Path) -> CopyReport:
    """Copy in small batches, in a separate process."""
    projections.ledger_copy.copy.AT_ONCE = events
    use_batches_of(events)
    return copy(source, target)


def content_of(data_dir: Path) -> dict[str, Rows]:
    """Return all rows of the tables that are the same in a copy."""
    return {table: rows_of(address_of(data_dir), table) for table in TABLES}


def at_call(number: int, of: str, act: Callable[[], object]) -> Progress:
    """Call a function when a copy reports a step for the n-th time."""
    calls = count(1)

    def progress(what: str, _done: int, _last: int) -> None:
        if what == of and next(calls) == number:
            act()

    return progress
