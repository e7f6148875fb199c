"""What a benchmark says: rows of measurements, some of them claims."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Args:
        what: what was measured.
        measured: the figure, with its unit.
        floor: what it is held against, measured in the same run.
        ratio: of the two, where that is the claim.
        claim: what the ratio or the figure must be, in words; empty where nothing is claimed.
        met: whether it is.
    """

    what: str
    measured: str
    floor: str = ""
    ratio: float | None = None
    claim: str = ""
    met: bool | None = None


def at_least(what: str, measured: str, floor: str, ratio: float, least: float) -> Row:
    """Return a claim that a ratio is not smaller than it should be."""
    return Row(what, measured, floor, ratio, f"at least {least:.2f}", ratio >= least)


def at_most(what: str, measured: str, floor: str, ratio: float, most: float) -> Row:
    """Return a claim that a ratio is not greater than it should be."""
    return Row(what, measured, floor, ratio, f"at most {most:.2f}", ratio <= most)


def show(console: Console, title: str, rows: list[Row]) -> None:
    """Print the rows of one benchmark."""
    table = Table("what", "measured", "floor", "ratio", "claim", "met", title=title)
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        met = {None: "", True: "[green]yes[/]", False: "[red]NO[/]"}[row.met]
        table.add_row(row.what, row.measured, row.floor, ratio, row.claim, met)
    console.print(table)
