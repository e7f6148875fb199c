"""Error messages and exit statuses of commands that fail."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import typer

from api.causes import first_cause
from api.command_line.output import OutputFailed
from api.command_line.terminal import one_line, stderr_console, write_json
from domain.errors import Invalid, LedgerError, LedgerUnavailable, PoisonEvent
from domain.token_text import hide_tokens

FAILED = 1
USAGE_ERROR = 2
INTERRUPTED = 130
OUTPUT_FAILED = "OUTPUT_FAILED"
_STILL_DONE = "changes of this command were kept; check with: keyledger keys list"


class CommandFailed(Exception):
    """A command fails for a reason that only the command line knows."""

    def __init__(self, exit_code: int, code: str, detail: str) -> None:
        """Set the exit status, a ``code`` for programs and a ``detail`` for people."""
        super().__init__(detail)
        self.exit_code = exit_code
        self.code = code


@dataclass(frozen=True, slots=True)
class _Failure:
    exit_code: int
    code: str
    detail: str
    for_people: str
    members: dict[str, Any] = field(default_factory=dict)


def check_encoding(arguments: Sequence[str]) -> None:
    """Refuse arguments that are not UTF-8: neither JSON nor the database can hold them.

    Raises:
        Invalid: an argument is not UTF-8.
    """
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise Invalid(f"argument {number}", "is not valid UTF-8: use UTF-8") from None


def report(error: Exception, *, as_json: bool) -> int | None:
    """Write to standard error why a command failed.

    Returns:
        The exit status; ``None``, with nothing written, if the error is not an expected one.
    """
    failure = _failure_of(error)
    if failure is None:
        return None
    # If standard error cannot be written either, the exit status has to be enough.
    with suppress(OSError, AttributeError):
        _write(failure, as_json=as_json)
    return failure.exit_code


def _write(failure: _Failure, *, as_json: bool) -> None:
    if as_json:
        document = {"code": failure.code, "detail": hide_tokens(failure.detail)}
        write_json(document | failure.members, sys.stderr)
    elif failure.for_people:
        console = stderr_console()
        first, *rest = hide_tokens(failure.for_people).splitlines()
        console.print(f"error: {one_line(first)}", style="red", soft_wrap=True)
        for line in rest:
            console.print(f"  {one_line(line)}", soft_wrap=True)


def _failure_of(error: Exception) -> _Failure | None:
    match error:
        case Invalid():
            return _invalid(error)
        case LedgerError():
            return _refusal(error)
        case CommandFailed():
            return _Failure(error.exit_code, error.code, str(error), str(error))
        case typer.TyperException():
            return _usage(error)
        case OSError() | OutputFailed():
            return _system_failure(error)
    return None


def _system_failure(error: OSError | OutputFailed) -> _Failure:
    if isinstance(error, OutputFailed):
        detail = f"cannot write to standard output: {error}"
        return _Failure(FAILED, OUTPUT_FAILED, detail, f"{detail}\n{_STILL_DONE}")
    detail = f"{error.strerror}: {error.filename}" if error.filename else str(error)
    return _Failure(FAILED, LedgerUnavailable.code, detail, detail)


def _invalid(error: Invalid) -> _Failure:
    option = "--" + error.field.removesuffix("_seconds").replace("_", "-")
    hint = error.field if " " in error.field else option
    message = hide_tokens(error.message)
    members = {"errors": [{"field": error.field, "message": message}]}
    return _Failure(USAGE_ERROR, error.code, str(error), f"{hint}: {error.message}", members)


def _refusal(error: LedgerError) -> _Failure:
    detail = str(error)
    if isinstance(error, PoisonEvent):
        return _Failure(FAILED, error.code, detail, detail, {"position": error.position})
    if not isinstance(error, LedgerUnavailable):
        return _Failure(FAILED, error.code, detail, detail)
    cause = first_cause(error)
    hints = [] if cause is None or cause in detail else [f"cause: {cause}"]
    hints.append("run keyledger doctor to find out why")
    for_people = "\n".join([detail, *hints])
    return _Failure(FAILED, error.code, detail, for_people, {"cause": cause})


def _usage(error: typer.TyperException) -> _Failure:
    """Reword Typer's own errors; one without a text comes after a help page."""
    detail = error.format_message().strip().rstrip(".")
    detail = detail[:1].lower() + detail[1:]
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f"\ntry: {context.command_path} --help"
    return _Failure(USAGE_ERROR, Invalid.code, detail, detail and detail + hint)
