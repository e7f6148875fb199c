"""What the tests of this room share."""

import pytest

from api.composition import OpenLedger
from tests.projections.ledgers import Keys


@pytest.fixture
def keys(opened: OpenLedger) -> Keys:
    return Keys(opened)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make replays take a few events at a time, so that a small ledger needs several batches."""
    size = 4
    monkeypatch.setattr("projections.shadow.BATCH", size)
    monkeypatch.setattr("projections.rebuild.BATCH", size)
    return size
