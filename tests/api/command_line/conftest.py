"""Ways to run the command line: in this process, as a process, and at a terminal."""

import os
import pty
import signal
import subprocess
from io import RawIOBase
from pathlib import Path

import pytest

from api.command_line import run
from tests.api.command_line.commands import COMMAND, CTRL_C, Ended, Run
from tests.engines import url_to_set

QUESTION = b"[y/N] "


@pytest.fixture(autouse=True)
def _environment(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KEYLEDGER_")]:
        monkeypatch.delenv(name)
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KEYLEDGER_DATA_DIR", str(data_dir))
    url = url_to_set(data_dir)
    if url is not None:
        monkeypatch.setenv("KEYLEDGER_DATABASE_URL", url)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def keyledger(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; starting a new one would take half a second each."""

    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        code = run(arguments)
        written = capsys.readouterr()
        return Ended(code, written.out, written.err)

    return call


@pytest.fixture
def process() -> Run:
    """Run a command as a process, with its output piped."""

    def call(*arguments: str, **environment: str) -> Ended:
        ended = subprocess.run(
            [COMMAND, *arguments],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return call


@pytest.fixture
def terminal() -> Run:
    """Run a command at a terminal; ``answer`` is typed at its prompt. ``out`` is all output."""

    def call(*arguments: str, answer: str = "", columns: int = 80) -> Ended:
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "r+b", buffering=0) as screen:
            with os.fdopen(theirs) as device:
                running = subprocess.Popen(
                    [COMMAND, *arguments],
                    env=os.environ | {"COLUMNS": str(columns)},
                    stdin=device,
                    stdout=device,
                    stderr=device,
                    start_new_session=True,
                )
            shown = b""
            with running:
                while part := _read(screen):
                    shown += part
                    if not shown.endswith(QUESTION):
                        continue
                    if answer == CTRL_C:
                        running.send_signal(signal.SIGINT)
                    else:
                        screen.write(answer.encode())
        return Ended(running.returncode, shown.decode().replace("\r\n", "\n"), "")

    return call


def _read(screen: RawIOBase) -> bytes:
    try:
        return screen.read(65_536) or b""
    except OSError:
        # On Linux this error means that the other end was closed.
        return b""


@pytest.fixture
def key_id(keyledger: Run) -> str:
    """A key that may read and write payments."""
    made = keyledger(
        "keys", "create", "--name", "payments-api", "--scopes", "payments:read,payments:write",
        "--json",
    )  # fmt: skip
    return str(made.json["key_id"])
