"""Run the benchmarks of the claims about speed: ``make bench``, or one by name."""

import os
import platform
from importlib import import_module
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.claims import show
from projections.store.sqlite_driver import driver

NAMES = {
    "verify": "checks of tokens over HTTP",
    "rebuild": "making the projections anew",
    "seals": "the cost of seals in a rebuild",
    "console": "pages of the console",
    "verify_time": "checks of tokens inside the process",
    "offline": "checking an audit pack",
    "last_used": "noting when keys were last used",
    "restart": "the first checks after a restart",
    "append": "making and revoking keys",
    "feed": "exporting the audit trail, and proving what is in it",
    "copy": "copying a ledger into another database",
    "on_postgresql": "checks, appends and rebuilds on PostgreSQL",
    "list_page": "pages of the key list, of many keys and of few",
    "hostile_network": "long heads, and idle connections",
    "read_flood": "revocations during a flood of the slowest read",
}


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Which; all if none is named: {', '.join(NAMES)}.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Small sizes and few rounds: a smoke test.")] = False,
) -> None:
    """Run benchmarks and print their results beside the claims."""
    console = Console(width=170)
    console.print(
        f"{os.cpu_count()} cores, Python {platform.python_version()},"
        f" SQLite {driver.sqlite_version}"
    )
    missed = 0
    for name in names or NAMES:
        if name not in NAMES:
            raise typer.BadParameter(f"there is no benchmark {name}; there are: {', '.join(NAMES)}")
        rows = import_module(f"benchmarks.{name}").run(quick=quick)
        show(console, f"{name}: {NAMES[name]}", rows)
        missed += sum(row.met is False for row in rows)
    raise typer.Exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)
