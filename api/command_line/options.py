"""Options and arguments that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from domain.names import checked_workspace

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of the ledger.",
        readable=False,  # whether it is comes out where the reason can be told
        show_default="KEYLEDGER_DATA_DIR, else ./keyledger-data",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, in the shapes of the HTTP API.")
]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Do not ask. Nobody is asked where there is no terminal."),
]
Workspace = Annotated[
    str,
    typer.Option("--workspace", callback=checked_workspace, help="Workspace of the key."),
]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="As in apikey_<uuid>.")]
Scopes = Annotated[
    list[str],
    typer.Option(
        "--scopes",
        help="What the key may do: resource:action with * for any, separated by commas.",
        metavar="A:B,C:D",
    ),
]
ExpiresAt = Annotated[
    str | None,
    typer.Option(
        "--expires-at",
        help="Expiry time, such as 2027-03-03T09:30:00Z or 2027-03-03 (midnight UTC), or never.",
        metavar="TIME",
    ),
]
ExpiresIn = Annotated[
    str | None,
    typer.Option(
        "--expires-in",
        help="How long the key lives from now: 45s, 90m, 12h, 30d, 2w; or never.",
        metavar="DURATION",
    ),
]


def split_scopes(given: list[str]) -> list[str]:
    """Return the scopes of ``--scopes a:b,c:d``, which may come more than once."""
    return [scope.strip() for each in given for scope in each.split(",")]
