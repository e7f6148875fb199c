"""Visitors: who is signed in to the console, and what they may do.

A visitor is a key of the ledger. The session only says which; whether that key is alive, and what
it may do, is asked at each request in the way in which every other credential is judged. So a
session ends in the moment in which its key does.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from fastapi import Request
from fastapi.security import SecurityScopes
from starlette.responses import Response

from api.http.credentials import Requester, refusal
from api.http.dependencies import ledger_of
from domain.caller import Actor, Caller
from domain.errors import (
    CredentialExpired,
    CredentialRevoked,
    InsufficientScope,
    Invalid,
    NoCredential,
)
from domain.names import EVERY_WORKSPACE
from domain.scopes import cover
from domain.tokens import display_prefix
from domain.verdict import AuthRow, Code, Verified
from projections.store.console_sessions import ConsoleSessions

# A browser takes a __Host- cookie over TLS alone, for this host alone (RFC 6265bis, 4.1.3.2).
_COOKIE_BEHIND_TLS = "__Host-keyledger"
_COOKIE = "keyledger"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at the console.

    Args:
        requester: whom commands are given by.
        name: of the key that signed in.
        prefix: what its token begins with.
        workspace: the one that is shown; ``*`` for all.
        csrf_token: what every form of this session carries.
        wrong_workspace: what is wrong with the workspace in the address, if anything.
    """

    requester: Requester
    name: str
    prefix: str
    workspace: str
    csrf_token: str
    wrong_workspace: Invalid | None = None

    @property
    def caller(self) -> Caller:
        """Whom commands are given by."""
        return self.requester.caller

    @property
    def readable_workspace(self) -> str | None:
        """The workspace whose keys the visitor may see; ``None`` for those of all."""
        return None if self.requester.is_root else self.workspace

    @property
    def is_elsewhere(self) -> bool:
        """Return whether the workspace is another than the one that the console opens on."""
        return self.workspace != self.home

    @property
    def home(self) -> str:
        """The workspace that the console opens on."""
        return self.requester.acting_in(None)

    def reading_in(self) -> str | None:
        """Return the workspace of a list; ``None`` means all workspaces.

        Raises:
            Invalid: the address names a workspace whose name is not valid.
        """
        if self.wrong_workspace is not None:
            raise self.wrong_workspace
        return None if self.workspace == EVERY_WORKSPACE else self.workspace

    def check_workspace(self) -> None:
        """Raise unless the address names one workspace.

        Raises:
            Invalid: it names all of them, or one whose name is not valid.
        """
        if self.reading_in() is None:
            raise Invalid("workspace", "name one workspace: only lists accept * for all")

    def may(self, scope: str) -> bool:
        """Tell whether the key has a scope."""
        return cover(self.caller.holds, [scope])


def enter(request: Request, scopes: SecurityScopes) -> Visitor:
    """Let in who is signed in with a live key that has the scopes of the route.

    Raises:
        NoCredential: nobody is signed in, or not any more.
        CredentialRevoked, CredentialExpired: the key that signed in has come to its end.
        InsufficientScope: it lacks a scope.
        WorkspaceForbidden: it looks at a workspace other than its own, and is none of root's.
        LedgerUnavailable: it cannot be told now.
    """
    ledger = ledger_of(request)
    now = ledger.clock()
    value = session_value(request)
    session = value and sessions_of(request).find(value, now=now)
    if not value or not session:
        raise NoCredential("sign in to the console")
    verdict = ledger.authentication.verify_again(session.key_id, session.lookup_id, now=now).verdict
    if not isinstance(verdict, Verified):
        raise _ended(verdict.code)
    return admit(request, verdict.key, value, scopes.scopes)


def admit(request: Request, key: AuthRow, value: str, scopes: Sequence[str]) -> Visitor:
    """Return the visitor of a session, if its key has the scopes.

    Args:
        key: the key that is signed in.
        value: the value of the session's cookie.
        scopes: what the page needs.

    Raises:
        InsufficientScope: the key lacks a scope.
        WorkspaceForbidden: the address names another workspace than the key may act in.
    """
    request.state.actor = key.key_id
    request.state.workspace = key.workspace
    source = request.client.host if request.client else None
    caller = Caller(Actor("key", key.key_id), key.scopes, request.state.request_id, source)
    requester = Requester(caller, key.workspace)
    visitor = Visitor(
        requester,
        name=key.name,
        prefix=display_prefix(key.token_prefix, key.lookup_id),
        workspace=requester.acting_in(None),
        csrf_token=csrf_token(value),
    )
    # Whatever is refused from here on is refused to somebody: the page that says so is theirs.
    request.state.visitor = visitor
    for scope in scopes:
        if not visitor.may(scope):
            raise InsufficientScope(scope)
    named = request.query_params.get("workspace") or None
    try:
        workspace = requester.reading_in(named) or EVERY_WORKSPACE
        visitor = replace(visitor, workspace=workspace)
    except Invalid as error:
        visitor = replace(visitor, wrong_workspace=error)
    request.state.visitor = visitor
    return visitor


def enter_workspace(request: Request, scopes: SecurityScopes) -> Visitor:
    """Return the visitor of a page about one workspace.

    Raises:
        LedgerError: as `enter`.
        Invalid: the address does not name one workspace.
    """
    visitor = enter(request, scopes)
    visitor.check_workspace()
    return visitor


def _ended(code: Code) -> CredentialRevoked | CredentialExpired | NoCredential:
    refused = refusal(code, "")
    if isinstance(refused, CredentialRevoked | CredentialExpired):
        return refused
    return NoCredential("sign in to the console")


def csrf_token(value: str) -> str:
    """Return what the forms of a session carry.

    It follows from the session's value, and the value does not follow from it; a page of another
    site knows neither.
    """
    digest = hashlib.sha256(b"keyledger console form\0" + value.encode()).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


def session_value(request: Request) -> str | None:
    """Return the value in a request's cookie."""
    return request.cookies.get(_cookie_name(request))


def keep_session(request: Request, response: Response, value: str) -> None:
    """Let the browser keep a session until the session ends."""
    _set_cookie(request, response, value, int(sessions_of(request).lifetime.total_seconds()))


def forget_session(request: Request, response: Response) -> None:
    """Let the browser forget the session."""
    _set_cookie(request, response, "", 0)


def sessions_of(request: Request) -> ConsoleSessions:
    """Return the sessions of the console."""
    return cast("ConsoleSessions", request.app.state.console_sessions)


def _set_cookie(request: Request, response: Response, value: str, seconds: int) -> None:
    response.set_cookie(
        _cookie_name(request),
        value,
        max_age=seconds,
        path="/",
        secure=_is_behind_tls(request),
        httponly=True,
        samesite="strict",
    )


def _cookie_name(request: Request) -> str:
    return _COOKIE_BEHIND_TLS if _is_behind_tls(request) else _COOKIE


def _is_behind_tls(request: Request) -> bool:
    return request.url.scheme == "https"
