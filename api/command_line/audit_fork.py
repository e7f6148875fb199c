"""``keyledger audit fork``: start a new log after the signed one was lost."""

import secrets
from typing import Annotated

import typer

from api.command_line.confirmation import check_terminal, confirm
from api.command_line.local_ledger import local_caller, local_ledger
from api.command_line.options import AsJson, DataDir, Yes
from api.command_line.terminal import one_line, stderr_console, stdout_console, write_json
from api.composition import OpenLedger
from domain.public_event import public_event
from projections.audit_log.fork import fork
from projections.views.registry import VIEWS

Reason = Annotated[
    str, typer.Option("--reason", help="Reason; the audit log keeps it for all its readers.")
]


def fork_log(
    reason: Reason, *, yes: Yes = False, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Start a new log after the signed one was lost, with a new name and a new signing key.

    Use it when the server refuses changes because the log does not match its signed checkpoints,
    and the signed log cannot be restored. The new log begins with the events of this ledger and
    records the fork. Restart all servers afterwards.
    """
    with local_ledger(data_dir, as_json=as_json) as ledger:
        if not yes:
            _ask(ledger)
        forked = fork(
            ledger.database,
            VIEWS,
            ledger.signer,
            key_path=ledger.settings.signing_key_path,
            random=secrets.token_bytes,
            reason=reason,
            by=local_caller(),
            at=ledger.clock(),
        )
        if as_json:
            write_json(public_event(forked))
            return
        console = stdout_console()
        console.print(
            one_line(
                f"The log {forked.previous_origin} ended at {forked.previous_size} signed entries."
                f" The new log is {forked.origin}."
            ),
            soft_wrap=True,
        )
        console.print(f"Public key: {ledger.signer.key.verifier_key}", soft_wrap=True)
        console.print("Give this key to your auditors, and restart the servers.", soft_wrap=True)


def _ask(ledger: OpenLedger) -> None:
    """Ask for confirmation, and say why a fork is needed and where the new key will be.

    Raises:
        CommandFailed: there is no terminal.
        Exit: the answer is no.
    """
    check_terminal()
    console = stderr_console()
    if ledger.signer.doubt is None:
        console.print("The log agrees with its checkpoints: no fork is needed.", soft_wrap=True)
    else:
        console.print(one_line(f"Changes are refused: {ledger.signer.doubt}"), soft_wrap=True)
    folder = ledger.settings.signing_key_path.parent
    question = (
        f"End this log and start a new one with a new key in {folder}? Servers with the old key"
        " will refuse changes. This cannot be undone."
    )
    confirm(question)
