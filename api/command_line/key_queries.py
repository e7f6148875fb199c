"""The commands that list and show keys."""

from typing import Annotated

import typer

from api.command_line.key_display import write_history, write_key, write_keys
from api.command_line.local_ledger import local_ledger
from api.command_line.options import AsJson, DataDir, KeyId, Workspace, WorkspaceOrAll
from api.command_line.terminal import stderr_console, stdout_console, write_json
from api.command_line.time_formats import parse_time
from api.composition import OpenLedger
from api.formats.as_json import event_as_json, key_as_json, page_as_json
from api.formats.cursors import from_cursor, list_of_keys, to_cursor
from domain import scopes
from domain.api_key import Status
from domain.names import DEFAULT_WORKSPACE, EVERY_WORKSPACE
from projections.queries.filters import Filters
from projections.queries.keys_now import list_keys, show_key
from projections.store.events import Recorded, read_history
from projections.views.key_fields import ListedKey

_HISTORY_BATCH = 500


def list_(
    *,
    workspace: WorkspaceOrAll = DEFAULT_WORKSPACE,
    status: Annotated[Status | None, typer.Option(help="Only keys with this status.")] = None,
    text: Annotated[
        str | None,
        typer.Option(
            "--text",
            "-q",
            help="Only keys with this text in the name, or at the start of the prefix or the id.",
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(help="Only keys whose scopes include this scope.", metavar="A:B"),
    ] = None,
    created_by: Annotated[
        str | None, typer.Option(help="Only keys created by the actor with this id.")
    ] = None,
    expires_before: Annotated[
        str | None, typer.Option(help="Only keys that expire before this time.", metavar="TIME")
    ] = None,
    unused_since: Annotated[
        str | None,
        typer.Option(help="Only keys created before this time and not used since.", metavar="TIME"),
    ] = None,
    never_used: Annotated[
        bool, typer.Option("--never-used", help="Only keys that were never used.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of keys.")] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="Cursor of the next page, as the previous page shows it.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the keys of a workspace, newest first."""
    filters = Filters(
        status=status,
        text=text,
        scope=None if scope is None else scopes.checked([scope], field="scope")[0],
        created_by=created_by,
        expires_before=(
            None if expires_before is None else parse_time("expires_before", expires_before)
        ),
        unused_since=None if unused_since is None else parse_time("unused_since", unused_since),
        never_used=True if never_used else None,
    )
    among = None if workspace == EVERY_WORKSPACE else workspace
    query = list_of_keys(among, filters)
    before = from_cursor(cursor, *query)
    with local_ledger(data_dir, as_json=as_json) as ledger:
        now = ledger.clock()
        with ledger.database.read() as connection:
            found = list_keys(connection, among, filters, now=now, before=before, limit=limit + 1)
    keys = found[:limit]
    following = to_cursor(keys[-1].position, *query) if len(found) > limit else None
    if as_json:
        write_json(page_as_json([key_as_json(key) for key in keys], following))
        return
    if keys:
        write_keys(stdout_console(), keys, now, with_workspace=among is None)
    else:
        where = "any workspace" if among is None else f"the workspace {workspace}"
        stderr_console().print(f"no keys found in {where}", soft_wrap=True)
    if following is not None:
        stderr_console().print(f"more keys: --cursor {following}", soft_wrap=True)


def show(
    key_id: KeyId,
    *,
    workspace: Workspace = DEFAULT_WORKSPACE,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one key."""
    with local_ledger(data_dir, as_json=as_json) as ledger:
        key = shown(ledger, workspace, key_id)
        if as_json:
            write_json(key_as_json(key))
        else:
            write_key(stdout_console(), key, ledger.clock())


def history(
    key_id: KeyId,
    *,
    workspace: Workspace = DEFAULT_WORKSPACE,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the history of a key, oldest event first."""
    with local_ledger(data_dir, as_json=as_json) as ledger:
        shown(ledger, workspace, key_id)
        events = _whole_history(ledger, key_id)
    if as_json:
        write_json(page_as_json([event_as_json(each) for each in events], None))
    else:
        write_history(stdout_console(), events)


def shown(ledger: OpenLedger, workspace: str, key_id: str) -> ListedKey:
    """Return a key of a workspace.

    Raises:
        KeyNotFound: the workspace has no such key.
    """
    with ledger.database.read() as connection:
        return show_key(connection, workspace, key_id, now=ledger.clock())


def _whole_history(ledger: OpenLedger, key_id: str) -> list[Recorded]:
    events: list[Recorded] = []
    with ledger.database.read() as connection:
        while batch := read_history(
            connection,
            key_id,
            after=events[-1].position if events else 0,
            limit=_HISTORY_BATCH,
        ):
            events += batch
    return events
