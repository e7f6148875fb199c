"""What tests of every room use: a clock to be set, and a real ledger on each engine."""

import logging
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis
import pytest
import structlog

from api.composition import OpenLedger, opened_ledger
from api.settings import Settings
from domain.caller import Actor, Caller
from domain.verifiers import CHEAPEST
from tests import markers, slowest
from tests.engines import POSTGRESQL, SQLITE, Engine, engine_called, settings_of
from tests.postgresql import initdb
from tests.programs import needs

# A shell that starts the tests in the background lets them ignore SIGINT, and so would each process
# be that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder to make temporary folders in
ROOM_WANTED = 4 << 30
"""Bytes free, of which the tests use a part."""

ENGINES = [
    pytest.param(SQLITE, id=SQLITE),
    pytest.param(POSTGRESQL, id=POSTGRESQL, marks=needs(initdb(), "postgresql")),
]

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


def pytest_configure(config: pytest.Config) -> None:
    """Keep what the tests write in memory where there is room: thousands of databases are made."""
    for name, description in markers.DESCRIPTIONS.items():
        config.addinivalue_line("markers", f"{name}: {description} (set by tests/markers.py)")
    hypothesis.settings.register_profile("developer", max_examples=25, deadline=None)
    hypothesis.settings.register_profile("ci", max_examples=100, deadline=None)
    hypothesis.settings.load_profile("ci" if "CI" in os.environ else "developer")
    log_as_tests_do()
    chosen = "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK)
    if not chosen and shutil.disk_usage(MEMORY).free >= ROOM_WANTED:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


def log_as_tests_do() -> None:
    """Write log lines to standard output, with tracebacks that take no time to lay out."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=False,
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that has to do with storage on every engine."""
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", ENGINES, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is marked as another engine's: a test, or one of its parameters."""
    items[:] = [item for item in items if _is_about_its_engine(item)]
    for item in items:
        markers.mark(item)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    slowest.count(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    slowest.show(terminalreporter)


def pytest_runtest_setup(item: pytest.Item) -> None:
    markers.forbid_processes(item)


def _is_about_its_engine(item: pytest.Item) -> bool:
    only = item.get_closest_marker("only_on")
    called = item.callspec.params.get("engine") if hasattr(item, "callspec") else None
    return only is None or called is None or called in only.args


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """What keeps the ledgers of a test."""
    with engine_called(request.param) as engine:
        yield engine


@pytest.fixture(autouse=True)
def _databases_end_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    # What fixtures of a wider scope make is there before this one, and stays.
    if "engine" not in request.fixturenames:
        yield
        return
    engine: Engine = request.getfixturevalue("engine")
    with engine.tidied():
        yield


@pytest.fixture
def data_dir(engine: Engine, tmp_path: Path) -> Path:
    """The folder of a ledger that is not there yet."""
    return engine.new_place(tmp_path / "keyledger-data")


@pytest.fixture
def settings(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("KEYLEDGER_DATA_DIR", "KEYLEDGER_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return settings_of(data_dir)


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
