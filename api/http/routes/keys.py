"""API keys: create, list, show, update, rotate and revoke them."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, Security
from fastapi.responses import JSONResponse

from api.formats.as_json import event_as_json, key_as_json, page_as_json
from api.formats.cursors import from_cursor, list_of_keys, to_cursor
from api.http.credentials import Requester, require
from api.http.dependencies import StrictRoute, ledger_of
from api.http.openapi import answers
from api.http.preconditions import IdempotencyKey, IfMatch, expected_version, idempotency
from api.http.schemas.requests import (
    CreateKey,
    InWorkspace,
    KeyId,
    ListKeyEvents,
    ListKeys,
    RevokeKey,
    RotateKey,
    ShowKey,
    UpdateKey,
)
from api.http.schemas.responses import EventListAnswer, IssuedKeyAnswer, KeyAnswer, KeyListAnswer
from api.http.work import Work, does
from domain import scopes
from domain.errors import Invalid
from domain.key_ledger import Changes, Issued
from domain.times import checked, to_text
from projections.queries.filters import Filters
from projections.queries.keys_as_of import list_keys_at, show_key_at
from projections.queries.keys_now import list_keys, show_key
from projections.store.events import read_history
from projections.views.key_fields import ListedKey

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute)

Reader = Annotated[Requester, Security(require, scopes=["api-keys:read"])]
Writer = Annotated[Requester, Security(require, scopes=["api-keys:write"])]
Where = Annotated[InWorkspace, Query()]


@router.post(
    "",
    operation_id="create_key",
    summary="Create a key",
    status_code=201,
    responses=answers(409, 413, created=IssuedKeyAnswer),
)
def create_key(
    request: Request,
    requester: Writer,
    query: Where,
    body: CreateKey,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a key. The answer contains its token, which is not shown again.

    The new key can have only scopes that the credential holds itself.
    """
    ledger = ledger_of(request)
    workspace = requester.acting_in(query.workspace)
    now = ledger.clock()
    issued = ledger.ledger.create_key(
        workspace=workspace,
        name=body.name,
        scopes=body.scopes,
        expires_at=body.expiry(now),
        token_prefix=body.prefix or ledger.settings.token_prefix,
        by=requester.caller,
        at=now,
        idempotency=idempotency(idempotency_key, "create", workspace, body),
    )
    return _issued_answer(request, requester, workspace, issued)


@router.get("", operation_id="list_keys", summary="List keys", responses=answers(ok=KeyListAnswer))
def list_the_keys(
    request: Request, requester: Reader, query: Annotated[ListKeys, Query()]
) -> Response:
    """List the keys of the workspace, as they are or as they were at a time, newest first."""
    ledger = ledger_of(request)
    now = ledger.clock()
    as_of = _as_of(query.as_of, now)
    workspace = requester.reading_in(query.workspace)
    filters = Filters(
        status=query.status,
        text=query.q,
        scope=None if query.scope is None else scopes.checked([query.scope], field="scope")[0],
        created_by=query.created_by,
        expires_before=checked("expires_before", query.expires_before),
        unused_since=checked("unused_since", query.unused_since),
        never_used=query.never_used,
    )
    if as_of is not None and (query.unused_since, query.never_used) != (None, None):
        raise Invalid(
            "as_of", "only the last use of a key is recorded: leave out this filter with as_of"
        )
    mark = list_of_keys(workspace, filters, as_of)
    before = from_cursor(query.cursor, *mark)
    limit = query.limit + 1
    with ledger.database.read() as connection:
        keys = (
            list_keys(connection, workspace, filters, now=now, before=before, limit=limit)
            if as_of is None
            else list_keys_at(connection, workspace, filters, at=as_of, before=before, limit=limit)
        )
    page = keys[: query.limit]
    cursor = to_cursor(page[-1].position, *mark) if len(keys) > query.limit else None
    return JSONResponse(page_as_json([key_as_json(key) for key in page], cursor))


@router.get(
    "/{key_id}",
    operation_id="get_key",
    summary="Get a key",
    responses=answers(404, ok=KeyAnswer),
)
@does(Work.READ)
def show_the_key(
    request: Request, requester: Reader, key_id: KeyId, query: Annotated[ShowKey, Query()]
) -> Response:
    """Return one key, as it is or as it was at a time. The `ETag` is its version."""
    workspace = requester.acting_in(query.workspace)
    ledger = ledger_of(request)
    as_of = _as_of(query.as_of, ledger.clock())
    if as_of is None:
        return _key_answer(_shown(request, workspace, key_id))
    with ledger.database.read() as connection:
        return _key_answer(show_key_at(connection, workspace, key_id, at=as_of))


@router.patch(
    "/{key_id}",
    operation_id="update_key",
    summary="Update a key",
    responses=answers(404, 409, 412, 413, ok=KeyAnswer),
)
def update_key(
    request: Request,
    requester: Writer,
    key_id: KeyId,
    *,
    body: UpdateKey,
    query: Where,
    if_match: IfMatch = None,
) -> Response:
    """Change a key's name, scopes or expiry time: all requested changes, or none."""
    ledger = ledger_of(request)
    workspace = requester.acting_in(query.workspace)
    now = ledger.clock()
    expires_at = body.expiry(now)
    ledger.ledger.update_key(
        key_id,
        Changes(
            name=body.name,
            scopes=body.scopes,
            expires_at=expires_at,
            never_expires="expires_at" in body.model_fields_set and expires_at is None,
        ),
        workspace=workspace,
        by=requester.caller,
        at=now,
        expected_version=expected_version(if_match),
    )
    return _key_answer(_shown(request, workspace, key_id))


@router.post(
    "/{key_id}/revoke",
    operation_id="revoke_key",
    summary="Revoke a key",
    responses=answers(404, 409, 412, 413, ok=KeyAnswer),
)
def revoke_key(
    request: Request,
    requester: Writer,
    key_id: KeyId,
    *,
    query: Where,
    body: RevokeKey | None = None,
    if_match: IfMatch = None,
) -> Response:
    """Disable a key immediately and permanently.

    A key that is already revoked stays as it is.
    """
    ledger = ledger_of(request)
    workspace = requester.acting_in(query.workspace)
    why = body or RevokeKey()
    ledger.ledger.revoke_key(
        key_id,
        workspace=workspace,
        reason=why.reason,
        comment=why.comment,
        by=requester.caller,
        at=ledger.clock(),
        expected_version=expected_version(if_match),
    )
    return _key_answer(_shown(request, workspace, key_id))


@router.post(
    "/{key_id}/rotate",
    operation_id="rotate_key",
    summary="Rotate a key",
    status_code=201,
    responses=answers(404, 409, 412, 413, created=IssuedKeyAnswer),
)
def rotate_key(
    request: Request,
    requester: Writer,
    key_id: KeyId,
    *,
    query: Where,
    body: RotateKey | None = None,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a successor of a key. The answer contains its token, which is not shown again.

    The old key expires at the end of the grace period, or at its own expiry time if this is
    earlier.
    """
    ledger = ledger_of(request)
    workspace = requester.acting_in(query.workspace)
    how = body or RotateKey()
    issued = ledger.ledger.rotate_key(
        key_id,
        workspace=workspace,
        grace=timedelta(seconds=how.grace_seconds),
        expires_at=how.expires_at,
        never_expires=how.never_expires,
        by=requester.caller,
        at=ledger.clock(),
        expected_version=expected_version(if_match),
        idempotency=idempotency(idempotency_key, f"rotate {key_id}", workspace, how),
    )
    return _issued_answer(request, requester, workspace, issued)


@router.get(
    "/{key_id}/events",
    operation_id="list_key_events",
    summary="List the events of a key",
    responses=answers(404, ok=EventListAnswer),
)
def list_the_events(
    request: Request, requester: Reader, key_id: KeyId, query: Annotated[ListKeyEvents, Query()]
) -> Response:
    """List the history of a key, oldest event first."""
    ledger = ledger_of(request)
    workspace = requester.acting_in(query.workspace)
    mark = ["events", workspace, key_id]
    after = from_cursor(query.cursor, *mark) or 0
    with ledger.database.read() as connection:
        show_key(connection, workspace, key_id, now=ledger.clock())
        history = read_history(connection, key_id, after=after, limit=query.limit + 1)
    page = history[: query.limit]
    cursor = to_cursor(page[-1].position, *mark) if len(history) > query.limit else None
    return JSONResponse(page_as_json([event_as_json(recorded) for recorded in page], cursor))


def _as_of(at: datetime | None, now: datetime) -> datetime | None:
    at = checked("as_of", at)
    if at is not None and at > now:
        raise Invalid("as_of", f"the time is in the future: use a time up to {to_text(now)}")
    return at


def _shown(request: Request, workspace: str, key_id: str) -> ListedKey:
    ledger = ledger_of(request)
    with ledger.database.read() as connection:
        return show_key(connection, workspace, key_id, now=ledger.clock())


def _key_answer(key: ListedKey) -> Response:
    return JSONResponse(key_as_json(key), headers=_etag(key))


def _issued_answer(
    request: Request, requester: Requester, workspace: str, issued: Issued
) -> Response:
    key = _shown(request, workspace, issued.key_id)
    token = None if issued.token is None else issued.token.reveal()
    elsewhere = "" if workspace == requester.acting_in(None) else f"?workspace={workspace}"
    headers = {"Location": f"/v1/keys/{key.key_id}{elsewhere}"} | _etag(key)
    if token is None:
        headers["Idempotent-Replayed"] = "true"
    return JSONResponse(key_as_json(key) | {"token": token}, 201, headers)


def _etag(key: ListedKey) -> dict[str, str]:
    return {"ETag": f'"{key.version}"'}
