"""The feed of all events: a page of JSON, an export, or a live stream."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response, Security
from fastapi.responses import JSONResponse

from api.formats.as_json import page_as_json
from api.formats.cursors import from_cursor, to_cursor
from api.formats.event_formats import (
    CSV,
    EVENT_STREAM,
    FORMS,
    JSON,
    NDJSON,
    entry_as_json,
)
from api.http.accept import form_of_answer
from api.http.credentials import Authorize, Requester, require, require_again
from api.http.dependencies import StrictRoute, ledger_of
from api.http.openapi import answers, texts
from api.http.schemas.audit import FindEvents
from api.http.schemas.responses import FeedAnswer
from api.http.streams.event_exports import as_csv, as_ndjson
from api.http.streams.server_sent_events import LiveStreams
from api.http.work import Work, admit_export, does, threads_of
from domain.errors import Invalid
from domain.times import checked, to_text
from projections.queries.feed import (
    FeedEntry,
    FeedFilters,
    Place,
    newest_place,
    place_of,
    read_all,
    read_feed,
    span_of,
)
from projections.store.database import Database

router = APIRouter(tags=["audit"], route_class=StrictRoute)

SCOPE = "audit:read"
_PAGE = 50
_STREAMS = {
    NDJSON: "One line for each event: `leaf_index`, `position` and `entry`, with exactly the bytes"
    " that the Merkle tree contains.",
    CSV: "A header line, then one record for each event. Text that a spreadsheet would read as a"
    " formula starts with an apostrophe.",
    EVENT_STREAM: "Server-sent events. The data of each is a line of NDJSON, and its id is the"
    " position. `Last-Event-ID` continues after a position.",
}
_RESPONSES = answers(406, ok=FeedAnswer)
for _form, _meaning in _STREAMS.items():
    _RESPONSES[200].setdefault("content", {}).update(texts(_form, _meaning)[200]["content"])


@router.get(
    "/v1/events", operation_id="list_events", summary="List or stream events", responses=_RESPONSES
)
@does(Work.STREAM)
async def read_the_events(
    request: Request,
    requester: Annotated[Requester, Security(require, scopes=[SCOPE])],
    query: Annotated[FindEvents, Query()],
    last_event_id: Annotated[
        str | None,
        Header(description="For a live stream: the id of the last event that was received."),
    ] = None,
) -> Response:
    """List the events of the workspace, oldest first.

    `Accept` selects the format: a page of JSON, all events as NDJSON or CSV, or a live stream of
    server-sent events. If the credential is revoked or expires meanwhile, the answer is cut off:
    the last chunk of the chunked coding is missing, and HTTP clients report it as incomplete.
    """
    workspace = requester.reading_in(query.workspace)
    filters = FeedFilters(
        workspace=workspace,
        key_id=query.key_id,
        actor=query.actor,
        type=query.type,
        since=checked("from", query.since),
        until=checked("until", query.until),
    )

    async def authorize() -> None:
        await require_again(request, SCOPE)

    form = form_of_answer(request.headers.getlist("accept"), FORMS)
    database = ledger_of(request).database
    threads = threads_of(request)
    if form == JSON:
        async with threads.pages.admitted(request):
            answer: Response = await threads.run(Work.COSTLY_READ, _page, database, filters, query)
    elif (query.cursor, query.limit) != (None, None):
        raise Invalid("cursor", f"only {JSON} has pages: leave out cursor and limit")
    elif form == EVENT_STREAM:
        answer = await _stream(request, filters, query, last_event_id, authorize)
    else:
        await admit_export(request)
        batches = await threads.run(Work.STREAM, _batches, database, filters, query)
        answer = (as_ndjson if form == NDJSON else as_csv)(batches, authorize, threads)
    answer.headers["Vary"] = "Accept"
    return answer


def _page(database: Database, filters: FeedFilters, query: FindEvents) -> Response:
    mark = _mark(filters, query.after)
    limit = query.limit or _PAGE
    with database.read() as connection:
        after = from_cursor(query.cursor, *mark)
        if after is None:
            after = place_of(connection, query.after or 0, field="after").leaf_index
        span = span_of(connection, filters, after=after)
        found = read_feed(connection, filters, span, limit=limit + 1)
    page = found[:limit]
    cursor = to_cursor(page[-1].leaf_index, *mark) if len(found) > limit else None
    return JSONResponse(page_as_json([entry_as_json(each) for each in page], cursor))


def _mark(filters: FeedFilters, after: int | None) -> list[str | None]:
    times = [None if at is None else to_text(at) for at in (filters.since, filters.until)]
    named = [filters.workspace, filters.key_id, filters.actor, filters.type]
    return ["feed", *named, *times, None if after is None else str(after)]


def _batches(
    database: Database, filters: FeedFilters, query: FindEvents
) -> Iterator[list[FeedEntry]]:
    with database.read() as connection:
        after = place_of(connection, query.after or 0, field="after")
        span = span_of(connection, filters, after=after.leaf_index)
    return read_all(database, filters, span)


async def _stream(
    request: Request,
    filters: FeedFilters,
    query: FindEvents,
    last_event_id: str | None,
    authorize: Authorize,
) -> Response:
    database = ledger_of(request).database
    streams: LiveStreams = request.app.state.live_streams
    after = await threads_of(request).run(
        Work.READ, _begin_after, database, query.after, last_event_id
    )
    return streams.begin(
        database, filters, after, authorize, holder=(request.state.actor, request.state.workspace)
    )


def _begin_after(database: Database, after: int | None, last_event_id: str | None) -> Place:
    """Return where a live stream begins; a client that reconnects repeats its first query."""
    field = "after"
    # A client that was told to forget its last id sends an empty one.
    if last_event_id:
        field = "Last-Event-ID"
        if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 20):  # noqa: PLR2004
            raise Invalid(
                field, "the id is not valid: use the id of the last event that was received"
            )
        after = int(last_event_id)
    with database.read() as connection:
        if after is None:
            return newest_place(connection)
        return place_of(connection, after, field=field)
