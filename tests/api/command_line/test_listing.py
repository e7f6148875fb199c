"""Key lists as tables, at terminals of every width and without a terminal."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from api.command_line.listing import Column, write_listing

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

COLUMNS = (Column("ID"), Column("ABOUT", wraps=True), Column("COUNT", right=True))
ROWS = [
    ["id-of-22-characters-000", "some words about it", "7"],
    ["id-of-22-characters-001", "日本語の鍵 and more words that go on", "12,345"],
]


def written(*, width: int | None, rows: list[list[str]] = ROWS) -> list[str]:
    """Write the rows to a terminal of a given width, or to something else."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=width is not None, color_system=None, markup=False
    )
    write_listing(console, COLUMNS, [[Text(cell) for cell in row] for row in rows])
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [*range(1, 100, 3), None])
def test_no_word_is_cut_at_any_width(width: int | None) -> None:
    words = " ".join(written(width=width)).split()
    for row in ROWS:
        for word in " ".join(row).split():
            assert word in words


@pytest.mark.parametrize("width", range(45, 100))
def test_a_table_that_fits_stays_within_the_terminal(width: int) -> None:
    shown = written(width=width)
    assert shown[0].split() == ["ID", "ABOUT", "COUNT"]
    assert max(map(cell_len, shown)) <= width


def test_without_a_terminal_each_row_is_one_line_without_blanks_at_its_end() -> None:
    shown = written(width=None)
    assert len(shown) == 1 + len(ROWS)
    assert all(line == line.rstrip() for line in shown)


def test_numbers_end_under_each_other() -> None:
    assert [line[-6:] for line in written(width=99)[1:]] == ["     7", "12,345"]


def test_an_empty_list_has_only_column_titles() -> None:
    assert written(width=80, rows=[]) == ["ID  ABOUT  COUNT"]
