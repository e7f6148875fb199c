"""Sessions with a real server that are compared with the ones that a page of docs/ shows.

Values that differ between runs (ids, tokens, times, durations) are matched with the value on the
page in the same place: the first match defines it, and later ones must be equal.
"""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError

DOCS = Path(__file__).parents[1] / "docs"
KEYLEDGER = Path(sys.executable).with_name("keyledger")
DEADLINE_SECONDS = 60

VARIABLE = re.compile(
    r"apikey_[0-9a-f-]{36}"
    r"|[a-z]+_[0-9A-Za-z]{65}"
    r"|[a-z]+_[0-9A-Za-z]{8}\.\.\."
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+Z)?"
    r"|\d{4}-\d\d-\d\d"
    r"|req_[0-9a-f]{32}"
    r"|\b[0-9a-f]{64}\b"
    r"|\bcli:\w+"
    r'|(?<="lookup_id": ")\w{16}'
    r"|\bWz[0-9A-Za-z_-]{20,}"
    r"|\d+\.\d\d s|\d[\d,]*/s|\d+ ms|\d+ events|\d+ seconds? ago|in \d+ minutes"
)
# What measures the machine, or the moment, is never the same twice.
FLEETING = re.compile(r"\d+\.\d\d s|\d[\d,]*/s|\d+ ms|\d{4}-\d\d-\d\d.*|.* events|.* ago|in .*")

# A server records uses at intervals, so only a slow run shows one.
LAST_USE = re.compile(r"^ +last used .*\n", re.MULTILINE)


@dataclass
class Session:
    """A session that is compared with the one on a page."""

    page: Path
    port: int
    folder: Path
    known: dict[str, str] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)

    def hold(self, title: str, *, at_least: int) -> None:
        """Run the commands of a section, and compare what they print with the page."""
        taken = steps(self.page, title)
        assert len(taken) >= at_least
        for command, shown in taken:
            printed = LAST_USE.sub("", self.run(command))
            assert even(self.matched(shown, printed)) == even(shown), command

    def run(self, command: str) -> str:
        for shown, real in self.known.items():
            command = command.replace(shown, real)
        if exported := re.fullmatch(r"export (\w+)=(\S+)\n", command):
            self.exported[exported[1]] = exported[2]
            return ""
        command = command.replace("localhost:8080", f"127.0.0.1:{self.port}")
        done = subprocess.run(
            ["bash", "-c", command],  # noqa: S607 - whichever bash the reader has
            cwd=self.folder,
            env=os.environ
            | {"PATH": f"{KEYLEDGER.parent}:{os.environ['PATH']}", "COLUMNS": "200"}
            | self.exported,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_SECONDS,
        )
        return done.stdout + "".join(
            line for line in done.stderr.splitlines(keepends=True) if line.startswith("error")
        )

    def matched(self, shown: str, real: str) -> str:
        """Return what was really printed, with the page's values in place of this run's."""
        shown_values, real_values = VARIABLE.findall(shown), VARIABLE.findall(real)
        for shown_value, real_value in zip(shown_values, real_values, strict=False):
            if not FLEETING.fullmatch(shown_value):
                assert self.known.setdefault(shown_value, real_value) == real_value
        values = iter(shown_values)
        return VARIABLE.sub(lambda found: next(values, found[0]), real)


def even(text: str) -> str:
    """Return a text with the columns of its tables as narrow as can be."""
    return re.sub(r" {2,}", "  ", text).rstrip()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def section(page: Path, title: str) -> str:
    text = page.read_text()
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def console_blocks(page: Path, title: str) -> list[str]:
    return re.findall(r"```console\n(.*?)```", section(page, title), flags=re.DOTALL)


def steps(page: Path, title: str) -> list[tuple[str, str]]:
    """Return the commands of a section's blocks, each with what is shown below it."""
    found: list[tuple[str, str]] = []
    for block in console_blocks(page, title):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = step.splitlines(keepends=True)
            end = next(at for at, line in enumerate(lines) if not line.endswith("\\\n")) + 1
            found.append(("".join(lines[:end]), "".join(lines[end:])))
    return found


def wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except (URLError, ConnectionError, TimeoutError):
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.05)


@contextmanager
def session_of(page: Path, folder: Path, start: str) -> Iterator[Session]:
    """Start a server in an empty folder, as a page says, and return a session with it.

    Args:
        start: the section that starts the server and shows the root key.
    """
    port = free_port()
    said = folder / "server.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYLEDGER_")}
    with said.open("wb") as log:
        server = subprocess.Popen(
            [KEYLEDGER, "serve", "--port", str(port)], cwd=folder, env=environment, stderr=log
        )
    try:
        wait_until_ready(port, server)
        session = Session(page, port, folder)
        ((_, shown),) = steps(page, start)
        for line in shown.splitlines():
            if "root key" in line or "key_" in line:
                assert session.matched(line, next_like(line, said.read_text())) == line
        yield session
    finally:
        server.terminate()
        server.wait(DEADLINE_SECONDS)


def next_like(shown: str, text: str) -> str:
    """Return the line that differs from the one shown in its variable values alone."""
    pattern = re.compile(VARIABLE.sub("VALUE", shown))
    return next(
        line for line in text.splitlines() if pattern.fullmatch(VARIABLE.sub("VALUE", line))
    )
