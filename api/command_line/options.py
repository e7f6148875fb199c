"""Options and arguments that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from domain.names import EVERY_WORKSPACE, checked_workspace

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Data folder of the ledger.",
        readable=False,  # the error of the command says more than Typer's
        show_default="KEYLEDGER_DATA_DIR, else ./keyledger-data",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, in the same format as the HTTP API.")
]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Skip the confirmation; required in scripts."),
]
Workspace = Annotated[
    str,
    typer.Option("--workspace", callback=checked_workspace, help="Workspace to act in."),
]
WorkspaceOrAll = Annotated[
    str,
    typer.Option(
        "--workspace",
        callback=lambda name: name if name == EVERY_WORKSPACE else checked_workspace(name),
        help="Workspace of the keys, or * for all.",
    ),
]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="Id of the key, apikey_<uuid>.")]
Scopes = Annotated[
    list[str],
    typer.Option(
        "--scopes",
        help="Scopes of the key, separated by commas: resource:action, with * for any.",
        metavar="A:B,C:D",
    ),
]
ExpiresAt = Annotated[
    str | None,
    typer.Option(
        "--expires-at",
        help="Expiration time, such as 2027-03-03T09:30:00Z or 2027-03-03 (midnight"
        " UTC), or `never`.",
        metavar="TIME",
    ),
]
ExpiresIn = Annotated[
    str | None,
    typer.Option(
        "--expires-in",
        help="Lifetime from now, such as 45s, 90m, 12h, 30d or 2w, or `never`.",
        metavar="DURATION",
    ),
]


def split_scopes(given: list[str]) -> list[str]:
    """Return the scopes of ``--scopes a:b,c:d``, which may be given more than once."""
    return [scope.strip() for each in given for scope in each.split(",")]
