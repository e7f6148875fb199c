"""CSV (RFC 4180) that spreadsheets display and do not execute."""

import csv
import io
from collections.abc import Iterable

# Prefixes that a spreadsheet treats as a formula (OWASP, "CSV Injection").
_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def csv_records(rows: Iterable[Iterable[object]]) -> bytes:
    """Return rows as CSV records, with an apostrophe before each text that looks like a formula.

    A name that a spreadsheet executes could send the sheet's other cells anywhere.
    """
    written = io.StringIO(newline="")
    records = csv.writer(written, lineterminator="\r\n")
    records.writerows(map(_as_text, row) for row in rows)
    return written.getvalue().encode()


def _as_text(value: object) -> object:
    if isinstance(value, str) and value.startswith(_BEGINS_A_FORMULA):
        return f"'{value}"
    return value
