"""Log lines show neither tokens nor the values of variables, in each form and in each process."""

import logging
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import structlog

from api.logs import configure_logs, log_to_stderr
from tests.conftest import log_as_tests_do

TOKEN = "key_iD37ikqgstwRH6Gb" + "a" * 43 + "0IXYZ1"


@pytest.fixture
def _logs_restored() -> Iterator[None]:
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    yield
    log_as_tests_do()
    logging.getLogger().handlers = handlers
    logging.getLogger().setLevel(level)


@pytest.mark.usefixtures("_logs_restored")
@pytest.mark.parametrize(
    "configure",
    [
        pytest.param(log_to_stderr, id="command"),
        pytest.param(partial(configure_logs, "info", "text"), id="server, text"),
        pytest.param(partial(configure_logs, "info", "json"), id="server, JSON"),
    ],
)
def test_a_traceback_shows_no_variable_and_no_token(
    configure: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(secret: str) -> None:
        message = f"{TOKEN} is not {len(secret)} characters long"
        raise ValueError(message)

    configure()
    try:
        fail("nobody knows"[::-1])
    except ValueError:
        structlog.get_logger().exception("it failed")
    written = capsys.readouterr().err
    assert "ValueError" in written
    assert "Traceback" in written
    assert "nobody knows"[::-1] not in written
    assert TOKEN[20:63] not in written
