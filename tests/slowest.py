"""Names the files whose tests took the longest, at the end of a run."""

from collections import defaultdict
from operator import itemgetter

import pytest

SHOWN = 10

_seconds: defaultdict[str, float] = defaultdict(float)


def count(report: pytest.TestReport) -> None:
    """Add what a part of a test took to its file."""
    _seconds[report.nodeid.partition("::")[0]] += report.duration


def show(reporter: pytest.TerminalReporter) -> None:
    """Write the table."""
    reporter.section("slowest files", sep="-")
    for file, seconds in sorted(_seconds.items(), key=itemgetter(1), reverse=True)[:SHOWN]:
        reporter.line(f"{seconds:7.1f} s  {file}")
