"""What tests of every room use: a clock to be set, and a real ledger on a real SQLite file."""

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.composition import OpenLedger, opened_ledger
from api.settings import Settings, read_settings
from domain.caller import Actor, Caller
from domain.verifiers import CHEAPEST

# A shell that starts the tests in the background lets them ignore SIGINT, and so would each process
# be that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)


@dataclass
class SettableClock:
    """A clock that stands still until it is told to go on."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "keyledger-data"


@pytest.fixture
def settings(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("KEYLEDGER_DATA_DIR", raising=False)
    return read_settings(data_dir=data_dir)


@pytest.fixture
def opened(settings: Settings, clock: SettableClock) -> Iterator[OpenLedger]:
    """A ledger with cheap verifiers, repeatable secrets and a clock to be set."""
    with opened_ledger(
        settings, clock=clock, random=random.Random(7).randbytes, argon2_profile=CHEAPEST
    ) as ledger:
        yield ledger


@pytest.fixture
def admin() -> Caller:
    """Somebody at the command line, who may grant anything."""
    return Caller(Actor("cli", "ada"), holds=("*",))
