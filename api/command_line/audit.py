"""``keyledger audit``: the history, its proof, and what follows from it."""

import typer

from api.command_line import audit_fork

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command("fork")(audit_fork.fork_log)


@app.callback()
def audit() -> None:
    """Prove, check and report what happened."""
