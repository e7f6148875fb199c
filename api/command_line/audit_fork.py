"""``keyledger audit fork``: go on with a log that is not the one that was signed."""

import secrets
from typing import Annotated

import typer

from api.command_line.local_ledger import local_caller, local_ledger
from api.command_line.options import AsJson, DataDir
from api.command_line.terminal import one_line, stdout_console, write_json
from domain.public_event import public_event
from projections.fork import fork
from projections.views import VIEWS

Reason = Annotated[
    str, typer.Option("--reason", help="Why; everybody who will ever read the log reads it.")
]


def fork_log(reason: Reason, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Begin a new log with what this ledger has, under another name and key, for all to see.

    To be called when changes are refused because the log is not the one that was signed, and that
    one cannot be restored. Servers that are running have to be started anew afterwards.
    """
    with local_ledger(data_dir, as_json=as_json) as ledger:
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
        console.print("Give it to your auditors, and start the servers anew.", soft_wrap=True)
