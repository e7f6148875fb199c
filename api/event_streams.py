"""Answers that stream entries, however many there are.

A generator that is not async runs in a thread, and no longer than the client is there.
"""

from collections.abc import Iterator

from fastapi.responses import StreamingResponse

from api.event_forms import CSV, NDJSON, header, lines, records
from projections.feed import FeedEntry


def as_ndjson(batches: Iterator[list[FeedEntry]]) -> StreamingResponse:
    """Answer with a line for each entry."""
    return StreamingResponse(map(lines, batches), media_type=NDJSON)


def as_csv(batches: Iterator[list[FeedEntry]]) -> StreamingResponse:
    """Answer with a table for spreadsheets, to be kept as a file."""
    return StreamingResponse(
        _table(batches),
        media_type=f"{CSV}; charset=utf-8; header=present",
        headers={"Content-Disposition": 'attachment; filename="events.csv"'},
    )


def _table(batches: Iterator[list[FeedEntry]]) -> Iterator[bytes]:
    yield header()
    yield from map(records, batches)
