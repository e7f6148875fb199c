"""``keyledger doctor``: diagnose the program, its files and its database."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain

import typer
from rich.console import Console
from rich.text import Text
from sqlalchemy import make_url

from api.command_line.checks import Check, Result
from api.command_line.database_checks import check_database, check_server
from api.command_line.failures import FAILED
from api.command_line.file_checks import check_disk, check_folder, check_pepper
from api.command_line.listing import Column, write_listing
from api.command_line.local_ledger import (
    checked_settings,
    database_path,
    is_on_a_server,
    say_which_ledger,
)
from api.command_line.options import AsJson, DataDir
from api.command_line.owner_checks import check_files
from api.command_line.program_checks import check_program, check_python, check_sqlite
from api.command_line.signing_checks import check_signing
from api.command_line.terminal import one_line, stdout_console, write_json
from api.settings import Settings

app = typer.Typer(add_completion=False)

_STYLES: dict[Result, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_COLUMNS = (
    Column("CHECK"),
    Column("RESULT"),
    Column("FOUND", wraps=True),
    Column("WHAT TO DO", wraps=True),
)


@app.command()
def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Diagnose the program, its files and its database, without changing anything."""
    settings = checked_settings(data_dir=data_dir)
    if not as_json:
        say_which_ledger(make_url(settings.url))
    checks: Iterable[Check] = chain(
        [check_program(), check_python()],
        # File modes come first, since opening the database makes more files.
        [check_folder(settings.data_dir), check_pepper(settings.pepper_path)],
        check_signing(settings.signing_key_path, settings.checkpoint_path),
        check_files(settings),
        _check_database(settings),
    )
    found = list(checks)
    failed = any(check.result == "fail" for check in found)
    if as_json:
        write_json({"healthy": not failed, "checks": [asdict(check) for check in found]})
    else:
        _write(stdout_console(), found)
    if failed:
        raise typer.Exit(FAILED)


def _check_database(settings: Settings) -> Iterator[Check]:
    url = make_url(settings.url)
    if is_on_a_server(url):
        yield from check_server(settings)
        return
    path = database_path(url)
    yield check_sqlite()
    yield check_disk(path)
    yield from check_database(settings, path)


def _write(console: Console, checks: Sequence[Check]) -> None:
    rows = [
        [
            Text(check.name, style="bold"),
            Text(check.result, style=_STYLES[check.result]),
            Text(one_line(check.found)),
            Text(one_line(check.remedy or "")),
        ]
        for check in checks
    ]
    write_listing(console, _COLUMNS, rows)
    counts = Counter(check.result for check in checks)
    summary = ", ".join(f"{counts[result]} {result}" for result in _STYLES if counts[result])
    worst = next(result for result in reversed(_STYLES) if counts[result])
    console.print(f"\n{summary}", style=_STYLES[worst], soft_wrap=True)
