"""Showing a form again that was sent after the session had ended."""

from urllib.parse import urlsplit

from fastapi import Request
from starlette.responses import Response

from api.console.kept_forms import KEPT_FORM, read_kept
from api.console.key_forms import KeyForm
from api.console.routes.key_changes import form_page
from api.console.routes.key_making import fresh_request, new_key_page, rotate_page
from api.console.sign_in_page import wanted_page
from api.console.visitors import admit
from domain.errors import LedgerError
from domain.verdict import AuthRow

_SCOPES = ("api-keys:read", "api-keys:write")


def show_kept_form(request: Request, key: AuthRow, value: str, kept: str) -> Response | None:
    """Return the page of the form, filled in as it was sent; it has no effect yet.

    Args:
        request: the sign-in, which names the address of the form.
        key: the key that signed in.
        value: the value of the new session.
        kept: what was typed.

    Returns:
        ``None`` if the address is not that of a form, or the key may not open it.
    """
    address = urlsplit(wanted_page(request))
    match = KEPT_FORM.fullmatch(address.path)
    if match is None:
        return None
    opened = Request(
        {**request.scope, "path": address.path, "query_string": address.query.encode()}
    )
    form = read_kept(kept)
    filled = KeyForm(
        fresh_request(),
        form.fields.get("expiration", [""])[0],
        form.fields,
        version=form.fields.get("version", [None])[0],
        is_kept=True,
    )
    try:
        visitor = admit(opened, key, value, _SCOPES)
        visitor.check_workspace()
        if match["key_id"] is None:
            return new_key_page(opened, visitor, filled)
        if match["name"] == "rotate":
            return rotate_page(opened, visitor, match["key_id"], filled)
        return form_page(opened, visitor, match["key_id"], f"{match['name']}.html", filled)
    except LedgerError:
        # The page itself says what is wrong, and the session is there to show it.
        return None
