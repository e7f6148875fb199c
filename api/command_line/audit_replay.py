"""``keyledger audit replay``: the state of a key after each of its events."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from api.command_line.listing import Column, write_listing
from api.command_line.local_ledger import local_ledger
from api.command_line.options import AsJson, DataDir, KeyId
from api.command_line.terminal import one_line, stderr_console, stdout_console, write_json
from api.command_line.time_formats import readable
from api.formats.as_json import key_as_json, page_as_json
from domain.errors import KeyNotFound
from domain.key_ids import to_uuid
from domain.public_event import public_event
from projections.queries.key_replay import ReplayStep, history_in_pack, replayed
from projections.store.database import Database
from projections.store.events import Recorded, read_history

_AT_ONCE = 500
_COLUMNS = (
    Column("VERSION", right=True),
    Column("EVENT"),
    Column("AT"),
    Column("BY", wraps=True),
    Column("STATUS"),
    Column("NAME", wraps=True),
    Column("SCOPES", wraps=True),
    Column("EXPIRES"),
)


def replay(
    key_id: KeyId,
    *,
    pack: Annotated[
        Path | None,
        typer.Option(
            help="Audit pack to read the events from, instead of the ledger.", metavar="FILE"
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the state of a key after each of its events, oldest event first.

    With --pack no ledger is needed. Verify the pack first: keyledger audit verify-pack.
    """
    if pack is not None:
        steps = list(replayed(history_in_pack(pack, key_id)))
        if not as_json and steps:
            hint = "not verified here; verify it with: keyledger audit verify-pack"
            stderr_console().print(one_line(f"pack: {pack}, {hint}"), style="dim", soft_wrap=True)
    else:
        with local_ledger(data_dir, as_json=as_json) as ledger:
            steps = list(replayed(_history(ledger.database, key_id)))
    if not steps:
        raise KeyNotFound(f"no events of the key {key_id[:60]}")
    if as_json:
        place = "position" if pack is None else "leaf_index"
        write_json(page_as_json([_as_json(each, place) for each in steps], None))
    else:
        _write(stdout_console(), steps)


def _history(database: Database, key_id: str) -> Iterator[Recorded]:
    to_uuid(key_id)
    after = 0
    while True:
        with database.read() as connection:
            page = read_history(connection, key_id, after=after, limit=_AT_ONCE)
        yield from page
        if len(page) < _AT_ONCE:
            return
        after = page[-1].position


def _as_json(step: ReplayStep, place: str) -> dict[str, object]:
    position, event = step.recorded
    public = public_event(event)
    return {"event": {place: position, **public}, "key": key_as_json(step.key)}


def _write(console: Console, steps: Sequence[ReplayStep]) -> None:
    rows = [
        [
            Text(one_line(text))
            for text in (
                str(event.originator_version),
                event.TOPIC.removeprefix("ApiKey."),
                readable(event.timestamp),
                "{type}:{id}".format(**event.actor),
                key.status,
                key.name,
                ", ".join(key.scopes),
                "Never" if key.expires_at is None else readable(key.expires_at),
            )
        ]
        for (_, event), key in steps
    ]
    write_listing(console, _COLUMNS, rows)
