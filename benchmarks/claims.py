"""Results of benchmarks: rows of measurements, some of which are claims."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement.

    Args:
        what: what was measured.
        measured: the result, with its unit.
        floor: the baseline of the same run.
        ratio: ratio of the two, if it is the claim.
        claim: the required ratio or result, as text; empty if nothing is claimed.
        met: whether the claim holds.
    """

    what: str
    measured: str
    floor: str = ""
    ratio: float | None = None
    claim: str = ""
    met: bool | None = None


def at_least(what: str, measured: str, floor: str, ratio: float, least: float) -> Row:
    """Return a claim that a ratio is not below a minimum."""
    return Row(what, measured, floor, ratio, f"at least {least:.2f}", ratio >= least)


def at_most(what: str, measured: str, floor: str, ratio: float, most: float) -> Row:
    """Return a claim that a ratio is not above a maximum."""
    return Row(what, measured, floor, ratio, f"at most {most:.2f}", ratio <= most)


def show(console: Console, title: str, rows: list[Row]) -> None:
    """Print the rows of a benchmark."""
    table = Table("what", "measured", "floor", "ratio", "claim", "met", title=title)
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        met = {None: "", True: "[green]yes[/]", False: "[red]NO[/]"}[row.met]
        table.add_row(row.what, row.measured, row.floor, ratio, row.claim, met)
    console.print(table)
