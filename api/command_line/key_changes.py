"""The commands that create, update, rotate and revoke keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from rich.text import Text

from api.command_line.confirmation import check_terminal, confirm
from api.command_line.failures import FAILED, INTERRUPTED, USAGE_ERROR, CommandFailed
from api.command_line.key_display import write_key
from api.command_line.key_queries import shown
from api.command_line.local_ledger import local_caller, local_ledger
from api.command_line.options import (
    AsJson,
    DataDir,
    ExpiresAt,
    ExpiresIn,
    KeyId,
    Scopes,
    Workspace,
    Yes,
    split_scopes,
)
from api.command_line.output import OutputFailed, standard_output
from api.command_line.terminal import one_line, stderr_console, stdout_console, write_json
from api.command_line.time_formats import parse_duration, parse_end, readable
from api.composition import OpenLedger
from api.formats.as_json import key_as_json
from domain.errors import Invalid
from domain.key_ledger import Changes, Issued
from domain.names import DEFAULT_WORKSPACE
from projections.views.key_fields import ListedKey


def create(
    *,
    name: Annotated[str, typer.Option(help="Name of the key, such as payments-api.")],
    scopes: Scopes,
    workspace: Workspace = DEFAULT_WORKSPACE,
    expires_at: ExpiresAt = None,
    expires_in: ExpiresIn = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="Token prefix.", show_default="KEYLEDGER_TOKEN_PREFIX"),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and show its token, which is shown only once."""
    standard_output()
    with local_ledger(data_dir, as_json=as_json, may_make=True) as ledger:
        now = ledger.clock()
        issued = ledger.ledger.create_key(
            workspace=workspace,
            name=name,
            scopes=split_scopes(scopes),
            expires_at=parse_end(expires_at, expires_in, now=now),
            token_prefix=ledger.settings.token_prefix if prefix is None else prefix,
            by=local_caller(),
            at=now,
        )
        _write_issued(ledger, workspace, issued, as_json=as_json)


def rotate(
    key_id: KeyId,
    *,
    grace: Annotated[
        str, typer.Option(help="How long the old key still works, such as 1h.", metavar="DURATION")
    ] = "0s",
    expires_at: ExpiresAt = None,
    expires_in: ExpiresIn = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Replace a key: create a successor, show its token, and expire the old key after --grace."""
    standard_output()
    span = timedelta(0) if grace == "0" else parse_duration("grace", grace)
    ends = expires_at is not None or expires_in is not None
    with local_ledger(data_dir, as_json=as_json) as ledger:
        now = ledger.clock()
        end = parse_end(expires_at, expires_in, now=now)
        issued = ledger.ledger.rotate_key(
            key_id,
            workspace=workspace,
            grace=span,
            expires_at=end,
            never_expires=ends and end is None,
            by=local_caller(),
            at=now,
        )
        _write_issued(ledger, workspace, issued, as_json=as_json)
        if not as_json:
            end = shown(ledger, workspace, key_id).expires_at
            works = "no longer works" if not span else f"works until {end and readable(end)}"
            stdout_console().print(f"\nThe old key {key_id} {works}.", soft_wrap=True)


def update(
    key_id: KeyId,
    *,
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    scopes: Annotated[
        list[str] | None,
        typer.Option(help="New scopes; they replace all scopes of the key.", metavar="A:B,C:D"),
    ] = None,
    expires_at: ExpiresAt = None,
    expires_in: ExpiresIn = None,
    never_expires: Annotated[
        bool, typer.Option("--never-expires", help="Remove the expiration time.")
    ] = False,
    workspace: Workspace = DEFAULT_WORKSPACE,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change the name, scopes or expiration time of a key: all given changes, or none."""
    ends = expires_at is not None or expires_in is not None
    if never_expires and ends:
        raise Invalid("never_expires", "leave out --expires-at and --expires-in")
    if not (ends or never_expires or name is not None or scopes):
        raise CommandFailed(
            USAGE_ERROR,
            Invalid.code,
            "nothing to change: use --name, --scopes, --expires-at, --expires-in or"
            " --never-expires",
        )
    with local_ledger(data_dir, as_json=as_json) as ledger:
        now = ledger.clock()
        end = parse_end(expires_at, expires_in, now=now)
        ledger.ledger.update_key(
            key_id,
            Changes(
                name=name,
                scopes=split_scopes(scopes) if scopes else None,
                expires_at=end,
                never_expires=never_expires or (ends and end is None),
            ),
            workspace=workspace,
            by=local_caller(),
            at=now,
        )
        _write_changed(ledger, workspace, key_id, as_json=as_json)


def revoke(
    key_id: KeyId,
    *,
    reason: Annotated[str | None, typer.Option(help="Reason, on one line.")] = None,
    comment: Annotated[str | None, typer.Option(help="Details, on one or more lines.")] = None,
    yes: Yes = False,
    workspace: Workspace = DEFAULT_WORKSPACE,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key immediately and permanently."""
    with local_ledger(data_dir, as_json=as_json) as ledger:
        key = shown(ledger, workspace, key_id)
        if not (yes or key.status == "revoked"):
            _ask(key)
        ledger.ledger.revoke_key(
            key_id,
            workspace=workspace,
            reason=reason,
            comment=comment,
            by=local_caller(),
            at=ledger.clock(),
        )
        _write_changed(ledger, workspace, key_id, as_json=as_json)


def _write_issued(ledger: OpenLedger, workspace: str, issued: Issued, *, as_json: bool) -> None:
    """Write a new key and its token, which is written nowhere else.

    Raises:
        CommandFailed: the token could not be written.
    """
    with _naming_the_key(issued.key_id, workspace):
        key = shown(ledger, workspace, issued.key_id)
        token = None if issued.token is None else issued.token.reveal()
        if as_json:
            write_json(key_as_json(key) | {"token": token})
            return
        console = stdout_console()
        write_key(console, key, ledger.clock())
        console.print(
            "\nThe token is shown only once. Store it now:\n", style="bold", soft_wrap=True
        )
        console.print(token, style="green", soft_wrap=True)


@contextmanager
def _naming_the_key(key_id: str, workspace: str) -> Iterator[None]:
    """Name the new key and the possible remedies if its token cannot be shown.

    Raises:
        CommandFailed: the token could not be shown.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise _not_shown(key_id, workspace, "interrupted", INTERRUPTED) from error
    except OutputFailed as error:
        raise _not_shown(key_id, workspace, f"standard output: {error}") from error
    except Exception as error:
        raise _not_shown(key_id, workspace, str(error) or type(error).__name__) from error


def _not_shown(key_id: str, workspace: str, why: str, exit_code: int = FAILED) -> CommandFailed:
    options = f"{key_id} --workspace {workspace}"
    return CommandFailed(
        exit_code,
        "TOKEN_NOT_SHOWN",
        f"the key {key_id} was created, but its token could not be shown: {one_line(why)}\n"
        "the token cannot be shown again; do one of these:\n"
        f"to get a new token: keyledger keys rotate {options}\n"
        f"to revoke the key: keyledger keys revoke {options}",
    )


def _write_changed(ledger: OpenLedger, workspace: str, key_id: str, *, as_json: bool) -> None:
    key = shown(ledger, workspace, key_id)
    if as_json:
        write_json(key_as_json(key))
    else:
        write_key(stdout_console(), key, ledger.clock())


def _ask(key: ListedKey) -> None:
    """Ask for confirmation.

    Raises:
        CommandFailed: there is no terminal.
        Exit: the answer is no.
    """
    check_terminal()
    name = Text(one_line(key.name), style="bold")
    stderr_console().print(Text.assemble(name, f"  {key.key_id}"), soft_wrap=True)
    confirm("Revoke this key? It stops working immediately, and this cannot be undone.")
