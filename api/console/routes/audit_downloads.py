"""What the audit page gives to keep: the events that it lists, and the latest checkpoint."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse
from fastapi.security import SecurityScopes
from starlette.responses import Response

from api.console.feed_queries import FeedQuery
from api.console.pages import ROOT
from api.console.routes.audit_pages import SCOPE, Auditing, EntryQuery
from api.console.visitors import Visitor, enter
from api.http.credentials import Authorize
from api.http.dependencies import ledger_of
from api.http.streams.event_exports import as_csv, as_ndjson
from api.http.work import Work, WorkRoute, does, threads_of
from domain.errors import NoCheckpoint
from projections.audit_log.checkpoint_table import shown_note
from projections.queries.feed import FeedEntry, read_all, span_of

router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=WorkRoute)


@router.get("/audit/events.csv")
@does(Work.STREAM)
def export_a_table(
    request: Request, visitor: Auditing, query: Annotated[FeedQuery, Query()]
) -> Response:
    """Give all events that fit as a table for spreadsheets."""
    return as_csv(_batches(request, visitor, query), _judge(request), threads_of(request))


@router.get("/audit/events.ndjson")
@does(Work.STREAM)
def export_lines(
    request: Request, visitor: Auditing, query: Annotated[FeedQuery, Query()]
) -> Response:
    """Give all events that fit as lines of JSON, each with its entry byte for byte."""
    answer = as_ndjson(_batches(request, visitor, query), _judge(request), threads_of(request))
    answer.headers["Content-Disposition"] = 'attachment; filename="events.ndjson"'
    return answer


@router.get("/audit/checkpoint.txt")
@does(Work.READ)
def give_the_checkpoint(
    request: Request, _visitor: Auditing, _query: Annotated[EntryQuery, Query()]
) -> Response:
    """Give the latest checkpoint as it was signed."""
    with ledger_of(request).database.read() as connection:
        note = shown_note(connection, ledger_of(request).signer.key.name)
    if note is None:
        raise NoCheckpoint("no checkpoint was signed yet; ask again in a second")
    headers = {"Content-Disposition": 'attachment; filename="checkpoint.txt"'}
    return PlainTextResponse(note, headers=headers)


def _batches(request: Request, visitor: Visitor, query: FeedQuery) -> Iterator[list[FeedEntry]]:
    database = ledger_of(request).database
    filters = query.filters(visitor.reading_in())
    with database.read() as connection:
        span = span_of(connection, filters, after=-1)
    return read_all(database, filters, span)


def _judge(request: Request) -> Authorize:
    return partial(threads_of(request).run, Work.READ, enter, request, SecurityScopes([SCOPE]))
