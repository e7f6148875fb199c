"""Lists for people: a table where it fits, else one block of lines for each row.

No cell is ever cropped, and only text that reads well on several lines is wrapped: an id or a
prefix stays in one piece at any width, so that it can be selected and searched for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list.

    Args:
        title: its name.
        wraps: whether its text may go on on another line, between words.
        right: whether its cells end, and not begin, under each other, as numbers should.
    """

    title: str
    wraps: bool = False
    right: bool = False


def write_listing(console: Console, columns: Sequence[Column], rows: Sequence[list[Text]]) -> None:
    """Write rows to a terminal, or, one line to a row, to what is not a terminal."""
    narrowest = [_narrowest(column, cells) for column, cells in _by_column(columns, rows)]
    widest = [_widest(column, cells) for column, cells in _by_column(columns, rows)]
    gaps = _GAP * (len(columns) - 1)
    if not console.is_terminal:
        _write_table(console, columns, rows, widest)
    elif (spare := console.width - gaps - sum(narrowest)) >= 0:
        _write_table(console, columns, rows, _shared_out(spare, narrowest, widest))
    else:
        _write_blocks(console, columns, rows)


def write_record(console: Console, fields: Iterable[tuple[str, Text]]) -> None:
    """Write the fields of one thing, a line each."""
    labelled = list(fields)
    width = max(cell_len(label) for label, _ in labelled)
    for label, value in labelled:
        line = Text(f"  {label.ljust(width)}  ", style="dim")
        console.print(Text.assemble(line, value), soft_wrap=True)


def _write_table(
    console: Console, columns: Sequence[Column], rows: Sequence[list[Text]], widths: list[int]
) -> None:
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            column.title,
            width=width,
            no_wrap=not column.wraps,
            # Every word fits; "ellipsis" would cut a wide character for the blank that follows it.
            overflow="fold",
            justify="right" if column.right else "left",
        )
    for row in rows:
        table.add_row(*row)
    whole = sum(widths) + _GAP * len(widths)
    # Rendered first and written then, without the blanks that fill the last column.
    for segments in console.render_lines(table, console.options.update_width(whole), pad=False):
        line = Text.assemble(*((each.text, each.style or "") for each in segments))
        line.rstrip()
        console.print(line, soft_wrap=True)


def _write_blocks(console: Console, columns: Sequence[Column], rows: Sequence[list[Text]]) -> None:
    for number, (heading, *cells) in enumerate(rows):
        if number:
            console.print()
        console.print(heading, style="bold", soft_wrap=True)
        write_record(
            console,
            (
                (column.title.lower(), cell)
                for column, cell in zip(columns[1:], cells, strict=True)
                if cell.plain
            ),
        )


def _by_column(
    columns: Sequence[Column], rows: Sequence[list[Text]]
) -> list[tuple[Column, list[Text]]]:
    return [(column, [row[index] for row in rows]) for index, column in enumerate(columns)]


def _widest(column: Column, cells: list[Text]) -> int:
    return max(cell_len(text) for text in (column.title, *(cell.plain for cell in cells)))


def _narrowest(column: Column, cells: list[Text]) -> int:
    if not column.wraps:
        return _widest(column, cells)
    words = [word for cell in cells for word in cell.plain.split()]
    return max(cell_len(word) for word in (column.title, *words))


def _shared_out(spare: int, narrowest: list[int], widest: list[int]) -> list[int]:
    """Widen the columns: those that want little get it, the others share what is left."""
    widths = list(narrowest)
    wanted = {index: widest[index] - least for index, least in enumerate(narrowest)}
    for number, (index, want) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        given = min(want, spare // (len(wanted) - number))
        widths[index] += given
        spare -= given
    return widths
