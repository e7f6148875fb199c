"""What is the same for every answer of the console: its headers, and its errors as pages."""

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.console.kept_forms import keep_form
from api.console.pages import LONGEST_ADDRESS, ROOT, page
from api.console.sign_in_page import ENDED, sign_in_page
from api.console.visitors import forget_session, session_value
from api.http.problems import CONTENT_TYPE
from domain.token_text import hide_tokens

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_UNAUTHENTICATED = 401
_HEADERS = {
    # Nothing but our own files: no inline script or style, no frame around us, no form to others.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    # Not no-referrer: browsers would then hide the origin of our own forms as well.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
_NOT_KEPT = "no-store"


def is_console(path: str) -> bool:
    """Tell whether a path is the console's."""
    return path == ROOT or path.startswith(f"{ROOT}/")


class ConsoleResponses:
    """Middleware around all else, so that whatever goes wrong within comes out as a page.

    The rest of the app answers an error with a problem document; here it is shown to a person.
    Whoever is not signed in is shown the way there.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        if scope["type"] != "http" or not is_console(scope["path"]):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def send_page(message: "Message") -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", _NOT_KEPT)
                if headers.get("content-type") == CONTENT_TYPE:
                    start = message
                    return
            elif start is not None:
                body += message.get("body", b"")
                if not message.get("more_body"):
                    answer = _shown(Request(scope), json.loads(body))
                    await _send(start, answer, send)
                return
            await send(message)

        await self._app(scope, receive, send_page)


def _shown(request: Request, problem: dict[str, Any]) -> Response:
    if problem["status"] == _UNAUTHENTICATED:
        return _way_to_sign_in(request, problem["code"])
    return page(request, "problem.html", problem["status"], problem=problem)


def _way_to_sign_in(request: Request, code: str) -> Response:
    if kept := keep_form(request):
        answer: Response = sign_in_page(request, 401, said=ENDED[_reason(code)], kept=kept)
        forget_session(request, answer)
        return answer
    query = {}
    if session_value(request):
        query["ended"] = _reason(code)
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    is_page = request.method == "GET" and request.url.path != ROOT
    # Somebody may have put a token into an address; it is not sent around any further.
    if is_page and len(wanted) <= LONGEST_ADDRESS and hide_tokens(wanted) == wanted:
        query["next"] = wanted
    answer = RedirectResponse(f"{ROOT}/sign-in?{urlencode(query)}".rstrip("?"), 303)
    if session_value(request):
        forget_session(request, answer)
    return answer


def _reason(code: str) -> str:
    return {"REVOKED": "revoked", "EXPIRED": "expired"}.get(code, "session")


async def _send(start: "Message", answer: Response, send: "Send") -> None:
    """Send an answer with the headers that the problem document came with, but for its form."""
    headers = MutableHeaders(scope=start)
    for name in ("content-type", "content-length", "www-authenticate"):
        del headers[name]
    await send(
        {
            "type": "http.response.start",
            "status": answer.status_code,
            "headers": [*headers.raw, *answer.raw_headers],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})
