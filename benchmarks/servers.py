"""Servers for benchmarks, as processes of their own."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError

_STARTS_WITHIN_SECONDS = 60
_LOOK_AGAIN_SECONDS = 0.01
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Served:
    """A Keyledger server with its root token."""

    port: int
    root: str
    data_dir: Path


@dataclass(frozen=True, slots=True)
class Started:
    """A Keyledger server on an existing ledger, with its startup time."""

    port: int
    seconds: float
    process_id: int


@contextmanager
def keyledger(**settings: object) -> Iterator[Served]:
    """Run a server on a new ledger."""
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        data_dir = Path(folder) / "data"
        with keyledger_on(data_dir, **settings) as started:
            yield Served(started.port, root_token_of(data_dir), data_dir)


def root_token_of(data_dir: Path) -> str:
    """Return the token that a server printed when it created a new ledger."""
    said = _said(data_dir).read_text()
    token = re.search(r"[a-z]+_[0-9A-Za-z]{65}", said)
    if token is None:
        raise RuntimeError(f"the server printed no token: {said}")
    return token[0]


@contextmanager
def keyledger_on(data_dir: Path, **settings: object) -> Iterator[Started]:
    """Run a server on a ledger; its log is written beside the data folder."""
    port = _free_port()
    command = [str(Path(sys.executable).with_name("keyledger")), "serve", "--port", str(port)]
    command += ["--data-dir", str(data_dir)]
    given = {f"KEYLEDGER_{name.upper()}": str(value) for name, value in settings.items()}
    with (
        _said(data_dir).open("w") as log,
        _running(command, port, given, stderr=log) as started,
    ):
        yield started


@contextmanager
def bare_app() -> Iterator[int]:
    """Run the baseline: uvicorn with the same options and a bare application."""
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.bare_app:app", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "error", "--no-server-header"]
    with _running(command, port):
        yield port


def _said(data_dir: Path) -> Path:
    return data_dir.with_name(f"{data_dir.name}.log")


@contextmanager
def _running(
    command: list[str], port: int, given: Mapping[str, str] = _NOTHING, **options: object
) -> Iterator[Started]:
    """Run a server; its startup time is from the process start to the first answer."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYLEDGER_")}
    environment |= given
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, **options)  # type: ignore[call-overload]
    try:
        _wait(process, port)
        yield Started(port, time.perf_counter() - started, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
        except (URLError, ConnectionError, TimeoutError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not become ready") from None
            time.sleep(_LOOK_AGAIN_SECONDS)
        else:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
