"""Guard an ASGI application with Keyledger: a dependency for FastAPI, and a middleware.

Copy it into your application; it needs httpx, and FastAPI for the dependency. See docs/guard.md.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import SecurityScopes

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

_log = logging.getLogger(__name__)

_LONGEST_TOKEN = 256
_HEADERS_WITH_TOKEN = (b"authorization", b"x-api-key")
_TIMEOUT = httpx.Timeout(2.0, connect=1.0, pool=1.0)
# Shorter than the idle timeout of Keyledger (KEYLEDGER_KEEP_ALIVE_SECONDS, 75 by default).
_LIMITS = httpx.Limits(max_connections=32, max_keepalive_connections=32, keepalive_expiry=4.0)


@dataclass(frozen=True, slots=True)
class Key:
    """The key that a request was made with, as Keyledger knew it at that moment."""

    key_id: str
    name: str
    workspace: str
    scopes: tuple[str, ...]


class Refused(HTTPException):
    """The request may not pass; this is what to answer, which FastAPI does by itself."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str]) -> None:
        """Say the status, a sentence for people, and the headers that go with the status."""
        super().__init__(status, detail, {"Cache-Control": "no-store", **headers})


class Guard:
    """Asks Keyledger about each request, and lets through what Keyledger says yes to, no more.

    Nothing is cached, so a revoked key is refused by the very next request. Whatever is not a clear
    yes or no, such as a timeout, is 503. A token is sent to Keyledger, and goes nowhere else.
    """

    def __init__(
        self, url: str, token: str, *, realm: str = "api", client: httpx.AsyncClient | None = None
    ) -> None:
        """Ask the Keyledger at ``url``, with the token of a key that has ``api-keys:verify``.

        Args:
            realm: what challenges call that which is protected.
            client: one of your own, instead of one with kept-alive connections and short timeouts.
        """
        self._client = client or httpx.AsyncClient(
            timeout=_TIMEOUT, limits=_LIMITS, trust_env=False
        )
        self._url = f"{url.rstrip('/')}/v1/verify"
        self._credential = {"Authorization": f"Bearer {token}"}
        self._realm = realm

    async def __aenter__(self) -> Self:
        """Use it in the application's lifespan."""
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def check(self, headers: Headers, scopes: Sequence[str]) -> Key:
        """Return the key that a request was made with, if it may do all that ``scopes`` names.

        Raises:
            Refused: 401, 403, or 503 if it cannot be told.
        """
        token = self._presented(headers)
        verdict = await self._verdict(token, scopes)
        code = verdict["code"]
        if verdict["valid"] is True and code == "VALID":
            return Key(
                verdict["key_id"], verdict["name"], verdict["workspace"], tuple(verdict["scopes"])
            )
        if code == "INSUFFICIENT_SCOPE":
            needed = " ".join(scopes)
            challenge = self._challenge(error="insufficient_scope", scope=needed)
            raise Refused(403, f"this needs a key with the scope {needed}", challenge)
        detail = {"REVOKED": "the key was revoked", "EXPIRED": "the key has expired"}
        raise self._bad_token(detail.get(code, "the key is not known here"))

    def _presented(self, headers: Headers) -> str:
        found = [(name, value) for name, value in headers if name in _HEADERS_WITH_TOKEN]
        if not found:
            raise Refused(401, "present a token", self._challenge())
        tokens = set()
        for name, value in found:
            scheme, _, rest = value.strip().partition(b" ")
            if name == b"x-api-key":
                tokens.add(value.strip())
            elif scheme.lower() == b"bearer":
                tokens.add(rest.strip())
            else:
                raise Refused(401, "write Authorization: Bearer TOKEN", self._challenge())
        if len(tokens) > 1:
            raise self._bad_token("two different tokens were presented")
        token = tokens.pop().decode("latin-1")
        if len(token) > _LONGEST_TOKEN:
            raise self._bad_token("the key is not known here")
        return token

    async def _verdict(self, token: str, scopes: Sequence[str]) -> dict[str, Any]:
        # From None, each time: what httpx raises holds the request, and that holds the token.
        try:
            answer = await self._client.post(
                self._url, json={"token": token, "scopes": list(scopes)}, headers=self._credential
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unavailable(type(error).__name__) from None
        if answer.status_code != httpx.codes.OK:
            # Not the client's fault: Keyledger is overloaded, or does not know this guard.
            raise self._unavailable(f"it answered {answer.status_code}")
        try:
            verdict = answer.json()
        except ValueError:
            raise self._unavailable("it answered no JSON") from None
        if not isinstance(verdict, dict) or not {"valid", "code"} <= verdict.keys():
            raise self._unavailable("it answered no verdict")
        return verdict

    def _bad_token(self, why: str) -> Refused:
        return Refused(401, why, self._challenge(error="invalid_token", error_description=why))

    def _unavailable(self, why: str) -> Refused:
        _log.error("Keyledger cannot be asked: %s", why)
        return Refused(503, "keys cannot be checked at this moment", {"Retry-After": "1"})

    def _challenge(self, **parameters: str) -> dict[str, str]:
        written = [f'{name}="{value}"' for name, value in parameters.items()]
        return {"WWW-Authenticate": ", ".join([f'Bearer realm="{self._realm}"', *written])}


class GuardMiddleware:
    """Lets requests through to an ASGI application; the key is in ``scope["state"]["key"]``.

    Args:
        scopes_for: the scopes that a request needs, by its method and path; ``None`` lets anybody
            pass. Whatever your application serves, by whichever path, has to come by here.
    """

    def __init__(
        self, app: App, guard: Guard, scopes_for: Callable[[str, str], Sequence[str] | None]
    ) -> None:
        """Stand before ``app``."""
        self._app = app
        self._guard = guard
        self._scopes_for = scopes_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # An ASGI server answers a WebSocket that is closed before it is accepted with 403.
            await send({"type": "websocket.close", "code": 1008})
            return
        scopes = self._scopes_for(scope["method"], scope["path"])
        if scopes is not None:
            try:
                key = await self._guard.check(scope["headers"], scopes)
            except Refused as refused:
                body = {"detail": refused.detail}
                answer = JSONResponse(body, refused.status_code, refused.headers)
                await answer(scope, receive, send)
                return
            scope.setdefault("state", {})["key"] = key
        await self._app(scope, receive, send)


async def key_of_request(request: Request, scopes: SecurityScopes) -> Key:
    """Return the key that a request was made with; to be used as ``Security(key_of_request, …)``.

    The application keeps its guard in ``app.state.guard``.

    Raises:
        Refused: it may not pass.
    """
    guard: Guard = request.app.state.guard
    return await guard.check(request.headers.raw, scopes.scopes)
