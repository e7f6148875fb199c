"""What the tests of this room share."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.composition import OpenLedger, opened_ledger
from domain.verifiers import CHEAPEST
from tests.conftest import SettableClock
from tests.engines import Engine, fresh_copy, settings_of
from tests.projections.ledgers import Keys, keys_in


@pytest.fixture(scope="session")
def empty_ledger(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ledger with nothing in it, to be copied, which is quicker than making it."""
    data_dir = engine.new_place(tmp_path_factory.mktemp("empty") / "keyledger-data")
    with keys_in(data_dir):
        pass
    return data_dir


@pytest.fixture
def opened(empty_ledger: Path, data_dir: Path, clock: SettableClock) -> Iterator[OpenLedger]:
    """The same as in every room, and made more quickly: most tests of this one need a ledger."""
    fresh_copy(empty_ledger, data_dir)
    with opened_ledger(
        settings_of(data_dir),
        clock=clock,
        random=random.Random(7).randbytes,
        argon2_profile=CHEAPEST,
    ) as ledger:
        yield ledger


@pytest.fixture
def keys(opened: OpenLedger) -> Keys:
    return Keys(opened)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make replays take a few events at a time, so that a small ledger needs several batches."""
    size = 4
    monkeypatch.setattr("projections.rebuild.shadow_table.BATCH", size)
    monkeypatch.setattr("projections.rebuild.shadow_table.KEYS", 2)
    monkeypatch.setattr("projections.rebuild.rebuild.BATCH", size)
    return size
