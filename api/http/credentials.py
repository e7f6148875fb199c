"""Credentials: read from a request, verified, and turned into a requester with scopes."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer, SecurityScopes

from api.http.dependencies import verification_of
from domain.caller import Actor, Caller
from domain.errors import (
    CredentialExpired,
    CredentialRevoked,
    InsufficientScope,
    Invalid,
    LedgerError,
    NoCredential,
    Unauthenticated,
    WorkspaceForbidden,
)
from domain.names import DEFAULT_WORKSPACE, EVERY_WORKSPACE, ROOT_WORKSPACE, checked_workspace
from domain.verdict import AuthRow, Code, Verified

_HEADERS_WITH_TOKEN = (b"x-api-key", b"x-blnk-key")
Authorize = Callable[[], Awaitable[object]]
"""Raises `LedgerError` if the caller of a long-running answer may no longer receive it."""

CREDENTIAL_HEADERS = (b"authorization", *_HEADERS_WITH_TOKEN)

# For the OpenAPI document only: both would not notice a header that occurs twice.
bearer_scheme = HTTPBearer(scheme_name="Bearer", auto_error=False)
api_key_scheme = APIKeyHeader(name="X-API-Key", scheme_name="X-API-Key", auto_error=False)


@dataclass(frozen=True, slots=True)
class Requester:
    """The authenticated caller of a request.

    Args:
        caller: the caller of commands.
        workspace: workspace of the credential.
    """

    caller: Caller
    workspace: str

    @property
    def is_root(self) -> bool:
        """Whether the credential may act in other workspaces."""
        return self.workspace == ROOT_WORKSPACE

    def acting_in(self, named: str | None) -> str:
        """Return the workspace that a request acts in.

        Args:
            named: the workspace in the query; ``None`` selects `default_workspace`.

        Raises:
            WorkspaceForbidden: the query names another workspace, and the credential is not of
                ``root``.
            Invalid: the name is not the name of one workspace.
        """
        if named is None:
            return default_workspace(self.workspace)
        if named == self.workspace:
            return named
        if not self.is_root:
            raise WorkspaceForbidden(
                f"this credential acts in the workspace {self.workspace}; only a key of the"
                f" workspace {ROOT_WORKSPACE} may name another one"
            )
        if named == EVERY_WORKSPACE:
            raise Invalid("workspace", "name one workspace: only lists accept * for all")
        return checked_workspace(named)

    def reading_in(self, named: str | None) -> str | None:
        """Return the workspace of a list, as `acting_in`; ``None`` means all workspaces.

        Raises:
            WorkspaceForbidden, Invalid: as for `acting_in`.
        """
        if named == EVERY_WORKSPACE and self.is_root:
            return None
        return self.acting_in(named)

    def check_root(self) -> None:
        """Raise unless the credential is of the root workspace, for what concerns all workspaces.

        Raises:
            WorkspaceForbidden: it is not.
        """
        if not self.is_root:
            raise WorkspaceForbidden(
                f"this concerns all workspaces; it needs a key of the workspace {ROOT_WORKSPACE}"
            )


def default_workspace(workspace: str) -> str:
    """Return the workspace that a request acts in if it names none.

    Args:
        workspace: that of the credential. Credentials of ``root`` act in ``default``.
    """
    return DEFAULT_WORKSPACE if workspace == ROOT_WORKSPACE else workspace


def presented_token(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the token that a request presents.

    Raises:
        NoCredential: there is none, or its scheme is not Bearer.
        Unauthenticated: there are two different ones, or a scheme without a token.
    """
    token: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            found = _bearer_token(value)
        elif name in _HEADERS_WITH_TOKEN:
            found = value.strip()
        else:
            continue
        if token is not None and token != found:
            raise Unauthenticated("the request has two different credentials: send only one")
        token = found
    if token is None:
        raise NoCredential(
            "the request has no credential: send Authorization: Bearer TOKEN or X-API-Key: TOKEN"
        )
    return token.decode("latin-1")


def _bearer_token(value: bytes) -> bytes:
    scheme, _, token = value.strip().partition(b" ")
    if scheme.lower() != b"bearer":
        # The same as no credential: the challenge has no error code (RFC 6750, section 3.1).
        raise NoCredential("the header is not valid: use Authorization: Bearer TOKEN")
    if not (token := token.strip()):
        raise Unauthenticated("the header is not valid: use Authorization: Bearer TOKEN")
    return token


async def require(
    request: Request,
    scopes: SecurityScopes,
    _bearer: Annotated[object, Security(bearer_scheme)],
    _api_key: Annotated[object, Security(api_key_scheme)],
) -> Requester:
    """Return the requester, if its key is active and has the scopes of the route.

    Raises:
        Unauthenticated: the credential is missing or not valid.
        InsufficientScope: the credential is valid and lacks a scope.
        LedgerUnavailable, Overloaded: the credential cannot be verified now.
    """
    return await requester_with(request, presented_token(request.headers.raw), scopes.scopes)


async def requester_with(
    request: Request, token: str, scopes: list[str], *, key_id: str | None = None
) -> Requester:
    """Return the requester that a token belongs to.

    Args:
        token: as presented; it is verified here.
        scopes: the scopes that the route needs.
        key_id: the key that the token must belong to, where the request names one.

    Raises:
        LedgerError: as for `require`; a token of another key is refused like an unknown one.
    """
    key = await _proved_key(request, token, scopes, key_id)
    caller = Caller(
        Actor("key", key.key_id),
        holds=key.scopes,
        request_id=request.state.request_id,
        source_ip=_source(request),
    )
    return Requester(caller, key.workspace)


async def require_again(request: Request, scope: str) -> None:
    """Verify again the credential of a request that takes long.

    Raises:
        LedgerError: as for `require`.
    """
    await _proved_key(request, presented_token(request.headers.raw), [scope])


async def _proved_key(
    request: Request, token: str, scopes: list[str], key_id: str | None = None
) -> AuthRow:
    answer = await verification_of(request).verify(token, scopes, source=_source(request))
    verdict = answer.verdict
    if verdict.key is not None:
        if key_id is not None and not _same(key_id, verdict.key.key_id):
            raise refusal(Code.NOT_FOUND, "")
        request.state.actor = verdict.key.key_id
        request.state.workspace = verdict.key.workspace
    if not isinstance(verdict, Verified):
        raise refusal(verdict.code, " ".join(scopes))
    return verdict.key


def _same(one: str, other: str) -> bool:
    """Compare in constant time."""
    return compare_digest(one.encode("utf-8", "replace"), other.encode())


def _source(request: Request) -> str | None:
    return request.client.host if request.client else None


def refusal(code: Code, scope: str) -> LedgerError:
    """Return the error for a credential with this verdict code.

    Args:
        code: any code except ``VALID``.
        scope: scope that the route requires.
    """
    if code is Code.REVOKED:
        return CredentialRevoked("the credential was revoked")
    if code is Code.EXPIRED:
        return CredentialExpired("the credential has expired")
    if code is Code.INSUFFICIENT_SCOPE:
        return InsufficientScope(scope)
    return Unauthenticated("the credential is not valid")
