"""``keyledger audit``: check, export and report the audit trail."""

import typer

from api.command_line import (
    audit_fork,
    audit_packs,
    audit_replay,
    audit_report,
    audit_seal,
    audit_verify,
)

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command("verify")(audit_verify.verify)
app.command("replay")(audit_replay.replay)
app.command("export")(audit_packs.export)
app.command("verify-pack")(audit_packs.check_pack)
app.command("report")(audit_report.report)
app.command("fork")(audit_fork.fork_log)
app.command("seal")(audit_seal.seal_ledger)


@app.callback()
def audit() -> None:
    """Check, export and report the audit trail."""
