"""Text that users read has none of the words of ``hard_words.toml``."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.command_line.root import root_command
from api.settings import Settings

ROOT = Path(__file__).parents[1]
INSTEAD: dict[str, str] = tomllib.loads(Path(__file__).with_name("hard_words.toml").read_text())
HARD = {re.compile(rf"\b(?:{words})\b", re.IGNORECASE): INSTEAD[words] for words in INSTEAD}
PAGES = ("README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "docs/*.md")
_CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
_MARKUP = re.compile(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}|<[^>]*>", re.DOTALL)
_SENTENCE = 2
"""Spaces in a string of the source from which on it is taken for text, and not for a name."""

Texts = Iterator[tuple[str, str]]
"""Where a text is, and the text."""


def help_texts(command: Any = None, path: str = "keyledger") -> Texts:  # noqa: ANN401 - Typer's
    """The help of a command, of its options, and of the commands below it."""
    command = root_command() if command is None else command
    yield path, f"{command.help} {command.epilog or ''}"
    for parameter in command.params:
        yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
    for name, below in getattr(command, "commands", {}).items():
        yield from help_texts(below, f"{path} {name}")


def settings() -> Texts:
    for name, field in Settings.model_fields.items():
        yield name, field.description or ""


def openapi(part: Any = None, path: str = "openapi.json") -> Texts:  # noqa: ANN401 - any JSON
    part = json.loads((ROOT / "docs/openapi.json").read_text()) if part is None else part
    for name, value in part.items() if isinstance(part, dict) else enumerate(part):
        if isinstance(value, dict | list):
            yield from openapi(value, f"{path}/{name}")
        elif name in {"summary", "description", "title"} and isinstance(value, str):
            yield f"{path}/{name}", value


def pages() -> Texts:
    for path in (path for pattern in PAGES for path in sorted(ROOT.glob(pattern))):
        yield str(path.relative_to(ROOT)), _CODE.sub(" ", path.read_text())


def templates() -> Texts:
    for path in sorted((ROOT / "api/console/templates").iterdir()):
        yield path.name, _MARKUP.sub(" ", path.read_text())


def messages() -> Texts:
    """The texts in the source, without docstrings: errors, findings, tables, log lines."""
    for folder in ("api", "domain", "projections"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, text in _strings(ast.parse(path.read_text())):
                if text.count(" ") >= _SENTENCE:
                    yield f"{path.relative_to(ROOT)}:{line}", text


def _strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.Constant(value=str(text)):
                yield child.lineno, text
            case ast.JoinedStr(values=parts):
                shown = (part.value if isinstance(part, ast.Constant) else "…" for part in parts)
                yield child.lineno, "".join(map(str, shown))
            case _:
                yield from _strings(child)


def found(texts: Texts) -> list[str]:
    return [
        f"{where}: {text[max(0, hit.start() - 40) : hit.end() + 40]!r}: {hit.group()}: {instead}"
        for where, text in texts
        for hard, instead in HARD.items()
        for hit in hard.finditer(text)
    ]


SOURCES = {
    "help": (help_texts, "Revoke a key"),
    "settings": (settings, "Number of server processes."),
    "OpenAPI": (openapi, "Verify a token"),
    "pages": (pages, "Report a vulnerability"),
    "templates": (templates, "Sign in"),
    "messages": (messages, "it has no valid seal"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_text_for_users_has_no_hard_words(source: str) -> None:
    texts, known = SOURCES[source]
    assert any(known in text for _, text in texts()), "the texts are found at all"
    assert found(texts()) == []


@pytest.mark.parametrize(
    "text", ["Whoever asks", "it is none", "that is no time", "goes on with it", "one look"]
)
def test_a_hard_word_is_found(text: str) -> None:
    assert found(iter([("here", text)]))


@pytest.mark.parametrize("text", ["there is no key", "it is no longer valid", "the details"])
def test_a_plain_sentence_is_not_found(text: str) -> None:
    assert not found(iter([("here", text)]))
