"""``keyledger workspaces``: list the workspaces."""

from collections.abc import Iterator

import typer
from rich.text import Text

from api.command_line.listing import Column, write_listing
from api.command_line.local_ledger import local_ledger
from api.command_line.options import AsJson, DataDir
from api.command_line.terminal import stdout_console, write_json
from api.composition import OpenLedger
from api.formats.as_json import page_as_json, workspace_as_json
from projections.queries.workspaces import WorkspaceSummary, list_workspaces, summarize_workspaces

_AT_ONCE = 500
_COLUMNS = (Column("WORKSPACE"), Column("KEYS", right=True), Column("ACTIVE", right=True))

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def workspaces() -> None:
    """List the workspaces."""


@app.command("list")
def list_(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the workspaces that have keys, with the numbers of their keys."""
    with local_ledger(data_dir, as_json=as_json) as ledger:
        found = list(_all(ledger))
    if as_json:
        write_json(page_as_json([workspace_as_json(each) for each in found], None))
        return
    rows = [
        [Text(each.name), Text(f"{each.keys:,}"), Text(f"{each.active_keys:,}")] for each in found
    ]
    write_listing(stdout_console(), _COLUMNS, rows)


def _all(ledger: OpenLedger) -> Iterator[WorkspaceSummary]:
    now = ledger.clock()
    after: str | None = None
    with ledger.database.read() as connection:
        while names := list_workspaces(connection, after=after, limit=_AT_ONCE):
            yield from summarize_workspaces(connection, names, now=now)
            after = names[-1]
