"""Forms that were sent after the session had ended: the sign-in page carries what was typed.

Nothing is stored on the server. A form with a token in a field is carried without that field.
"""

import re
from urllib.parse import parse_qsl, urlencode

from fastapi import Request

from api.console.forms import CSRF_FIELD, Form
from api.console.pages import LONGEST_ADDRESS, ROOT
from domain.token_text import hide_tokens

KEPT_FORM = re.compile(
    rf"{ROOT}/keys/(?:new|(?P<key_id>[^/]+)/(?P<name>rename|scopes|expiration|rotate|revoke))"
)
"""Addresses of the forms that are shown again."""

_LONGEST = 6_000
"""Length of a kept form: anybody can send one, and the search for tokens holds the event loop."""

_NOT_KEPT = frozenset({CSRF_FIELD, "request", "token"})


def keep_form(request: Request) -> str:
    """Return what was typed into the form of a request, for `read_kept`; empty if none is kept."""
    form: Form | None = getattr(request.state, "form", None)
    address = f"{request.url.path}?{request.url.query}"
    if (
        form is None
        or request.method != "POST"
        or not KEPT_FORM.fullmatch(request.url.path)
        or len(address) > LONGEST_ADDRESS
        or hide_tokens(address) != address
    ):
        return ""
    typed = [
        (name, value)
        for name, values in form.fields.items()
        if name not in _NOT_KEPT
        for value in values
    ]
    if len(urlencode(typed)) > _LONGEST:
        return ""
    return urlencode(
        [
            (name, value)
            for name, value in typed
            if hide_tokens(value) == value and hide_tokens(name) == name
        ]
    )


def read_kept(kept: str) -> Form:
    """Return the form that `keep_form` wrote."""
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(kept, keep_blank_values=True):
        fields.setdefault(name, []).append(value)
    return Form(fields)
