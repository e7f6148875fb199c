"""Ask for confirmation of a change that cannot be undone."""

import sys

import typer

from api.command_line.failures import FAILED, USAGE_ERROR, CommandFailed
from api.command_line.terminal import one_line, stderr_console
from domain.errors import Invalid


def check_terminal() -> None:
    """Refuse to ask where nobody can answer.

    Raises:
        CommandFailed: standard input or standard error is not a terminal.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        message = "this asks for confirmation, and there is no terminal: use --yes to confirm"
        raise CommandFailed(USAGE_ERROR, Invalid.code, message)


def confirm(question: str) -> None:
    """Ask a question on the terminal.

    Raises:
        Exit: the answer is not yes.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    console = stderr_console()
    try:
        console.print(f"{one_line(question)} [y/N] ", end="", soft_wrap=True)
        if input().strip().lower() in {"y", "yes"}:
            return
    except (EOFError, KeyboardInterrupt) as error:
        console.print()
        if isinstance(error, KeyboardInterrupt):
            raise
    console.print("nothing was changed", soft_wrap=True)
    raise typer.Exit(FAILED)
