"""``keyledger audit seal``: seal the ledger with this machine's pepper, after a full check."""

from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy import make_url

from api.command_line.audit_verify import write_findings
from api.command_line.confirmation import check_terminal, confirm
from api.command_line.failures import FAILED, CommandFailed
from api.command_line.local_ledger import (
    check_is_there,
    checked_settings,
    local_caller,
    say_repaired,
    say_which_ledger,
)
from api.command_line.options import AsJson, DataDir, Yes
from api.command_line.progress import ReplayProgress
from api.command_line.terminal import counted, one_line, stderr_console, stdout_console, write_json
from api.composition import LedgerToSeal, opened_to_seal, utc_now
from domain.errors import HistoryInDoubt, Invalid
from domain.names import checked_reason
from domain.public_event import public_event
from projections.integrity.verify import IntegrityReport, check_integrity
from projections.sealing.reseal import Proven, Record, events_not_sealed, seal_all
from projections.views.registry import VIEWS

Reason = Annotated[
    str, typer.Option("--reason", help="Reason; the audit log keeps it for all its readers.")
]
WithoutCheckpoints = Annotated[
    bool,
    typer.Option(
        "--without-checkpoints",
        help="Skip the comparison with signed checkpoints, if the signing key is lost too. Run"
        " `keyledger audit fork` afterwards.",
    ),
]

_SHOWN = 3


def seal_ledger(
    reason: Reason,
    *,
    yes: Yes = False,
    without_checkpoints: WithoutCheckpoints = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Seal every event with the pepper of this machine, and record it in the audit log.

    Use it when the pepper is lost, or when a ledger of an older version has no checkpoint that
    covers all its events. It first runs the full integrity check, and refuses if that finds
    anything. Stop all servers before; start them afterwards with this pepper.
    """
    why = checked_reason(reason)
    if why is None:
        raise Invalid("reason", "give a reason")
    settings = checked_settings(data_dir=data_dir)
    check_is_there(settings)
    if not as_json:
        say_which_ledger(make_url(settings.url))
    with (
        ReplayProgress() as progress,
        opened_to_seal(settings, progress=progress, on_repair=say_repaired) as ledger,
    ):
        attestation = _checked(ledger, progress, without_checkpoints=without_checkpoints)
        if attestation.findings:
            write_findings(stderr_console(), attestation.findings, attestation.not_listed)
            raise CommandFailed(
                FAILED,
                "INTEGRITY_CHECK_FAILED",
                f"the integrity check has {counted(attestation.found, 'finding')}, so nothing was"
                " sealed: restore a backup without these findings",
            )
        _refuse_planted(ledger)
        _say_uncovered(ledger, attestation)
        if not yes:
            _ask(ledger)
        resealed = seal_all(
            ledger.database,
            VIEWS,
            ledger.seals,
            Proven(attestation.events, attestation.root or b""),
            record=Record(why, local_caller(), utc_now()),
            progress=progress,
        )
        assert resealed is not None  # noqa: S101 - it was asked for
        ledger.finish(progress)
    if as_json:
        write_json(public_event(resealed))
        return
    _say(
        stdout_console(),
        f"{counted(resealed.events, 'event')} sealed with the secret {resealed.secret_id}."
        " Copy the file `pepper` to every machine of this ledger, keep a backup of it, and start"
        " the servers.",
    )


def _checked(
    ledger: LedgerToSeal, progress: ReplayProgress, *, without_checkpoints: bool
) -> IntegrityReport:
    """Run the full integrity check without the seals, which cannot be checked yet.

    Raises:
        HistoryInDoubt: the log does not match its signed checkpoints.
    """
    if without_checkpoints:
        return check_integrity(ledger.database, notes=[], keys=None, progress=progress)
    try:
        ledger.signer.check_log()
    except HistoryInDoubt as error:
        message = f"{error}. If the signing key is lost too, use --without-checkpoints"
        raise HistoryInDoubt(message) from error
    return check_integrity(
        ledger.database,
        notes=ledger.notes(),
        keys=[ledger.signer.key.verifier_key],
        progress=progress,
    )


def _refuse_planted(ledger: LedgerToSeal) -> None:
    """Refuse to seal events that the ledger did not write, if it is sealed with this secret.

    Raises:
        CommandFailed: some events have valid seals, and others have not.
    """
    wrong = events_not_sealed(ledger.database, ledger.seals)
    if wrong:
        shown = ", ".join(map(str, wrong[:_SHOWN])) + (", …" if len(wrong) > _SHOWN else "")
        raise CommandFailed(
            FAILED,
            "INTEGRITY_CHECK_FAILED",
            "the ledger is already sealed with this machine's pepper, but"
            f" {counted(len(wrong), 'event')} (position {shown}) without a valid seal: the ledger"
            " did not write that. Nothing was sealed: restore a backup without it",
        )


def _say_uncovered(ledger: LedgerToSeal, attestation: IntegrityReport) -> None:
    """Say how many events no signed checkpoint covers, also with ``--yes``."""
    uncovered = attestation.events - ledger.covered(attestation.events)
    covered = (
        f"{uncovered} of {counted(attestation.events, 'event')} are not covered by a signed"
        " checkpoint outside the database: nothing proves that the ledger wrote them."
        if uncovered
        else "Signed checkpoints outside the database cover all events."
    )
    _say(stderr_console(), f"The integrity check has no findings. {covered}")


def _ask(ledger: LedgerToSeal) -> None:
    """Ask a person to confirm.

    Raises:
        CommandFailed: there is no terminal.
        Exit: the answer is no.
    """
    check_terminal()
    confirm(f"Seal all events with the secret {ledger.seals.secret_id}?")


def _say(console: Console, text: str) -> None:
    console.print(one_line(text), soft_wrap=True)
