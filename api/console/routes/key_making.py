"""Making keys: a new one, or a successor; each shows its token this once."""

import secrets
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Security
from pydantic import BaseModel
from starlette.responses import Response

from api.console import expirations
from api.console.forms import Form, read_own_form
from api.console.key_forms import KeyForm, chosen_scopes, refill, version_seen
from api.console.key_panels import panel
from api.console.pages import ROOT, pages_of
from api.console.visitors import Visitor, enter_workspace
from api.http.dependencies import ledger_of
from api.http.preconditions import idempotency
from api.http.schemas.requests import KeyId
from api.http.work import WorkRoute
from domain.api_key import end_of_successor
from domain.errors import Invalid, LedgerError
from domain.key_ledger import Issued
from projections.queries.keys_now import show_key

router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=WorkRoute)

Writing = Annotated[Visitor, Security(enter_workspace, scopes=["api-keys:read", "api-keys:write"])]
OwnForm = Annotated[Form, Depends(read_own_form)]

GRACES = {
    "0": "At once",
    "3600": "In 1 hour",
    "86400": "In 1 day",
    "604800": "In 7 days",
    "2592000": "In 30 days",
}
"""How long a rotated key goes on, in seconds."""


class NewKey(BaseModel):
    """What the form for a new key says, word for word: a form that comes again says the same."""

    name: str
    scopes: list[str]
    expiration: str
    day: str
    prefix: str


class Successor(BaseModel):
    """What the form for a successor says."""

    grace: str
    expiration: str
    day: str
    version: str


@router.get("/keys/new")
def show_new_key_form(request: Request, visitor: Writing) -> Response:
    """Ask what a new key is to be."""
    return new_key_page(request, visitor, KeyForm(fresh_request(), expirations.DEFAULT))


@router.post("/keys/new")
def create_key(request: Request, form: OwnForm, visitor: Writing) -> Response:
    """Make a key and show its token; the same form sent again makes none and shows none."""
    ledger = ledger_of(request)
    now = ledger.clock()
    said = NewKey(
        name=form.text("name"),
        scopes=chosen_scopes(form),
        expiration=form.text("expiration"),
        day=form.text("day"),
        prefix=form.text("prefix").strip(),
    )
    try:
        issued = ledger.ledger.create_key(
            workspace=visitor.workspace,
            name=said.name,
            scopes=said.scopes,
            expires_at=expirations.end_of(said.expiration, said.day, now=now),
            token_prefix=said.prefix or ledger.settings.token_prefix,
            by=visitor.caller,
            at=now,
            idempotency=idempotency(
                form.texts("request"), "create in the console", visitor.workspace, said
            ),
        )
    except LedgerError as error:
        refilled = refill(form, error, fresh_request())
        return new_key_page(request, visitor, refilled)
    return _token_page(request, visitor, issued, rotated=None)


@router.get("/keys/{key_id}/rotate")
def show_rotate_form(request: Request, visitor: Writing, key_id: KeyId) -> Response:
    """Ask how long the key is to go on beside its successor."""
    filled = KeyForm(fresh_request(), expirations.SAME)
    return rotate_page(request, visitor, key_id, filled)


@router.post("/keys/{key_id}/rotate")
def rotate_key(request: Request, form: OwnForm, visitor: Writing, key_id: KeyId) -> Response:
    """Make a key's successor and show its token; the same form sent again makes none."""
    ledger = ledger_of(request)
    now = ledger.clock()
    said = Successor(
        grace=form.text("grace"),
        expiration=form.text("expiration"),
        day=form.text("day"),
        version=form.text("version"),
    )
    try:
        if said.grace not in GRACES:
            raise Invalid("grace", "choose when the old key stops working")
        chosen = said.expiration != expirations.SAME
        end = expirations.end_of(said.expiration, said.day, now=now) if chosen else None
        issued = ledger.ledger.rotate_key(
            key_id,
            workspace=visitor.workspace,
            grace=timedelta(seconds=int(said.grace)),
            expires_at=end,
            never_expires=chosen and end is None,
            by=visitor.caller,
            at=now,
            expected_version=version_seen(form),
            idempotency=idempotency(
                form.texts("request"),
                f"rotate {key_id} in the console",
                visitor.workspace,
                said,
            ),
        )
    except LedgerError as error:
        refilled = refill(form, error, fresh_request())
        return rotate_page(request, visitor, key_id, refilled)
    return _token_page(request, visitor, issued, rotated=key_id)


def fresh_request() -> str:
    """Return an idempotency key for a form, so that sending it twice has one effect."""
    return secrets.token_hex(16)


def new_key_page(request: Request, visitor: Visitor, filled: KeyForm) -> Response:
    """Return the page of the form for a new key."""
    ledger = ledger_of(request)
    with ledger.database.read() as connection:
        return panel(
            request,
            visitor,
            connection,
            "new_key.html",
            filled.status,
            filled=filled,
            catalogue=pages_of(request).catalogue,
            choices=expirations.choices(ledger.clock()),
            prefix=ledger.settings.token_prefix,
        )


def rotate_page(request: Request, visitor: Visitor, key_id: str, filled: KeyForm) -> Response:
    """Return the page of the form that rotates a key.

    Raises:
        KeyNotFound: the workspace has no such key.
    """
    ledger = ledger_of(request)
    now = ledger.clock()
    with ledger.database.read() as connection:
        key = show_key(connection, visitor.workspace, key_id, now=now)
        end = end_of_successor(key.created_at, key.expires_at, now)
        return panel(
            request,
            visitor,
            connection,
            "rotate.html",
            filled.status,
            key=key,
            filled=filled,
            graces=GRACES,
            choices=expirations.choices_from(end, "Like the old key", now),
        )


def _token_page(
    request: Request, visitor: Visitor, issued: Issued, *, rotated: str | None
) -> Response:
    ledger = ledger_of(request)
    now = ledger.clock()
    token = None if issued.token is None else issued.token.reveal()
    with ledger.database.read() as connection:
        answer = panel(
            request,
            visitor,
            connection,
            "token.html",
            200 if token is None else 201,
            key=show_key(connection, visitor.workspace, issued.key_id, now=now),
            old=rotated and show_key(connection, visitor.workspace, rotated, now=now),
            token=token,
        )
    # All pages of the console have it; this one says so even if that changes.
    answer.headers["Cache-Control"] = "no-store"
    return answer
