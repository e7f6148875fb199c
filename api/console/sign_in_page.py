"""The sign-in page, and the page that it leads to."""

from urllib.parse import unquote, urlsplit

from fastapi import Request
from starlette.responses import HTMLResponse

from api.console.pages import LONGEST_ADDRESS, ROOT, page
from domain.token_text import hide_tokens

ENDED = {
    "session": "Your session has ended. Sign in again.",
    "revoked": "You were signed out: the key that you signed in with was revoked.",
    "expired": "You were signed out: the key that you signed in with has expired.",
    "out": "You are signed out.",
}
"""Messages about the end of a session."""


def sign_in_page(
    request: Request,
    status: int = 200,
    *,
    said: str | None = None,
    wrong: str | None = None,
    kept: str = "",
) -> HTMLResponse:
    """Return the sign-in page.

    Args:
        said: a message above the form.
        wrong: the error of the token.
        kept: a form to show again after signing in.
    """
    if kept and not request.query_params.get("next"):
        wanted = f"{request.url.path}?{request.url.query}".rstrip("?")
    else:
        wanted = wanted_page(request)
    return page(request, "sign_in.html", status, said=said, wrong=wrong, wanted=wanted, kept=kept)


def wanted_page(request: Request) -> str:
    """Return the page to show after signing in: only pages of the console are accepted."""
    wanted = request.query_params.get("next", "")
    if len(wanted) > LONGEST_ADDRESS:
        return ROOT
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return ROOT
    elsewhere = parts.scheme or parts.netloc or "\\" in wanted or not wanted.isprintable()
    # A browser resolves these, and would leave the console.
    elsewhere = elsewhere or not {".", ".."}.isdisjoint(unquote(parts.path).split("/"))
    if elsewhere or not parts.path.startswith(f"{ROOT}/") or hide_tokens(wanted) != wanted:
        return ROOT
    return wanted
