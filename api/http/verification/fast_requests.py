"""The forms of a request that the fast path reads; the application reads all other forms."""

from functools import lru_cache

import orjson

from api.http.credentials import CREDENTIAL_HEADERS, presented_token
from api.http.verification import gateway
from domain import scopes
from domain.errors import Invalid

VERIFY_PATH = "/v1/verify"
VERIFY_TARGET = VERIFY_PATH.encode()
_GATEWAY_TARGET = gateway.PATH.encode()
_GATEWAY_QUERY = _GATEWAY_TARGET + b"?"
_BEARER = b"Bearer "
_API_KEY_HEADERS = frozenset(CREDENTIAL_HEADERS) - {b"authorization"}
_LONGEST_USUAL_BODY = 1024  # the least that the limit on bodies can be set to
_JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8"})

Asked = tuple[str, tuple[str, ...]]
"""A token, and the scopes that it is to be used for."""


def may_answer(method: bytes, target: bytes) -> bool:
    """Return whether the fast path may answer a request, by its first line."""
    if method == b"GET":
        return target.startswith(_GATEWAY_QUERY) or target == _GATEWAY_TARGET
    return method == b"POST" and target == VERIFY_TARGET


def token_of(named: dict[bytes, bytes]) -> str:
    """Return the one token that a request presents.

    Raises:
        LedgerError: as for `presented_token`, which does the same for any form of a credential.
    """
    usual = named.get(b"authorization")
    if (
        usual is not None
        and len(usual) > len(_BEARER)
        and usual.startswith(_BEARER)
        and _API_KEY_HEADERS.isdisjoint(named)
    ):
        return usual[len(_BEARER) :].strip().decode("latin-1")
    return presented_token((name, named[name]) for name in CREDENTIAL_HEADERS if name in named)


@lru_cache(maxsize=1024)
def wanted_by(target: bytes) -> tuple[str, ...]:
    """Return the scopes that a gateway requires.

    Raises:
        InsufficientScope: one of them is not a valid scope.
    """
    return gateway.wanted_scopes(gateway.PATH, target.partition(b"?")[2])


def usual_request(content_type: bytes | None, body: bytes) -> Asked | None:
    """Return the token and scopes of a usual request; ``None`` if the framework has to read it.

    A usual request is plain JSON without a repeated name and without escapes. Its values have the
    right types, and it has no workspace.
    """
    if (
        len(body) > _LONGEST_USUAL_BODY
        or b"\\" in body
        or body.count(b'"token"') != 1
        or body.count(b'"scopes"') > 1
        or content_type is None
        or content_type.lower() not in _JSON_TYPES
    ):
        return None
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(asked) is not dict or not asked.keys() <= {"token", "scopes"}:
        return None
    token, wanted = asked.get("token"), asked.get("scopes", [])
    if type(token) is not str or type(wanted) is not list or {str} < {*map(type, wanted), str}:
        return None
    usual = _usual_scopes(tuple(wanted)) if len(wanted) <= scopes.MAX_SCOPES else None
    return None if usual is None else (token, usual)


@lru_cache(maxsize=1024)
def _usual_scopes(wanted: tuple[str, ...]) -> tuple[str, ...] | None:
    try:
        return tuple(scopes.checked(wanted)) if wanted else ()
    except Invalid:
        return None
