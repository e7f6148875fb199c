"""The complete programs of the page on guards, each run in front of a real Keyledger."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.api.served import NewLedger
from tests.programs import needs
from tests.system.clients import Client, answered
from tests.system.ledgers import admin_token
from tests.system.processes import Server, eventually, servers_in

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NODE, GO = shutil.which("node"), shutil.which("go")
PROGRAMS = [
    "python",
    pytest.param("node", marks=needs(NODE, "nodejs")),
    # Not installed for the tests: the toolchain is several hundred megabytes.
    pytest.param("go", marks=pytest.mark.skipif(GO is None, reason="Go is not on this machine")),
]
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


@dataclass(frozen=True)
class Program:
    """A program that runs, and its output."""

    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def url(self) -> str:
        found = ADDRESS.search(self.text)
        assert found, self.text
        return found[0]

    def get(self, *headers: tuple[str, str]) -> httpx.Response:
        return httpx.get(f"{self.url}/tools", headers=list(headers), trust_env=False, timeout=30)

    def get_with(self, token: str) -> httpx.Response:
        return self.get(("Authorization", f"Bearer {token}"))


@dataclass(frozen=True)
class Guarded:
    """A program, its Keyledger, and a client of the workspace whose keys may pass."""

    program: Program
    server: Server
    admin: Client
    stranger: Client
    guard_id: str

    def make(self, *scopes: str) -> tuple[str, str]:
        made = answered(self.admin.create("agent", scopes or ("mcp:read",)), 201)
        return made["key_id"], made["token"]


def command_of(language: str, folder: Path) -> Sequence[str | Path]:
    """Return the command that runs the program of a language; build it first where it has to be."""
    if language == "python":
        return (sys.executable, "-m", "uvicorn", "--app-dir", ".", "guarded_app:app", "--port", "0")
    if language == "node":
        return ("node", "guard.mjs")
    built = folder / "guard"
    subprocess.run(["go", "build", "-o", built, "guard.go"], cwd=EXAMPLES, check=True)  # noqa: S607 - the one on the path
    return (built,)


@contextmanager
def running(command: Sequence[str | Path], url: str, token: str, folder: Path) -> Iterator[Program]:
    output = folder / "program.log"
    environment = os.environ | {"GUARD_KEYLEDGER": url, "GUARD_TOKEN": token, "PORT": "0"}
    with (
        output.open("wb") as log,
        subprocess.Popen(command, cwd=EXAMPLES, env=environment, stdout=log, stderr=log) as process,
    ):
        program = Program(output)
        try:
            eventually(lambda: bool(ADDRESS.search(program.text)), "the program listens")
            yield program
        finally:
            process.terminate()


@pytest.fixture(params=PROGRAMS)
def guarded(
    request: pytest.FixtureRequest, new_ledger: NewLedger, tmp_path: Path
) -> Iterator[Guarded]:
    data_dir = new_ledger.copied_to(tmp_path / "keyledger-data")
    token, other = admin_token(data_dir, "acme"), admin_token(data_dir, "other")
    with servers_in(tmp_path) as servers:
        server = servers.start(data_dir=data_dir)
        admin = server.client(token)
        guard = answered(admin.create("guard", ["api-keys:verify"]), 201)
        with running(
            command_of(request.param, tmp_path), server.url, guard["token"], tmp_path
        ) as program:
            yield Guarded(program, server, admin, server.client(other), guard["key_id"])


def refused(answer: httpx.Response, status: int, challenge: str | None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert "detail" in answer.json()
    if challenge is None:
        assert "WWW-Authenticate" not in answer.headers
    else:
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="api"')
        assert challenge in answer.headers["WWW-Authenticate"]


def test_a_program_accepts_valid_keys_with_the_scope_and_no_others(guarded: Guarded) -> None:
    program = guarded.program
    key_id, token = guarded.make()
    _, narrow = guarded.make("a:b")
    stranger = answered(guarded.stranger.create("of another workspace"), 201)

    for headers in ([("Authorization", f"bearer {token}")], [("X-API-Key", token)]):
        answer = program.get(*headers)
        assert (answer.status_code, answer.json()) == (
            200,
            {"key_id": key_id, "workspace": "acme"},
        )
    refused(program.get(), 401, "")
    refused(program.get(("Authorization", "Basic eDp5")), 401, "")
    two = (("Authorization", f"Bearer {token}"), ("X-API-Key", narrow))
    refused(program.get(*two), 401, 'error="invalid_token"')
    for bad in ("x", "x" * 300, narrow[:-1] + "0", stranger["token"]):
        refused(program.get_with(bad), 401, 'error="invalid_token"')
    refused(program.get_with(narrow), 403, 'error="insufficient_scope", scope="mcp:read"')
    answered(guarded.admin.revoke(key_id))
    refused(program.get_with(token), 401, "the key was revoked")
    assert token not in program.text


def test_a_program_that_gets_no_verdict_answers_503(guarded: Guarded) -> None:
    program = guarded.program
    _, token = guarded.make()
    assert program.get_with(token).status_code == 200
    answered(guarded.admin.revoke(guarded.guard_id))
    answers = [program.get_with(token)]
    guarded.server.stop()
    answers.append(program.get_with(token))
    for answer in answers:
        refused(answer, 503, None)
        assert answer.headers["Retry-After"] == "1"
    assert program.text.count("Keyledger cannot be asked") == 2
    assert token not in program.text
