"""``keyledger copy``: copy the ledger to another database."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from secrets import token_bytes
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text
from sqlalchemy import make_url

from api.command_line.failures import FAILED, CommandFailed
from api.command_line.local_ledger import (
    checked_settings,
    database_path,
    is_on_a_server,
    say_repaired,
    say_which_ledger,
)
from api.command_line.options import AsJson, DataDir
from api.command_line.progress import ReplayProgress
from api.command_line.terminal import counted, one_line, stdout_console, write_json
from api.composition import owner_of_files, utc_now
from api.settings import Settings, checked_database_url
from domain.errors import Invalid
from domain.pepper import Pepper
from projections.auth.pepper_file import read_or_make_pepper
from projections.integrity.inspection import kind_of_file
from projections.ledger_copy.copy import CopyReport, copy_ledger
from projections.sealing.ledger_secret import check_pepper_exists
from projections.store.database import Database, open_database, url_without_passwords
from projections.store.seals import Seals

app = typer.Typer(add_completion=False)

_NEXT = """\
To move to the copy:
  1. stop all servers of this ledger, and run the same command again: it copies the events after \
position {report.extent.position}
{roles}  {step}. set KEYLEDGER_DATABASE_URL={url}
     and keep the folder {settings.data_dir}: the new database needs its pepper, signing key and \
checkpoints
  {after}. run the integrity check: keyledger audit verify
  {last}. start the servers; console users have to sign in again
The old database was not changed. Keep it as a backup, and do not use it for new changes: the \
checkpoints continue with the new database and would not match the old one.
"""

_ROLES = """\
  2. as a superuser of the new database, run docs/postgresql-roles.sql: it grants the servers' \
role its privileges on the new tables
"""
_SERVER_ROLE = "keyledger_server"
"""Role of the servers in docs/postgresql-roles.sql; the owner of the tables makes the copy."""


@app.command()
def copy(
    *,
    to: Annotated[
        str,
        typer.Option(
            help="URL of an empty database: sqlite:////absolute/path or"
            " postgresql+psycopg://user@host/database. Keep the password in ~/.pgpass.",
            metavar="URL",
        ),
    ],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Copy the ledger to another database, and verify the copy.

    The ledger is not changed, and the server can keep running. Run the same command again to
    resume an interrupted copy, or to copy what was appended since.
    """
    settings = checked_settings(data_dir=data_dir)
    try:
        target_url = checked_database_url(to)
    except ValueError as error:
        raise Invalid("to", str(error)) from None
    with _source(settings) as source:
        if not as_json:
            say_which_ledger(source.url)
        with (
            closing(
                open_database(target_url, settings.connection_limits, owner_of_files(settings))
            ) as target,
            ReplayProgress() as progress,
        ):
            copied_to = target.sealed_by(Seals(_pepper(source, settings)))
            report = copy_ledger(source, copied_to, clock=utc_now, progress=progress)
    if as_json:
        write_json(_as_json(report))
    else:
        _write(stdout_console(), report, settings)


def _pepper(source: Database, settings: Settings) -> Pepper:
    check_pepper_exists(source, settings.pepper_path)
    return read_or_make_pepper(
        settings.pepper_path,
        token_bytes,
        owner=owner_of_files(settings),
        on_repair=say_repaired,
    )


@contextmanager
def _source(settings: Settings) -> Iterator[Database]:
    """Open the ledger of the settings, unless opening would change it."""
    url = make_url(settings.url)
    if not is_on_a_server(url):
        path = database_path(url)
        match kind_of_file(path):
            case "absent" | "empty":
                message = (
                    f"there is no ledger at {path}\nset --data-dir or KEYLEDGER_DATA_DIR to its"
                    " folder, or KEYLEDGER_DATABASE_URL to its database"
                )
                raise CommandFailed(FAILED, "LEDGER_NOT_FOUND", message)
            case "rollback journal":
                message = (
                    f"{path} does not use the write-ahead log: run any other command first, such as"
                    " keyledger projections status, which turns it on"
                )
                raise CommandFailed(FAILED, "LEDGER_NOT_FOUND", message)
    with closing(open_database(url, settings.connection_limits)) as source:
        yield source


def _as_json(report: CopyReport) -> dict[str, object]:
    extent = report.extent
    return {
        "source": report.source,
        "target": report.target,
        "copied": report.copied,
        "events": extent.events,
        "position": extent.position,
        "entries": extent.entries,
        "root": b64encode(extent.root).decode(),
        "projections": extent.rows,
        **report.beside_events,
        "appended_since": report.appended_since,
        "seconds": report.seconds,
    }


def _write(console: Console, report: CopyReport, settings: Settings) -> None:
    extent = report.extent
    beside = ", ".join(
        counted(rows, name.removesuffix("s").replace("_", " "))
        for name, rows in report.beside_events.items()
    )
    lines: list[Text | str] = [
        f"copied {counted(report.copied, 'event')} in {report.seconds:.2f} s to {report.target}",
        Text.assemble(
            f"{counted(extent.events, 'event')}, the last at position"
            f" {extent.position:,}, and {beside}: ",
            ("identical in both databases, each event byte for byte", "green"),
        ),
        f"root of {extent.entries:,} entries in both: {b64encode(extent.root).decode()}",
    ]
    if report.appended_since:
        appended = f"{counted(report.appended_since, 'event')} appended since: not in the copy"
        lines.append(Text(appended, "yellow"))
    lines += ["", *_next_steps(report, settings).splitlines()]
    for line in lines:
        console.print(line if isinstance(line, Text) else one_line(line), soft_wrap=True)


def _next_steps(report: CopyReport, settings: Settings) -> str:
    """Return the steps to move to the copy; the URL for servers names their own role."""
    url = make_url(report.target)
    on_server = is_on_a_server(url)
    if on_server:
        url = url.difference_update_query(["user"]).set(username=_SERVER_ROLE)
    step = 3 if on_server else 2
    return _NEXT.format(
        report=report,
        settings=settings,
        roles=_ROLES if on_server else "",
        url=url_without_passwords(url),
        step=step,
        after=step + 1,
        last=step + 2,
    )
