"""Forms of the console: read, and taken only from the console's own pages."""

from dataclasses import dataclass
from hmac import compare_digest
from typing import Annotated
from urllib.parse import parse_qsl

import structlog
from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from api.console.visitors import Visitor, enter
from domain.errors import Invalid

CSRF_FIELD = "csrf_token"
_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 300
_LONGEST_LOGGED = 200
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, as they were sent."""

    fields: dict[str, list[str]]

    def text(self, name: str) -> str:
        """Return what a field says; nothing if it is not there.

        Raises:
            Invalid: it is there several times.
        """
        values = self.fields.get(name, [""])
        if len(values) != 1:
            raise Invalid(name, "give it once")
        return values[0]

    def texts(self, name: str) -> list[str]:
        """Return what all fields of a name say."""
        return self.fields.get(name, [])


async def read_form(request: Request) -> Form:
    """Read the form that a request brings, if one of our own pages sent it.

    Raises:
        Invalid: it is no form, or none that a browser sends.
        HTTPException: another site sent it (403), or it is too long (413).
    """
    check_sender(request)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != _FORM:
        raise Invalid("content-type", f"send the form as {_FORM}")
    fields: dict[str, list[str]] = {}
    try:
        text = (await request.body()).decode()
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise Invalid("form", f"send at most {_MOST_FIELDS} fields, in UTF-8") from None
    for name, value in pairs:
        # Browsers send the ends of lines as CR LF (HTML, "multipart form data").
        fields.setdefault(name, []).append(value.replace("\r\n", "\n"))
    request.state.form = form = Form(fields)
    return form


def read_own_form(
    # The form comes first: if the session has ended, the sign-in page keeps what was typed.
    form: Annotated[Form, Depends(read_form)],
    visitor: Annotated[Visitor, Depends(enter)],
) -> Form:
    """Read a form that a page of the visitor's own session sent.

    Raises:
        HTTPException: it does not carry the session's token (403).
    """
    sent = form.fields.get(CSRF_FIELD, [])
    if len(sent) != 1 or not compare_digest(sent[0].encode(), visitor.csrf_token.encode()):
        raise _forged()
    return form


def check_sender(request: Request) -> None:
    """Refuse what a page of another site makes a browser send.

    Browsers say where a request comes from, and let no page change it: by ``Sec-Fetch-Site`` (W3C
    Fetch Metadata) where the connection can be trusted, else by ``Origin`` (RFC 6454, section 7).
    A request with neither is sent by no browser of these years.

    Raises:
        HTTPException: another site sent it (403).
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise _forged()
        return
    origin = request.headers.get("origin")
    host = request.headers.get("host")
    # The scheme is left out: behind a proxy that ends TLS it may be told wrongly.
    if origin is not None and origin.partition("://")[2] != host:
        _log.warning(
            "form_of_another_origin",
            origin=origin[:_LONGEST_LOGGED],
            host=host and host[:_LONGEST_LOGGED],
            request_id=request.state.request_id,
        )
        raise _other_origin()


def _other_origin() -> HTTPException:
    """Return the refusal where the cause may be a proxy; only the log has the two names."""
    return HTTPException(
        403,
        "the form was sent by a page of another address than this server's; if a proxy is in front"
        " of this server, let it pass on the Host header of the browser (nginx:"
        " proxy_set_header Host $http_host; Apache: ProxyPreserveHost On), see docs/gateways.md",
    )


def _forged() -> HTTPException:
    return HTTPException(
        403, "the form does not belong to your session; open the page again and resend the form"
    )
