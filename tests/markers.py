"""Marks each test with what it needs beside this process: PostgreSQL, processes, a browser.

The marks follow from the code that a test and its fixtures can reach in `tests`, so nobody has to
write them. `make check` leaves the marked tests out. A test that starts a process without the mark
fails.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

POSTGRESQL: Final = "postgresql"
PROCESS: Final = "process"
BROWSER: Final = "browser"

DESCRIPTIONS = {
    POSTGRESQL: "it needs a PostgreSQL server",
    PROCESS: "it starts processes",
    BROWSER: "it needs Chromium",
}

_MODULES = {
    "subprocess": PROCESS,
    "multiprocessing": PROCESS,
    "pty": PROCESS,
    "playwright": BROWSER,
    "axe_playwright_python": BROWSER,
}
_FUNCTIONS = {
    ("concurrent.futures", "ProcessPoolExecutor"): PROCESS,
    ("os", "fork"): PROCESS,
    ("os", "posix_spawn"): PROCESS,
    ("tests.postgresql", "running_server"): POSTGRESQL,
    ("tests.postgresql", "Server"): POSTGRESQL,
}
_STARTS_A_PROCESS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}

_BY_PARAMETER = "engine"
"""The fixture that needs PostgreSQL only where its parameter says so."""


class _Name(NamedTuple):
    """A name that a module of the tests defines."""

    module: str
    name: str


class _Module(NamedTuple):
    definitions: dict[str, list[ast.AST]]
    imports: dict[str, tuple[str, str | None]]
    """For each name: the module that it comes from, and what it is called there."""


def mark(item: pytest.Item) -> None:
    """Add the marks to a test."""
    assert isinstance(item, pytest.Function)
    module = _name_of(item.path)
    start = [_Name(module, item.originalname)]
    if item.cls is not None:
        start = [_Name(module, f"{item.cls.__name__}.{item.originalname}")]
    for name in item.fixturenames:
        if name != _BY_PARAMETER:
            for definition in item._fixtureinfo.name2fixturedefs.get(name, ()):  # noqa: SLF001
                start += _definition(definition.func)
    marks = {each for name in start for each in needs_of(name)}
    parameters: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    if POSTGRESQL in parameters.values():
        marks.add(POSTGRESQL)
    for name in sorted(marks):
        item.add_marker(name)


def forbid_processes(item: pytest.Item) -> None:
    """Let the test fail where it starts a process and is not marked."""
    _running.clear()
    if not any(item.get_closest_marker(name) for name in DESCRIPTIONS):
        _running.append(item.nodeid)


_running: list[str] = []


def _refuse(event: str, _: tuple[object, ...]) -> None:
    if event in _STARTS_A_PROCESS and _running:
        message = f"{_running[0]} starts a process, which tests/markers.py does not see"
        raise AssertionError(message)


sys.addaudithook(_refuse)


def _name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _definition(function: Any) -> list[_Name]:  # noqa: ANN401 - whatever pytest calls
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    if code is None or ROOT / "tests" not in Path(code.co_filename).parents:
        return []
    return [_Name(_name_of(Path(code.co_filename)), code.co_qualname)]


@cache
def needs_of(name: _Name) -> frozenset[str]:
    """Return what a function or a class needs, with all that it reaches."""
    found, seen, waiting = set(), {name}, [name]
    while waiting:
        for reached in _reached(waiting.pop()):
            if isinstance(reached, str):
                found.add(reached)
            elif reached not in seen:
                seen.add(reached)
                waiting.append(reached)
    return frozenset(found)


@cache
def _reached(name: _Name) -> list[_Name | str]:
    """Return what a definition refers to: other definitions, and marks."""
    module = _module(name.module)
    if module is None:
        return []
    outer = name.name.partition(".")[0]
    reached: list[_Name | str] = []
    for node in module.definitions.get(name.name, ()):
        local = _local_names(node)
        for used in _used(node):
            first, _, attribute = used.partition(".")
            if first in local:
                continue
            if first == "self":
                reached.append(_Name(name.module, f"{outer}.{attribute}"))
            elif first in module.imports:
                origin, original = module.imports[first]
                reached += _imported(origin, original or attribute)
            elif first in module.definitions:
                reached.append(_Name(name.module, first))
    return reached


def _local_names(node: ast.AST) -> set[str]:
    parameters = {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    assigned = {
        each.id
        for each in ast.walk(node)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }
    return (parameters | assigned) - {"self"}


def _imported(module: str, name: str) -> list[_Name | str]:
    needed = _MODULES.get(module.partition(".")[0]) or _FUNCTIONS.get((module, name))
    if needed is not None:
        return [needed]
    return [_Name(module, name)] if module.startswith("tests.") else []


def _used(node: ast.AST) -> Iterator[str]:
    """Yield the names that code uses, with the first attribute; annotations are left out."""
    if isinstance(node, ast.arg):
        return
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        yield f"{node.value.id}.{node.attr}"
    elif isinstance(node, ast.Name):
        yield node.id
    else:
        for field, value in ast.iter_fields(node):
            if field not in {"annotation", "returns"}:
                for each in value if isinstance(value, list) else [value]:
                    if isinstance(each, ast.AST):
                        yield from _used(each)


@cache
def _module(name: str) -> _Module | None:
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    if not path.is_file():
        return None
    module = _Module({}, {})
    for node in ast.parse(path.read_bytes()).body:
        module.imports.update(_imports(node))
        for defined, definition in _definitions(node):
            module.definitions.setdefault(defined, []).append(definition)
    return module


def _imports(node: ast.stmt) -> Iterator[tuple[str, tuple[str, str | None]]]:
    if isinstance(node, ast.Import):
        for each in node.names:
            yield each.asname or each.name.partition(".")[0], (each.name, None)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        for each in node.names:
            yield each.asname or each.name, (node.module, each.name)


def _definitions(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name, node
    elif isinstance(node, ast.ClassDef):
        yield node.name, node
        for part in node.body:
            for name, definition in _definitions(part):
                yield f"{node.name}.{name}", definition
    elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
