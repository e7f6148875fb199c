"""``keyledger audit report``: keys with access at a given time, and lists for access reviews."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.text import Text

from api.command_line.listing import Column, write_listing
from api.command_line.local_ledger import local_ledger
from api.command_line.options import AsJson, DataDir
from api.command_line.output import standard_output
from api.command_line.terminal import one_line, stderr_console, stdout_console
from api.command_line.time_formats import TOO_LONG, date, parse_duration, parse_time, readable
from api.formats.access_csv import to_csv
from api.formats.as_json import access_as_json
from domain.errors import Invalid
from domain.names import checked_workspace
from domain.times import to_text
from projections.queries.access_report import (
    CALLERS,
    Access,
    Review,
    Selection,
    list_access,
    reviewed,
)

_AT_ONCE = 500
_IN_MEMORY = 1 << 20
"""Bytes of a report that are kept in memory; a longer one goes to a temporary file."""

_COLUMNS = (
    Column("WORKSPACE"),
    Column("KEY ID"),
    Column("NAME", wraps=True),
    Column("SCOPES", wraps=True),
    Column("EXPIRES"),
    Column("CREATED BY", wraps=True),
    Column("LAST CHANGE", wraps=True),
    Column("LAST USE"),
)


class Format(StrEnum):
    """Output format of a report."""

    TEXT = "text"
    CSV = "csv"
    JSON = "json"


def report(
    *,
    at: Annotated[
        str | None, typer.Option(help="Time of the report; without it, now.", metavar="TIME")
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(
            help="Only keys of this workspace; without it, keys of all workspaces.", metavar="NAME"
        ),
    ] = None,
    review: Annotated[
        Review | None, typer.Option(help="Only keys that an access review should examine.")
    ] = None,
    within: Annotated[
        str,
        typer.Option(
            help="With --review expiring: time until the keys expire.", metavar="DURATION"
        ),
    ] = "30d",
    since: Annotated[
        str | None,
        typer.Option(help="With --review unused: time of the last use.", metavar="TIME"),
    ] = None,
    older_than: Annotated[
        str,
        typer.Option(help="With --review rotated-late: age of the secret.", metavar="DURATION"),
    ] = "90d",
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TEXT,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Report active keys: their scopes, and who created and last changed them."""
    form = Format.JSON if as_json else form
    if workspace is not None:
        checked_workspace(workspace)
    past = None if at is None else parse_time("at", at)
    if past is not None and review in {"unused", "never-used"}:
        raise Invalid("at", f"past uses are not recorded: leave out --at with --review {review}")
    spans = parse_duration("within", within), parse_duration("older_than", older_than)
    begin = None if since is None else parse_time("since", since)
    with local_ledger(data_dir, as_json=form is not Format.TEXT) as ledger:
        now = ledger.clock()
        if past is not None and past > now:
            raise Invalid("at", f"the time is in the future: use a time up to {to_text(now)}")
        when = past or now
        selection = _selection(review, when, spans, begin)
        with ledger.database.read() as connection:
            found = list_access(
                connection, selection, at=when, past=past is not None, workspace=workspace
            )
            _WRITERS[form](found, when, review)


def _selection(
    review: Review | None,
    at: datetime,
    spans: tuple[timedelta, timedelta],
    since: datetime | None,
) -> Selection:
    if review is None:
        return CALLERS
    within, older_than = spans
    try:
        return reviewed(review, at, within=within, since=since, older_than=older_than)
    except OverflowError:
        field = "within" if review == "expiring" else "older_than"
        raise Invalid(field, TOO_LONG) from None


def _write_text(found: Iterator[Access], at: datetime, review: Review | None) -> None:
    console = stdout_console()
    count = 0
    while page := list(islice(found, _AT_ONCE)):
        count += len(page)
        _write_page(console, page)
    keys = f"{count:,} active {'key' if count == 1 else 'keys'}"
    about = f", review `{review}`" if review else ""
    stderr_console().print(f"{keys} as of {readable(at)}{about}", soft_wrap=True)


def _write_page(console: Console, page: Iterable[Access]) -> None:
    rows = [
        [
            Text(one_line(text))
            for text in (
                each.key.workspace,
                each.key.key_id,
                each.key.name,
                ", ".join(each.key.scopes),
                "Never" if each.key.expires_at is None else date(each.key.expires_at),
                f"{each.key.created_by.type}:{each.key.created_by.id}",
                f"{date(each.changed_at)} by {each.changed_by.type}:{each.changed_by.id}",
                "-" if each.key.last_used_at is None else date(each.key.last_used_at),
            )
        ]
        for each in page
    ]
    write_listing(console, _COLUMNS, rows)


def _write_csv(found: Iterator[Access], _at: datetime, _review: Review | None) -> None:
    _write_whole(to_csv(found))


def _write_json(found: Iterator[Access], at: datetime, review: Review | None) -> None:
    """Write a JSON document with one key on each line."""

    def pieces() -> Iterator[bytes]:
        yield orjson.dumps({"as_of": to_text(at), "review": review})[:-1] + b',"data":['
        for number, access in enumerate(found):
            yield (b",\n" if number else b"\n") + orjson.dumps(access_as_json(access))
        yield b'\n],"next_cursor":null}\n'

    _write_whole(pieces())


def _write_whole(pieces: Iterable[bytes]) -> None:
    """Write a document to standard output once it is complete; on an error write nothing."""
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as document:
        for piece in pieces:
            document.write(piece)
        document.seek(0)
        out = standard_output()
        out.flush()
        shutil.copyfileobj(document, out.buffer)
        out.buffer.flush()


_WRITERS: dict[Format, Callable[[Iterator[Access], datetime, Review | None], None]] = {
    Format.TEXT: _write_text,
    Format.CSV: _write_csv,
    Format.JSON: _write_json,
}
