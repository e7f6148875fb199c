"""Streamed exports of entries, for as long as the caller is authorized.

An export that cannot continue is aborted. Its chunked body then has no end (RFC 9112, section 8),
which tells the client that it is incomplete.
"""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import structlog
from fastapi.responses import StreamingResponse

from api.formats.event_formats import CSV, NDJSON, header, lines, records
from api.http.credentials import Authorize
from api.http.work import Threads, Work
from domain.errors import LedgerError
from projections.queries.feed import FeedEntry

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_log = structlog.get_logger()


def as_ndjson(
    batches: Iterator[list[FeedEntry]], authorize: Authorize, threads: Threads
) -> StreamingResponse:
    """Return a streaming answer with a JSON line for each entry."""
    return _Export(_while_authorized(map(lines, batches), authorize, threads), media_type=NDJSON)


def as_csv(
    batches: Iterator[list[FeedEntry]], authorize: Authorize, threads: Threads
) -> StreamingResponse:
    """Return a streaming answer with a CSV table, to be saved as a file."""
    return _Export(
        _while_authorized(_table(batches), authorize, threads),
        media_type=f"{CSV}; charset=utf-8; header=present",
        headers={"Content-Disposition": 'attachment; filename="events.csv"'},
    )


def _table(batches: Iterator[list[FeedEntry]]) -> Iterator[bytes]:
    yield header()
    yield from map(records, batches)


async def _while_authorized(
    parts: Iterator[bytes], authorize: Authorize, threads: Threads
) -> AsyncIterator[bytes]:
    # Each part is computed in a thread, and none once the client has gone.
    async for part in threads.iterate(Work.STREAM, parts):
        # Authorize after reading, so that nothing appended after a revocation is sent.
        await authorize()
        yield part


class _Export(StreamingResponse):
    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Send the export, or abort it."""
        try:
            await super().__call__(scope, receive, send)
        except LedgerError as error:
            _log.warning("export_broken_off", code=error.code, detail=str(error))
            scope["state"]["outcome"] = error.code
            # If an answer has no end, the server closes its connection.
