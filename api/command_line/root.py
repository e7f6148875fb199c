"""The root of the commands; what a command needs is imported when it is called."""

from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

_MODULES = ("serve", "keys", "projections", "doctor")


class _CommandsByModule(Mapping[str, Any]):
    """The commands by their names, each made of the ``app`` of the module that is called so.

    The database's libraries take most of the time that a start takes; ``--version`` and a mistyped
    command do without them, and no command but ``serve`` waits for the server's.
    """

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - the class is private to Typer
        if name not in _MODULES:
            raise KeyError(name)
        return get_command(import_module(f"{__package__}.{name}").app)

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


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
    """An API key ledger: every change to a key is an event that stays."""


def root_command() -> Any:  # noqa: ANN401 - the class is private to Typer
    """Return the command that all others belong to."""
    app = typer.Typer(cls=_LazyGroup, no_args_is_help=True)
    app.callback()(_root)
    return get_command(app)
