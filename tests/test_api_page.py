"""The commands of docs/api.md, run against a real server, answer what the page shows."""

import re
import shutil
from pathlib import Path

import pytest

from api.app import create_app
from api.settings import Settings
from tests.page_sessions import DOCS, session_of, steps
from tests.programs import needs

PAGE = DOCS / "api.md"
SECTIONS = [
    "Keys", "Verification", "Workspaces", "Audit log", "Projections",
    "Health checks and metrics", "Errors",
]  # fmt: skip


@needs(shutil.which("curl"), "curl")
def test_the_calls_answer_what_the_page_shows(tmp_path: Path) -> None:
    with session_of(PAGE, tmp_path, "Start") as session:
        for title in SECTIONS:
            session.hold(title, at_least=1)


@pytest.mark.only_on("sqlite")
def test_the_page_has_every_operation() -> None:
    calls = {call(command) for title in SECTIONS for command, _ in steps(PAGE, title)}
    for path, methods in create_app(Settings()).openapi()["paths"].items():
        pattern = re.compile(re.sub(r"\{\w+\}", ".+", path))
        for method in methods:
            assert any(
                each[0] == method.upper() and pattern.fullmatch(each[1]) for each in calls
            ), f"{method.upper()} {path}"


def call(command: str) -> tuple[str, str]:
    """Return the method and the path of a command of curl."""
    path = re.search(r"localhost:8080(/[^\s'\"?]*)", command)
    method = re.search(r"-X (\w+)", command)
    default = "POST" if " -d " in command.partition("|")[0] else "GET"
    return method[1] if method else default, path[1] if path else ""
