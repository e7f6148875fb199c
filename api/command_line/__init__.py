"""The command line: ``keyledger``, for people at a terminal and for their scripts."""

import io
import sys
from collections.abc import Sequence

from api.command_line.failures import FAILED, INTERRUPTED, check_encoding, report
from api.command_line.output import OutputFailed, finish_output, keep_descriptors
from api.command_line.root import root_command


def main() -> None:
    """Run the command that the process was started with, and exit with its status."""
    keep_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name in Greek must not end in an error where the terminal knows ASCII alone.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = run(sys.argv[1:])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    why = finish_output(interrupted=code == INTERRUPTED)
    if why is not None and code == 0:
        code = _reported(OutputFailed(why), as_json="--json" in sys.argv)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command.

    Returns:
        The exit status: 0 success, 1 failure or a finding, 2 usage error, 130 interrupted.
    """
    try:
        check_encoding(arguments)
        code = root_command().main(
            args=list(arguments), prog_name="keyledger", standalone_mode=False
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    except OutputFailed as error:
        return _reported(error, as_json="--json" in arguments)
    except Exception as error:
        failure = report(error, as_json="--json" in arguments)
        if failure is None:
            raise
        return failure
    return code if isinstance(code, int) else 0


def _reported(error: OutputFailed, *, as_json: bool) -> int:
    """Say that output was lost, unless its reader did not want it; return the exit status."""
    if error.is_broken_pipe:
        return FAILED
    return report(error, as_json=as_json) or FAILED
