"""Write text and JSON to a terminal or a pipe."""

import json
import sys
import unicodedata
from typing import Any, TextIO

from rich.console import Console

from api.command_line.output import standard_output

# Control characters drive a terminal, format characters turn a line around or hide a part of it;
# U+200D joins the parts of an emoji and does neither.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_HARMLESS = frozenset({"\u200d"})


def stdout_console() -> Console:
    """Return the console for the output of a command.

    Raises:
        OutputFailed: there is no standard output. Writing to the console raises it, too.
    """
    return Console(file=standard_output(), markup=False, highlight=False, emoji=False)


def stderr_console() -> Console:
    """Return the console for messages, progress and errors."""
    return Console(file=sys.stderr, markup=False, highlight=False, emoji=False)


def one_line(text: object) -> str:
    """Return a text with its control and format characters escaped, so that it stays on a line."""
    return "".join(
        character
        if unicodedata.category(character) not in _UNSAFE_CATEGORIES or character in _HARMLESS
        else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts, as in ``1 event`` or ``2,000 events``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def write_json(document: Any, stream: TextIO | None = None) -> None:  # noqa: ANN401 - any JSON
    """Write a JSON document to standard output or another stream.

    It is written as bytes, for JSON is UTF-8 whatever the terminal's encoding.
    """
    stream = stream or standard_output()
    stream.flush()
    text = json.dumps(document, indent=2, ensure_ascii=False)
    stream.buffer.write(f"{text}\n".encode())
    stream.buffer.flush()
