"""Tables and lines about projections and their replays."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from api.command_line.listing import Column, write_listing
from api.command_line.terminal import counted, one_line
from api.command_line.time_formats import readable
from projections.rebuild.comparison import Difference
from projections.rebuild.rebuild import ReplayReport
from projections.rebuild.status import ProjectionStatus

_STATUS_COLUMNS = (
    Column("NAME"),
    Column("VERSION", right=True),
    Column("POSITION", right=True),
    Column("LAST", right=True),
    Column("LAG", right=True),
    Column("ROWS", right=True),
    Column("BUILT"),
    Column("REBUILD"),
)
_DIFFERENCE_COLUMNS = (
    Column("KEY ID"),
    Column("PROBLEM"),
    Column("COLUMN"),
    Column("FOUND", wraps=True),
    Column("EXPECTED", wraps=True),
)


def write_statuses(console: Console, statuses: Sequence[ProjectionStatus]) -> None:
    """Write the status of projections."""
    rows = [
        [
            Text(status.name, style="bold"),
            Text(str(status.view_version)),
            Text(f"{status.position:,}"),
            Text(f"{status.last_position:,}"),
            Text(f"{status.lag:,}", style="red" if status.lag else "green"),
            Text(f"{status.rows:,}"),
            Text("never" if status.completed_at is None else readable(status.completed_at)),
            _rebuild(status),
        ]
        for status in statuses
    ]
    write_listing(console, _STATUS_COLUMNS, rows)


def write_rebuild(console: Console, report: ReplayReport) -> None:
    """Write the result of a rebuild."""
    count = f"{report.differing:,}"
    if report.differing:
        found = Text(f"rows that differed from the events, now corrected: {count}", "yellow")
    else:
        found = Text("no row differed from the events", "green")
    wait = f"writers waited {report.locked_seconds * 1000:,.0f} ms"
    line = Text.assemble((report.view, "bold"), f": rebuilt {_effort(report)}, {wait}; ", found)
    console.print(line, soft_wrap=True)


def write_check(console: Console, report: ReplayReport) -> None:
    """Write each row that differs from the events, and how to correct it."""
    if report.differences:
        rows = [row for difference in report.differences for row in _cells(difference)]
        write_listing(console, _DIFFERENCE_COLUMNS, rows)
        unsaid = report.differing - len(report.differences)
        console.print(f"... and {counted(unsaid, 'row')} more\n" if unsaid else "", soft_wrap=True)
    if report.differing:
        remedy = f"; run: keyledger projections rebuild {report.view}"
        found = Text(f"rows that differ from the events: {report.differing:,}{remedy}", "red")
    else:
        found = Text("no row differs from the events", "green")
    line = Text.assemble((report.view, "bold"), f": checked {_effort(report)}; ", found)
    console.print(line, soft_wrap=True)


def _effort(report: ReplayReport) -> str:
    speed = report.events / report.seconds
    return f"{counted(report.events, 'event')} in {report.seconds:.2f} s ({speed:,.0f}/s)"


def _rebuild(status: ProjectionStatus) -> Text:
    if status.rebuild_position is None:
        return Text("-")
    return Text(f"at {status.rebuild_position:,}", style="yellow")


def _cells(difference: Difference) -> Iterator[list[Text]]:
    row = [Text(one_line(difference.key_id)), Text(difference.problem, style="red")]
    if not difference.columns:
        yield [*row, Text(""), Text(""), Text("")]
    for name, (live, right) in difference.columns.items():
        yield [*row, Text(name), _value(live), _value(right)]


def _value(value: object) -> Text:
    return Text("null" if value is None else one_line(value) or "''")
