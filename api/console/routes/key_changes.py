"""Changing keys: their name, scopes and end, and revoking them."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Security
from starlette.responses import Response

from api.console import expirations
from api.console.forms import Form, read_own_form
from api.console.key_forms import KeyForm, chosen_scopes, refill, version_seen
from api.console.key_panels import listing_of, panel
from api.console.pages import ROOT, pages_of, see
from api.console.visitors import Visitor, enter_workspace
from api.http.dependencies import ledger_of
from api.http.schemas.requests import KeyId
from api.http.work import WorkRoute
from api.scope_catalogue import offered
from domain.errors import Invalid, LedgerError
from domain.key_ledger import Changes
from projections.queries.keys_now import show_key

router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=WorkRoute)

Writing = Annotated[Visitor, Security(enter_workspace, scopes=["api-keys:read", "api-keys:write"])]
OwnForm = Annotated[Form, Depends(read_own_form)]

REASONS = ("Leaked", "No longer used", "Replaced by another key", "Its owner has left")


@router.get("/keys/{key_id}/rename")
def show_rename_form(request: Request, visitor: Writing, key_id: KeyId) -> Response:
    """Ask for a new name."""
    return form_page(request, visitor, key_id, "rename.html", KeyForm())


@router.post("/keys/{key_id}/rename")
def rename_key(request: Request, form: OwnForm, visitor: Writing, key_id: KeyId) -> Response:
    """Give a key another name."""

    def changes() -> Changes:
        return Changes(name=form.text("name"))

    return _change(request, visitor, key_id, form, changes, template="rename.html", done="renamed")


@router.get("/keys/{key_id}/scopes")
def show_scopes_form(request: Request, visitor: Writing, key_id: KeyId) -> Response:
    """Ask for new scopes."""
    return form_page(request, visitor, key_id, "scopes.html", KeyForm())


@router.post("/keys/{key_id}/scopes")
def change_scopes(request: Request, form: OwnForm, visitor: Writing, key_id: KeyId) -> Response:
    """Give a key other scopes."""

    def changes() -> Changes:
        return Changes(scopes=chosen_scopes(form))

    return _change(request, visitor, key_id, form, changes, template="scopes.html", done="scopes")


@router.get("/keys/{key_id}/expiration")
def show_expiration_form(request: Request, visitor: Writing, key_id: KeyId) -> Response:
    """Ask for a new expiration, starting from the key's own."""
    filled = KeyForm(expiration=expirations.SAME)
    return form_page(request, visitor, key_id, "expiration.html", filled)


@router.post("/keys/{key_id}/expiration")
def change_expiration(request: Request, form: OwnForm, visitor: Writing, key_id: KeyId) -> Response:
    """Change when a key expires."""
    now = ledger_of(request).clock()

    def changes() -> Changes:
        if form.text("expiration") == expirations.SAME:
            return Changes()
        end = expirations.end_of(form.text("expiration"), form.text("day"), now=now)
        return Changes(expires_at=end, never_expires=end is None)

    return _change(
        request, visitor, key_id, form, changes, template="expiration.html", done="expiration"
    )


@router.get("/keys/{key_id}/revoke")
def show_revoke_form(request: Request, visitor: Writing, key_id: KeyId) -> Response:
    """Say what will stop working, and ask why."""
    return form_page(request, visitor, key_id, "revoke.html", KeyForm())


@router.post("/keys/{key_id}/revoke")
def revoke_key(request: Request, form: OwnForm, visitor: Writing, key_id: KeyId) -> Response:
    """Disable a key at once and for ever."""
    ledger = ledger_of(request)
    try:
        if not form.text("reason").strip():
            raise Invalid("reason", "say why the key is revoked")
        if form.text("understood") != "yes":
            raise Invalid("understood", "tick the box to confirm")
        ledger.ledger.revoke_key(
            key_id,
            workspace=visitor.workspace,
            reason=form.text("reason"),
            comment=form.text("comment"),
            by=visitor.caller,
            at=ledger.clock(),
        )
    except LedgerError as error:
        return form_page(request, visitor, key_id, "revoke.html", refill(form, error))
    return see(visitor, f"/keys/{key_id}", done="revoked", **listing_of(request))


def _change(
    request: Request,
    visitor: Visitor,
    key_id: str,
    form: Form,
    changes: Callable[[], Changes],
    *,
    template: str,
    done: str,
) -> Response:
    ledger = ledger_of(request)
    try:
        ledger.ledger.update_key(
            key_id,
            changes(),
            workspace=visitor.workspace,
            by=visitor.caller,
            at=ledger.clock(),
            expected_version=version_seen(form),
        )
    except LedgerError as error:
        return form_page(request, visitor, key_id, template, refill(form, error))
    return see(visitor, f"/keys/{key_id}", done=done, **listing_of(request))


def form_page(
    request: Request, visitor: Visitor, key_id: str, template: str, filled: KeyForm
) -> Response:
    """Return the page of a form that changes a key.

    Raises:
        KeyNotFound: the workspace has no such key.
    """
    ledger = ledger_of(request)
    now = ledger.clock()
    catalogue = pages_of(request).catalogue
    with ledger.database.read() as connection:
        key = show_key(connection, visitor.workspace, key_id, now=now)
        return panel(
            request,
            visitor,
            connection,
            template,
            filled.status,
            key=key,
            filled=filled,
            catalogue=catalogue,
            unlisted_scopes=[each for each in key.scopes if each not in offered(catalogue) | {"*"}],
            choices=expirations.choices_from(
                key.expires_at,
                "No change",
                now,
                latest=key.expires_at if key.rotated_to else None,
            ),
            reasons=REASONS,
        )
