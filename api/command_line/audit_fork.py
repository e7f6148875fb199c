"""``keyledger audit fork``: go on with a log that is not the one that was signed."""

import secrets
from typing import Annotated

import typer

from api.command_line.confirmation import agreed, somebody_is_there
from api.command_line.failures import CALLED_WRONGLY, REFUSED, CommandFailed
from api.command_line.local_ledger import local_caller, local_ledger
from api.command_line.options import AsJson, DataDir
from api.command_line.terminal import one_line, stderr_console, stdout_console, write_json
from api.composition import OpenLedger
from domain.errors import Invalid
from domain.public_event import public_event
from projections.audit_log.fork import fork
from projections.views.registry import VIEWS

Reason = Annotated[
    str, typer.Option("--reason", help="Why; everybody who will ever read the log reads it.")
]


Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask; needed where nobody can be asked.")
]


def fork_log(
    reason: Reason, *, yes: Yes = False, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Begin a new log with what this ledger has, under another name and key, for all to see.

    To be called when changes are refused because the log is not the one that was signed, and that
    one cannot be restored. Servers that are running have to be started anew afterwards.
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
                f" It goes on as {forked.origin}."
            ),
            soft_wrap=True,
        )
        console.print(f"Public key: {ledger.signer.key.verifier_key}", soft_wrap=True)
        console.print("Give it to your auditors, and restart the servers.", soft_wrap=True)


def _ask(ledger: OpenLedger) -> None:
    """Let a person say once more that the log is to end here, and where the new one will be.

    Raises:
        CommandFailed: nobody is there to be asked.
        Exit: they do not want it.
    """
    if not somebody_is_there():
        raise CommandFailed(
            CALLED_WRONGLY,
            Invalid.code,
            "this ends the log, and cannot be taken back; if it is meant, add --yes",
        )
    console = stderr_console()
    if ledger.signer.doubt is None:
        console.print("The log agrees with its checkpoints: no fork is needed.", soft_wrap=True)
    else:
        console.print(one_line(f"Now changes are refused: {ledger.signer.doubt}"), soft_wrap=True)
    folder = ledger.settings.signing_key_path.parent
    question = (
        f"End this log, and go on with a new one, whose key will be in {folder}? Servers that have"
        " the old key will refuse changes, and it cannot be taken back."
    )
    if not agreed(one_line(question)):
        console.print("nothing was changed", soft_wrap=True)
        raise typer.Exit(REFUSED)
