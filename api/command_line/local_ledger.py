"""Open the ledger of a command, and name the caller."""

import os
import pwd
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, make_url

from api.command_line.failures import FAILED, USAGE_ERROR, CommandFailed
from api.command_line.progress import ReplayProgress
from api.command_line.terminal import one_line, stderr_console
from api.composition import OnSchema, OpenLedger, opened_ledger
from api.logs import log_to_stderr
from api.settings import Settings, SettingsError, read_settings
from domain.caller import Actor, Caller
from domain.errors import LedgerError
from domain.token_text import contains_token
from projections.integrity.schema_check import refuse_schema
from projections.store.database import SQLITE, open_database, url_without_passwords
from projections.store.schema import has_ledger

NO_LEDGER = "set --data-dir or KEYLEDGER_DATA_DIR to its folder, or create one: keyledger serve"
NO_LEDGER_ON_SERVER = "set KEYLEDGER_DATABASE_URL to its database, or create one: keyledger serve"
"""What to do where there is no ledger."""


def checked_settings(**given: object) -> Settings:
    """Read the settings; ``given`` options override environment variables.

    Raises:
        CommandFailed: a setting is not valid.
    """
    log_to_stderr()
    try:
        return read_settings(**given)
    except SettingsError as error:
        raise CommandFailed(USAGE_ERROR, "INVALID_SETTINGS", str(error)) from None


@contextmanager
def local_ledger(
    data_dir: Path | None,
    *,
    as_json: bool,
    may_make: bool = False,
    downgrade: bool = False,
    on_schema: OnSchema = refuse_schema,
) -> Iterator[OpenLedger]:
    """Open the ledger of the settings, and print which one it is.

    Args:
        may_make: create the ledger if it does not exist. Only for commands that add to the ledger:
            a command that reads a missing ledger more likely got a mistyped path.
        downgrade: whether to replace the tables of views that a newer version has made.
        on_schema: is called with the findings about the tables, and raises an error or returns.

    Raises:
        CommandFailed: a setting is not valid, or there is no ledger.
        LedgerError: the ledger cannot be opened.
    """
    settings = checked_settings(data_dir=data_dir)
    url = make_url(settings.url)
    if not may_make:
        check_is_there(settings)
    if not as_json:
        say_which_ledger(url)
    with (
        ReplayProgress() as progress,
        opened_ledger(
            settings,
            progress=progress,
            downgrade=downgrade,
            on_schema=on_schema,
            on_repair=say_repaired,
        ) as ledger,
    ):
        yield ledger
        try:
            # No server may be running that signs.
            ledger.signer.sign()
        except LedgerError as error:
            stderr_console().print(one_line(f"no checkpoint was signed: {error}"), soft_wrap=True)


def check_is_there(settings: Settings) -> None:
    """Check that the ledger of the settings exists.

    Raises:
        CommandFailed: there is no ledger.
    """
    if _is_there(settings):
        return
    url = make_url(settings.url)
    on_server = is_on_a_server(url)
    where = url_without_passwords(url) if on_server else database_path(url)
    raise CommandFailed(
        FAILED,
        "LEDGER_NOT_FOUND",
        f"there is no ledger at {where}\n{NO_LEDGER_ON_SERVER if on_server else NO_LEDGER}",
    )


def _is_there(settings: Settings) -> bool:
    """Return whether there is a ledger, without creating one."""
    url = make_url(settings.url)
    if not is_on_a_server(url):
        return database_path(url).exists()
    with closing(open_database(settings.url, settings.connection_limits)) as database:
        return has_ledger(database)


def is_on_a_server(url: URL) -> bool:
    """Return whether a database is on a server, and not a file of this machine."""
    return url.get_backend_name() != SQLITE


def database_path(url: URL) -> Path:
    """Return the file of an SQLite database."""
    return Path(url.database or "")


def say_which_ledger(url: URL) -> None:
    """Print which database a command uses."""
    stderr_console().print(
        one_line(f"ledger: {url_without_passwords(url)}"), style="dim", soft_wrap=True
    )


def say_repaired(said: str) -> None:
    """Write a warning about a file that others could open."""
    stderr_console().print(one_line(f"warning: {said}"), style="yellow", soft_wrap=True)


def local_caller() -> Caller:
    """Return the caller of a command, named by the operating system's account.

    The caller holds all scopes: an account that can write to the database file needs no key.
    """
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = ""
    if not name or contains_token(name):
        name = f"uid-{number}"
    return Caller(Actor("cli", name), holds=("*",))
