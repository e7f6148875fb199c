"""Real processes of the product: servers, which tests stop or kill, and single commands."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, Self

import httpx

from tests.engines import url_to_set
from tests.system.clients import Client

KEYLEDGER = Path(sys.executable).with_name("keyledger")
PATIENCE = 40.0
"""Seconds after which something that a test waits for will not happen any more."""

_ADDRESS = re.compile(r"Uvicorn running on (http://(?:127\.0\.0\.1|\[::\]):\d+)")
_ROOT_TOKEN = re.compile(r"^ {4}([a-z][a-z0-9]*_[0-9A-Za-z]{65})$", re.MULTILINE)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Ask again and again until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"after {PATIENCE} seconds still not so: {what}"
        time.sleep(0.005)


class Server:
    """A server, in a process group of its own, on a port that the system chose."""

    def __init__(self, data_dir: Path, log: Path, *options: str, **settings: object) -> None:
        self.log_path = log
        self._clients: list[Client] = []
        log.touch()
        with self.output_path.open("wb") as stdout:
            self._process = subprocess.Popen(
                [KEYLEDGER, "serve", "--host", "127.0.0.1", "--port", "0", *options],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=_environment(data_dir, settings),
                cwd=log.parent,
                start_new_session=True,
            )
        # Through a pipe, so that it can say why it can write no files.
        self._logger = Thread(target=self._write_log)
        self._logger.start()

    def _write_log(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        with stderr, self.log_path.open("wb", buffering=0) as log:
            for line in stderr:
                log.write(line)

    @property
    def output_path(self) -> Path:
        """What it writes to standard output: nothing, that is."""
        return self.log_path.with_suffix(".out")

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        """The lines of the log, without the announcement of the root key."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        match = _ADDRESS.search(self.log)
        assert match, self.log
        return match[1].replace("[::]", "127.0.0.1")

    @property
    def root_token(self) -> str | None:
        """The token that the server printed, if it was the first on a new ledger."""
        match = _ROOT_TOKEN.search(self.log)
        return match and match[1]

    def client(self, token: str | None = None) -> Client:
        """Return a client with a connection of its own; without a token, it has root's."""
        client = Client(self.url, token or self.root_token or "")
        self._clients.append(client)
        return client

    def wait_until_ready(self) -> Self:
        eventually(self._is_ready, "the server is ready")
        return self

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, f"the server has ended:\n{self.log}"
        if not _ADDRESS.search(self.log):
            return False
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End it and its workers as a power cut would: nothing gets a chance to clean up."""
        self._close_clients()
        # Not reaped yet, the process keeps its group's number from being used again.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
        self._logger.join(PATIENCE)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Let it write nothing to any file, as if there were no room."""
        _, most = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0, most))
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # it was killed meanwhile
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most, most))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it alone, as a supervisor does."""
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """Send SIGINT to its whole group, as a terminal does upon Ctrl-C."""
        os.killpg(self._process.pid, signal.SIGINT)

    def wait(self) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        code = self._process.wait(PATIENCE)
        self._logger.join(PATIENCE)
        self._close_clients()
        return code

    def stop(self) -> int:
        """Stop it as a supervisor does; return its exit code."""
        self.send(signal.SIGTERM)
        return self.wait()

    def _close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()


@dataclass
class Servers:
    """Starts servers on one ledger, unless told of another."""

    folder: Path
    data_dir: Path
    started: list[Server] = field(default_factory=list)

    def begin(self, *options: str, data_dir: Path | None = None, **settings: object) -> Server:
        """Start a server, and do not wait for it."""
        log = self.folder / f"server-{len(self.started)}.log"
        server = Server(data_dir or self.data_dir, log, *options, **settings)
        self.started.append(server)
        return server

    def start(self, *options: str, data_dir: Path | None = None, **settings: object) -> Server:
        """Start a server, and wait until it answers."""
        return self.begin(*options, data_dir=data_dir, **settings).wait_until_ready()


@contextmanager
def servers_in(folder: Path) -> Iterator[Servers]:
    """Give a way to start servers; those that still run at the end are killed."""
    servers = Servers(folder, folder / "keyledger-data")
    try:
        yield servers
    finally:
        for server in servers.started:
            server.kill()


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    output: str
    errors: str


def run(data_dir: Path, *arguments: str, **settings: object) -> Ran:
    """Run a command on a ledger, to its end."""
    ended = subprocess.run(
        [KEYLEDGER, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=_environment(data_dir, settings),
        cwd=data_dir.parent,
        timeout=PATIENCE,
        check=False,
    )
    return Ran(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def run_many(data_dir: Path, commands: Sequence[Sequence[str]]) -> list[Ran]:
    """Run commands one after the other in one process, which spares most of their time."""
    code = (
        "import json, sys; from api.command_line import run\n"
        "for command in json.load(sys.stdin):\n"
        "    code = run(command)\n"
        "    for stream in (sys.stdout, sys.stderr):\n"
        "        print(f'\\0{code}\\0', end='', file=stream, flush=True)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(commands).encode(),
        capture_output=True,
        env=_environment(data_dir, {}),
        cwd=Path(__file__).parents[2],
        timeout=PATIENCE,
        check=True,
    )
    outputs, errors = (stream.decode().split("\0")[:-1] for stream in (ended.stdout, ended.stderr))
    assert len(outputs) == len(errors) == 2 * len(commands)
    return [
        Ran(int(code), output, error)
        for output, error, code in zip(outputs[::2], errors[::2], outputs[1::2], strict=True)
    ]


def run_json(data_dir: Path, *arguments: str) -> Any:  # noqa: ANN401 - any JSON
    """Run a command that is to succeed, and return the document that it prints."""
    ran = run(data_dir, *arguments, "--json")
    assert ran.code == 0, ran
    return json.loads(ran.output)


def _environment(data_dir: Path, settings: dict[str, object]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if "KEYLEDGER" not in name}
    given = {f"KEYLEDGER_{name.upper()}": str(value) for name, value in settings.items()}
    url = url_to_set(data_dir)
    found = {"KEYLEDGER_DATA_DIR": str(data_dir)}
    if url is not None:
        found["KEYLEDGER_DATABASE_URL"] = url
    return inherited | found | given
