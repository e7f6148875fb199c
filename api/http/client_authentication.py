"""OAuth 2.0 client authentication (RFC 6749, section 2.3.1), for endpoints that OAuth clients call.

An OAuth client is a key of the ledger. Its ``client_id`` is the key's id, which is also the
``client_id`` of an introspection answer, and its ``client_secret`` is the key's token. The client
sends both by HTTP Basic (``client_secret_basic``) or in the form (``client_secret_post``). Every
other caller presents its token as elsewhere, as Bearer or in ``X-API-Key``.

An endpoint that accepts all of these has the route class `api.http.oauth_errors.OAuthRoute` and
depends on `authenticated_call`.
"""

import binascii
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import parse_qs, unquote_plus

from fastapi import Request, Security
from fastapi.security import HTTPBasic, SecurityScopes

from api.http.credentials import (
    CREDENTIAL_HEADERS,
    Requester,
    api_key_scheme,
    bearer_scheme,
    requester_with,
    require,
)
from api.http.schemas.requests import KEY_ID
from domain.errors import Invalid, Unauthenticated

FORM = "application/x-www-form-urlencoded"
CLIENT_FIELDS = {
    "client_id": {
        "type": "string",
        "description": "The id of the key whose token is the `client_secret`.",
        "examples": [KEY_ID],
    },
    "client_secret": {
        "type": "string",
        "description": "The token of the calling key; not beside another method of authentication.",
    },
}
"""Fields of a form with client authentication, for the OpenAPI document."""
_BASIC = b"basic"
_MOST_FIELDS = 100


class _BasicScheme(HTTPBasic):
    """An entry for the OpenAPI document; FastAPI's class would also read the header and raise."""

    async def __call__(self, request: Request) -> None:  # type: ignore[override]
        """Leave the header to `authenticated_call`."""


_basic_scheme = _BasicScheme(
    scheme_name="Basic",
    description="The key's id and its token, each form-urlencoded (RFC 6749, section 2.3.1).",
)


@dataclass(frozen=True, slots=True)
class OAuthForm:
    """The fields of a request's form.

    Args:
        fields: the values of each field; one of them may be a secret.
    """

    fields: dict[str, list[str]] = field(repr=False)

    def optional(self, name: str) -> str | None:
        """Return the value of a field; ``None`` if it is missing or empty.

        Raises:
            Invalid: the field occurs more than once (RFC 6749, section 3.2).
        """
        values = self.fields.get(name, [])
        if len(values) > 1:
            raise Invalid(name, "use this field at most once")
        return values[0] or None if values else None

    def required(self, name: str) -> str:
        """Return the value of a field, which may be empty.

        Raises:
            Invalid: the field is missing or occurs more than once.
        """
        values = self.fields.get(name, [])
        if len(values) != 1:
            raise Invalid(name, "use this field exactly once")
        return values[0]

    def has(self, name: str) -> bool:
        """Return whether a field has a value that is not empty (RFC 6749, section 3.2)."""
        return any(self.fields.get(name, []))


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The id of a key, and its token as the secret."""

    client_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OAuthCall:
    """A request of an authenticated caller to an OAuth endpoint, with its form."""

    requester: Requester
    form: OAuthForm


async def authenticated_call(
    request: Request,
    scopes: SecurityScopes,
    _bearer: Annotated[object, Security(bearer_scheme)],
    _api_key: Annotated[object, Security(api_key_scheme)],
    _basic: Annotated[object, Security(_basic_scheme)],
) -> OAuthCall:
    """Authenticate the caller by any of the methods, and read its form.

    Raises:
        Unauthenticated: no credential, or an invalid one; a wrong ``client_id`` is refused like a
            wrong token.
        InsufficientScope: the key lacks a scope of the route.
        Invalid: more than one method is used, a field occurs twice, or the body is no form.
        LedgerUnavailable, Overloaded: the credential cannot be verified now.
    """
    is_form = _content_type(request) == FORM
    headers = [each for each in request.headers.raw if each[0] in CREDENTIAL_HEADERS]
    request.state.is_oauth_client = any(_is_basic(*each) for each in headers)
    form = OAuthForm(_parsed(await request.body()) if is_form else {})
    if _is_of_client(headers, form):
        # From here on, errors have the form that OAuth clients expect.
        request.state.is_oauth_client = True
        client = presented_client(headers, form)
        requester = await requester_with(
            request, client.secret, scopes.scopes, key_id=client.client_id
        )
    else:
        requester = await require(request, scopes, None, None)
    if not is_form:
        raise Invalid("Content-Type", f"send a form with the header Content-Type: {FORM}")
    return OAuthCall(requester, form)


def is_oauth_client(request: Request) -> bool:
    """Return whether the caller authenticates, or tries to, as an OAuth client."""
    return bool(getattr(request.state, "is_oauth_client", False))


def presented_client(headers: Sequence[tuple[bytes, bytes]], form: OAuthForm) -> ClientCredentials:
    """Return the credentials of the one method that an OAuth client uses.

    Args:
        headers: those of the request that can have a credential.
        form: the form of the request.

    Raises:
        Invalid: more than one method is used, or a field occurs twice or is missing.
        Unauthenticated: the Basic credentials cannot be read, or there is no ``client_secret``.
    """
    basic = [value for name, value in headers if _is_basic(name, value)]
    if len(headers) + form.has("client_secret") > 1:
        raise Invalid("client_secret", "more than one method of authentication: use only one, once")
    client_id = form.optional("client_id")
    secret = form.optional("client_secret")
    if basic:
        credentials = _from_basic(basic[0])
        if client_id not in (None, credentials.client_id):
            raise Invalid(
                "client_id", "client_id differs from the Authorization header: use the same one"
            )
        return credentials
    if client_id is None:
        raise Invalid("client_id", "client_id is not the id of the key of client_secret")
    if secret is None:
        raise Unauthenticated("client_secret is missing: authenticate the client with it")
    return ClientCredentials(client_id, secret)


def _is_of_client(headers: list[tuple[bytes, bytes]], form: OAuthForm) -> bool:
    """Return whether the credentials are those of an OAuth client, valid or not.

    A ``client_id`` beside a token that is presented as Bearer is ignored, as any other field is.
    """
    if form.has("client_secret") or any(_is_basic(*each) for each in headers):
        return True
    return not headers and form.has("client_id")


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _parsed(body: bytes) -> dict[str, list[str]]:
    """Parse a form.

    Raises:
        Invalid: it has too many fields. The caller is not authenticated yet, and parsing thousands
            of fields would delay all other requests.
    """
    try:
        return parse_qs(body.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise Invalid("body", f"too many fields: send at most {_MOST_FIELDS}") from error


def _is_basic(name: bytes, value: bytes) -> bool:
    return name == b"authorization" and value.lower().split(maxsplit=1)[:1] == [_BASIC]


def _from_basic(value: bytes) -> ClientCredentials:
    """Parse the value of an Authorization header (RFC 7617, section 2; RFC 6749, section 2.3.1)."""
    encoded = value.strip().partition(b" ")[2].strip()
    try:
        text = b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    client_id, colon, secret = text.partition(":")
    if not colon:
        raise Unauthenticated(
            "the header is not valid: use Authorization: Basic base64(client_id:token)"
        )
    return ClientCredentials(unquote_plus(client_id), unquote_plus(secret))
