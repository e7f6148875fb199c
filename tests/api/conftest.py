"""Fixtures of the HTTP tests: an app on a new ledger with a root key."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.settings import Settings
from tests.api.served import Api, NewLedger, served
from tests.conftest import SettableClock
from tests.engines import Engine, settings_of
from tests.system.processes import Servers, servers_in

HOUR = 3600


@pytest.fixture(scope="session")
def new_ledger(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> NewLedger:
    folder = tmp_path_factory.mktemp("new-ledger") / "keyledger-data"
    return NewLedger.made_in(engine.new_place(folder))


@pytest.fixture
def served_settings(
    new_ledger: NewLedger, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings of a new ledger whose expirer runs once and then not again in the test."""
    for name in ("KEYLEDGER_DATA_DIR", "KEYLEDGER_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return settings_of(new_ledger.copied_to(data_dir), expirer_seconds=HOUR)


@pytest.fixture
def api(served_settings: Settings, new_ledger: NewLedger, clock: SettableClock) -> Iterator[Api]:
    with served(served_settings, new_ledger.root, clock) as api:
        yield api


@pytest.fixture(scope="module")
def shared_api(new_ledger: NewLedger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An app shared by tests that do not set its clock; their keys stay until the end."""
    folder = new_ledger.copied_to(tmp_path_factory.mktemp("shared") / "keyledger-data")
    settings = settings_of(folder, expirer_seconds=HOUR)
    with served(settings, new_ledger.root, SettableClock()) as api:
        yield api


@pytest.fixture
def servers(data_dir: Path) -> Iterator[Servers]:
    """A way to start real servers; those that still run at the end are killed."""
    with servers_in(data_dir.parent) as servers:
        assert servers.data_dir == data_dir
        yield servers
