"""Servers to be measured, as processes of their own."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError

_STARTS_WITHIN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Served:
    """A Keyledger server with its root token."""

    port: int
    root: str
    data_dir: Path


@contextmanager
def keyledger(*, workers: int = 1) -> Iterator[Served]:
    """Run a server on a new ledger."""
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        data_dir, port = Path(folder) / "data", _free_port()
        command = [str(Path(sys.executable).with_name("keyledger")), "serve"]
        command += ["--port", str(port), "--workers", str(workers), "--data-dir", str(data_dir)]
        said = Path(folder) / "said"
        with said.open("w") as log, _running(command, port, stderr=log):
            token = re.search(r"[a-z]+_[0-9A-Za-z]{65}", said.read_text())
            if token is None:
                raise RuntimeError(f"the server printed no token: {said.read_text()}")
            yield Served(port, token[0], data_dir)


@contextmanager
def bare_app() -> Iterator[int]:
    """Run the floor: uvicorn with the same options, serving an application that does nothing."""
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.bare_app:app", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "error", "--no-server-header"]
    with _running(command, port):
        yield port


@contextmanager
def _running(command: list[str], port: int, **options: object) -> Iterator[None]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYLEDGER_")}
    process = subprocess.Popen(command, env=environment, **options)  # type: ignore[call-overload]
    try:
        _wait(process, port)
        yield
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
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
