"""The root of the commands; what a command needs is imported when it is called."""

import gc
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

_EPILOG = "Exit status: 0 success, 1 failure or a finding, 2 usage error."
_MODULES = ("serve", "keys", "workspaces", "projections", "audit", "copy", "doctor")


class _CommandsByModule(Mapping[str, Any]):
    """The commands by their names, each made of the ``app`` of the module that is called so.

    The database's libraries take most of the time that a start takes; ``--version`` and a mistyped
    command do without them, and no command but ``serve`` waits for the server's.
    """

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - the class is private to Typer
        if name not in _MODULES:
            raise KeyError(name)
        command = get_command(_imported(f"{__package__}.{name}").app)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


def _imported(name: str) -> ModuleType:
    """Import a module, at two thirds of the usual time for the start and the end of a process.

    The libraries are some hundred thousand objects that live to the end: looking for garbage among
    them, time and again while they are made and once more when the process ends, finds none.
    """
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


class _LazyGroup(TyperGroup):
    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - Typer's own
        super().__init__(**attributes | {"commands": _CommandsByModule()})


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"keyledger {metadata.version('keyledger')}")
        raise typer.Exit


def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Manage API keys. Every change to a key is recorded as an event in a tamper-evident log."""


def root_command() -> Any:  # noqa: ANN401 - the class is private to Typer
    """Return the command that all others belong to."""
    app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, epilog=_EPILOG)
    app.callback()(_root)
    return get_command(app)
