"""A command whose output is lost reports it and fails; it names the key of a lost token."""

import os
import platform
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from api.composition import opened_ledger
from tests.api.command_line.commands import COMMAND, Run
from tests.engines import settings_of
from tests.system.processes import eventually

ROOT = Path(__file__).parents[3]
on_sqlite = pytest.mark.only_on("sqlite")

KEY_ID = re.compile(r"apikey_[0-9a-f-]{36}")
TOKEN = re.compile(r"[a-z]+_[0-9A-Za-z]{65}")

WRITES = {"x86_64": ["1"], "aarch64": ["64"]}.get(platform.machine(), [])
"""The number of the system call."""

Sink = Callable[[], AbstractContextManager[IO[bytes] | None]]


@contextmanager
def full_disk() -> Iterator[IO[bytes] | None]:
    with Path("/dev/full").open("wb") as sink:
        yield sink


@contextmanager
def closed_pipe() -> Iterator[IO[bytes] | None]:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as sink:
        yield sink


@contextmanager
def closed() -> Iterator[IO[bytes] | None]:
    """Yield nothing: the descriptor is closed before the command starts."""
    yield None


@contextmanager
def full_pipe() -> Iterator[IO[bytes] | None]:
    """Yield a full pipe whose writers do not block."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(reading), os.fdopen(writing, "wb", buffering=0) as sink:
        fill(writing)
        yield sink


def fill(pipe: int) -> None:
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(4096))


SINKS = {"full disk": full_disk, "closed pipe": closed_pipe, "closed": closed}
every_sink = pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)


def run_into(sink: Sink, data_dir: Path, *arguments: str, stream: int = 1) -> tuple[int, str]:
    """Run a command with one stream connected to a sink; return exit status and other stream."""
    with sink() as taken:
        redirected = "" if taken is not None else f" {stream}>&-"
        streams = (taken, subprocess.PIPE) if stream == 1 else (subprocess.PIPE, taken)
        ended = subprocess.run(
            ["/bin/sh", "-c", f'exec "$@"{redirected}', "sh", COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=streams[0],
            stderr=streams[1],
            env={"PATH": os.environ["PATH"], "KEYLEDGER_DATA_DIR": str(data_dir)},
            timeout=60,
            check=False,
        )
    said = ended.stderr if stream == 1 else ended.stdout
    return ended.returncode, said.decode()


def key_ids(data_dir: Path) -> list[str]:
    with opened_ledger(settings_of(data_dir)) as ledger, ledger.database.read() as connection:
        return [*connection.exec_driver_sql("SELECT key_id FROM key_list").scalars()]


@on_sqlite
@pytest.mark.parametrize("sink", [*SINKS.values(), full_pipe], ids=[*SINKS, "full pipe"])
def test_a_token_that_could_not_be_shown_names_its_key_and_what_to_do(
    data_dir: Path, process: Run, sink: Sink
) -> None:
    first = process("keys", "create", "--name", "first", "--scopes", "a:b", "--json").json["key_id"]
    for command in (
        ("keys", "create", "--name", "lost", "--scopes", "a:b"),
        ("keys", "create", "--name", "lost", "--scopes", "a:b", "--json"),
        ("keys", "rotate", first),
    ):
        before = set(key_ids(data_dir))
        code, said = run_into(sink, data_dir, *command)
        made = set(key_ids(data_dir)) - before
        assert code == 1
        assert not TOKEN.search(said)
        if sink is closed:
            # This is known before, so no key is created.
            assert made == set()
            assert "cannot write to standard output: it is closed" in said
            continue
        (key_id,) = made
        assert f"the key {key_id} was created, but its token could not be shown" in said
        assert f"keyledger keys rotate {key_id} --workspace default" in said
        assert f"keyledger keys revoke {key_id} --workspace default" in said
        assert ("TOKEN_NOT_SHOWN" in said) == ("--json" in command)
        assert "Traceback" not in said


@on_sqlite
@pytest.mark.skipif(
    not WRITES or not Path("/proc/self/syscall").exists(),
    reason="this system does not tell in which call a process waits",
)
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["for people", "for programs"])
def test_an_interrupted_command_names_the_key_whose_token_nobody_read(
    data_dir: Path, process: Run, options: tuple[str, ...]
) -> None:
    assert process("keys", "create", "--name", "first", "--scopes", "a:b").code == 0
    before = set(key_ids(data_dir))
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "wb", buffering=0) as sink:
        os.set_blocking(writing, False)
        fill(writing)
        os.set_blocking(writing, True)
        with subprocess.Popen(
            [COMMAND, "keys", "create", "--name", "lost", "--scopes", "a:b", *options],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "KEYLEDGER_DATA_DIR": str(data_dir)},
            text=True,
        ) as running:
            try:
                eventually(lambda: writes_to_stdout(running.pid), "it waits for its reader")
                running.send_signal(signal.SIGINT)
                _, said = running.communicate(timeout=60)
            finally:
                running.kill()
    (made,) = set(key_ids(data_dir)) - before
    assert running.returncode == 130
    assert f"the key {made} was created, but its token could not be shown: interrupted" in said
    assert f"keyledger keys revoke {made} --workspace default" in said
    assert "Traceback" not in said


def writes_to_stdout(process: int) -> bool:
    """Return whether a process is waiting in a write to its standard output."""
    call, *arguments = Path(f"/proc/{process}/syscall").read_text().split()
    return call in WRITES and arguments[0] == "0x1"


@on_sqlite
@every_sink
def test_a_command_whose_output_is_lost_fails_with_one_clear_line(
    data_dir: Path, process: Run, sink: Sink
) -> None:
    assert process("keys", "create", "--name", "first", "--scopes", "a:b").code == 0
    for command in (
        ("keys", "list"),
        ("doctor", "--json"),
        ("audit", "report", "--format", "csv"),
        ("audit", "report", "--format", "json"),
    ):
        code, said = run_into(sink, data_dir, *command)
        assert code == 1
        # A reader that stops early, such as head, does so on purpose.
        assert ("cannot write to standard output: " in said) == (sink is not closed_pipe)
        assert "Traceback" not in said
        assert "Exception ignored" not in said


@on_sqlite
@every_sink
def test_a_ledger_whose_first_token_could_not_be_shown_gets_no_first_key(
    data_dir: Path, sink: Sink
) -> None:
    code, _ = run_into(sink, data_dir, "serve", "--port", "0", stream=2)

    assert code == 1
    assert key_ids(data_dir) == []


def test_one_function_of_the_command_line_shows_tokens() -> None:
    """A command that shows a token in another way would also have to name the key of a lost one."""
    showing = {
        str(path.relative_to(ROOT)): path.read_text().count("reveal()")
        for path in [*(ROOT / "api/command_line").rglob("*.py"), ROOT / "api/server/server.py"]
    }
    found = {path: count for path, count in showing.items() if count}
    assert found == {"api/command_line/key_changes.py": 1, "api/server/server.py": 1}


@pytest.mark.only_on("postgresql")
def test_a_log_line_is_not_mixed_into_the_output_of_a_command(data_dir: Path, process: Run) -> None:
    create = ("keys", "create", "--name", "a", "--scopes", "a:b", "--json")
    assert process(*create).code == 0
    # As on a second machine: the file then begins with the database's checkpoint.
    (data_dir / "checkpoints.txt").unlink()

    ended = process(*create)

    assert ended.json["token"]
    assert "checkpoint_file_begun" in ended.err
