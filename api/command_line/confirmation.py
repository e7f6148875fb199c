"""Asking whether something is meant that cannot be taken back."""

import sys

from api.command_line.terminal import stderr_console


def somebody_is_there() -> bool:
    """Tell whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str) -> bool:
    """Ask a person; anything but a yes is a no.

    Raises:
        KeyboardInterrupt: they want no more of it.
    """
    console = stderr_console()
    try:
        console.print(f"{question} [y/N] ", end="", soft_wrap=True, markup=False)
        return input().strip().lower() in {"y", "yes"}
    except (EOFError, KeyboardInterrupt) as error:
        console.print()
        if isinstance(error, KeyboardInterrupt):
            raise
        return False
