"""CSV (RFC 4180) that spreadsheets show and do not compute."""

import csv
import io
from collections.abc import Iterable

# What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection).
_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def csv_records(rows: Iterable[Iterable[object]]) -> bytes:
    """Return rows as records, with an apostrophe before each text that looks like a formula.

    A name that a spreadsheet would compute could send the sheet's other cells anywhere.
    """
    written = io.StringIO(newline="")
    records = csv.writer(written, lineterminator="\r\n")
    records.writerows(map(_as_text, row) for row in rows)
    return written.getvalue().encode()


def _as_text(value: object) -> object:
    if isinstance(value, str) and value.startswith(_BEGINS_A_FORMULA):
        return f"'{value}"
    return value
