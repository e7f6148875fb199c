"""The example guard in front of an application, with a real Keyledger behind it."""

import asyncio
import logging
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Security
from fastapi.testclient import TestClient
from httpx2 import Response
from starlette.requests import Request

from docs.examples.guard import Guard, GuardMiddleware, Key, Refused, key_of_request
from tests.api.served import NewLedger
from tests.system.clients import Client, answered
from tests.system.processes import Server, servers_in

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

KeyThatReads = Annotated[Key, Security(key_of_request, scopes=["mcp:read"])]
KeyThatDoesBoth = Annotated[Key, Security(key_of_request, scopes=["mcp:read", "mcp:write"])]
LiveKey = Annotated[Key, Security(key_of_request)]


def by_dependency(guard: Guard) -> FastAPI:
    """Return an application whose routes state their scopes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with guard:
            app.state.guard = guard
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/tools")
    async def tools(key: KeyThatReads) -> dict[str, Any]:
        return {"key_id": key.key_id, "workspace": key.workspace, "scopes": key.scopes}

    @app.post("/tools")
    async def write(key: KeyThatDoesBoth) -> dict[str, str]:
        return {"name": key.name}

    @app.get("/any")
    async def live(key: LiveKey) -> dict[str, str]:
        return {"name": key.name}

    @app.get("/open")
    async def everybody() -> None:
        pass

    return app


def by_middleware(guard: Guard) -> FastAPI:
    """Return a wrapped application with the same scopes."""
    scopes: dict[tuple[str, str], list[str] | None] = {
        ("GET", "/tools"): ["mcp:read"],
        ("POST", "/tools"): ["mcp:read", "mcp:write"],
        ("GET", "/open"): None,
    }

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with guard:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/tools")
    async def tools(request: Request) -> dict[str, Any]:
        key: Key = request.state.key
        return {"key_id": key.key_id, "workspace": key.workspace, "scopes": key.scopes}

    @app.post("/tools")
    @app.get("/any")
    async def named(request: Request) -> dict[str, str]:
        return {"name": request.state.key.name}

    @app.get("/open")
    async def everybody(request: Request) -> None:
        assert not hasattr(request.state, "key")

    app.add_middleware(
        GuardMiddleware,
        guard=guard,
        scopes_for=lambda method, path: scopes.get((method, path), []),
    )
    return app


@dataclass(frozen=True)
class Ledger:
    """A real server, and a client with all scopes."""

    server: Server
    root: Client

    def make(self, *scopes: str, workspace: str = "acme") -> tuple[str, str]:
        made = answered(self.root.create("agent", scopes or ["mcp:read"], workspace=workspace), 201)
        return made["key_id"], made["token"]

    def revoke(self, key_id: str) -> None:
        answered(self.root.http.post(f"/v1/keys/{key_id}/revoke", params={"workspace": "acme"}))


@pytest.fixture(scope="module")
def ledger(new_ledger: NewLedger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    folder = tmp_path_factory.mktemp("guard")
    data_dir = new_ledger.copied_to(folder / "keyledger-data")
    with servers_in(folder) as servers:
        server = servers.start(data_dir=data_dir)
        yield Ledger(server, server.client(new_ledger.root.token))


@pytest.fixture(params=[by_dependency, by_middleware])
def app(request: pytest.FixtureRequest, ledger: Ledger) -> Iterator[TestClient]:
    _, token = ledger.make("api-keys:verify")
    build: Callable[[Guard], FastAPI] = request.param
    with TestClient(build(Guard(ledger.server.url, token, realm="tools"))) as client:
        yield client


def get(app: TestClient, token: str | None, path: str = "/tools", method: str = "GET") -> Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return app.request(method, path, headers=headers)


def refused(answer: Response, status: int, challenge: str | None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers.get("WWW-Authenticate") == challenge
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json().keys() == {"detail"}


def test_an_active_key_passes_and_the_application_gets_its_id(
    ledger: Ledger, app: TestClient
) -> None:
    key_id, token = ledger.make("mcp:read", "mcp:write")
    known = {"key_id": key_id, "workspace": "acme", "scopes": ["mcp:read", "mcp:write"]}
    assert get(app, token).json() == known
    assert app.get("/tools", headers={"X-API-Key": token}).json() == known
    assert get(app, token, method="POST").json() == {"name": "agent"}
    assert get(app, token, "/any").json() == {"name": "agent"}


def test_what_is_open_is_open(app: TestClient) -> None:
    assert get(app, None, "/open").status_code == 200


def test_without_a_token(app: TestClient) -> None:
    refused(get(app, None), 401, 'Bearer realm="tools"')
    refused(app.get("/tools", headers={"Authorization": "Basic YTpi"}), 401, 'Bearer realm="tools"')


@pytest.mark.parametrize("token", ["nonsense", "key_" + "0" * 65, "k" * 100_000, "", "\xff", 'a"b'])
def test_a_bad_token(app: TestClient, token: str) -> None:
    answer = app.get("/tools", headers=[(b"X-API-Key", token.encode("latin-1"))])
    why = 'error="invalid_token", error_description="the key is not known here"'
    refused(answer, 401, f'Bearer realm="tools", {why}')
    assert not token or token not in answer.text


def test_a_revoked_key_is_refused_by_the_very_next_request(ledger: Ledger, app: TestClient) -> None:
    for _ in range(5):
        key_id, token = ledger.make()
        assert get(app, token).status_code == 200
        ledger.revoke(key_id)
        why = 'error="invalid_token", error_description="the key was revoked"'
        refused(get(app, token), 401, f'Bearer realm="tools", {why}')


def test_too_small_a_scope(ledger: Ledger, app: TestClient) -> None:
    _, token = ledger.make("mcp:read")
    answer = get(app, token, method="POST")
    challenge = 'Bearer realm="tools", error="insufficient_scope", scope="mcp:read mcp:write"'
    refused(answer, 403, challenge)


def test_a_key_of_another_workspace_does_not_exist(ledger: Ledger, app: TestClient) -> None:
    _, token = ledger.make(workspace="elsewhere")
    assert get(app, token).status_code == 401


def test_two_different_tokens(ledger: Ledger, app: TestClient) -> None:
    (_, one), (_, other) = ledger.make(), ledger.make()
    headers = {"Authorization": f"Bearer {one}", "X-API-Key": other}
    assert app.get("/tools", headers=headers).status_code == 401
    headers["X-API-Key"] = one
    assert app.get("/tools", headers=headers).status_code == 200


def test_a_websocket_is_refused(ledger: Ledger) -> None:
    guarded = by_middleware(Guard(ledger.server.url, "x"))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:  # noqa: ANN401 - a message of ASGI
        sent.append(message)

    scope = {"type": "websocket", "path": "/tools", "headers": [], "query_string": b""}
    asyncio.run(guarded(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


class TestUnavailable:
    """Without a clear answer, no request passes."""

    def refusing(self, guard: Guard, token: str = "key_x") -> Refused:
        async def check() -> None:
            async with guard:
                await guard.check([(b"authorization", f"Bearer {token}".encode())], ["mcp:read"])

        with pytest.raises(Refused) as caught:
            asyncio.run(check())
        return caught.value

    def test_a_guard_whose_own_key_was_revoked(self, ledger: Ledger) -> None:
        key_id, token = ledger.make("api-keys:verify")
        ledger.revoke(key_id)
        _, good = ledger.make()
        self.is_unavailable(self.refusing(Guard(ledger.server.url, token), good))

    def test_a_guard_without_the_verify_scope(self, ledger: Ledger) -> None:
        _, good = ledger.make()
        self.is_unavailable(self.refusing(Guard(ledger.server.url, good), good))

    def test_no_server_listens(self) -> None:
        self.is_unavailable(self.refusing(Guard("http://127.0.0.1:9", "x")))

    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(200, text="yes"),
            httpx.Response(200, json=True),
            httpx.Response(200, json={}),
            httpx.Response(200, content=b"\xff"),
            httpx.Response(204),
            httpx.Response(302, headers={"Location": "/"}),
            httpx.Response(422, json={"valid": True, "code": "VALID"}),
            httpx.Response(500),
            httpx.Response(503),
        ],
        ids=str,
    )
    def test_no_verdict(self, answer: httpx.Response) -> None:
        client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _request: answer))
        self.is_unavailable(self.refusing(Guard("http://ledger", "x", client=client)))

    @pytest.mark.parametrize("valid", [1, "true", None, False])
    def test_only_true_counts_as_true(self, valid: object) -> None:
        answer = httpx.Response(200, json={"valid": valid, "code": "VALID"})
        client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _request: answer))
        assert self.refusing(Guard("http://ledger", "x", client=client)).status_code == 401

    def test_a_server_that_hangs_and_then_disappears(
        self, new_ledger: NewLedger, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("gone")
        with servers_in(folder) as servers:
            server = servers.start(data_dir=new_ledger.copied_to(folder / "keyledger-data"))
            root = server.client(new_ledger.root.token)
            token = answered(root.create("checker", ["*"]), 201)["token"]
            with TestClient(by_dependency(Guard(server.url, token))) as app:
                assert get(app, token).status_code == 200
                server.send(signal.SIGSTOP)
                answer = get(app, token)
                server.send(signal.SIGCONT)
                refused(answer, 503, None)
                assert answer.headers["Retry-After"] == "1"
                assert get(app, token).status_code == 200
                server.kill()
                for _ in range(3):
                    refused(get(app, token), 503, None)

    def is_unavailable(self, refusal: Refused) -> None:
        assert refusal.status_code == 503
        assert refusal.headers is not None
        assert refusal.headers["Retry-After"] == "1"
        assert "WWW-Authenticate" not in refusal.headers


def test_no_token_is_logged_or_shown(
    ledger: Ledger, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    (_, guards), (_, token) = ledger.make("api-keys:verify"), ledger.make()
    with TestClient(by_dependency(Guard(ledger.server.url, guards))) as app:
        assert get(app, token).status_code == 200
        assert get(app, token, method="POST").status_code == 403
        assert get(app, f"{token[:-1]}!").status_code == 401
    guard = Guard("http://127.0.0.1:9", guards)
    refusal = TestUnavailable().refusing(guard, token)
    shown = caplog.text + "".join(capfd.readouterr()) + repr(refusal) + repr(vars(guard))
    assert token not in shown
    assert "Keyledger cannot be asked: ConnectError" in caplog.text


def test_connections_are_kept_and_are_not_without_bound(ledger: Ledger) -> None:
    _, guards = ledger.make("api-keys:verify")
    _, token = ledger.make()
    most = 0

    async def many() -> None:
        nonlocal most
        guard = Guard(ledger.server.url, guards)
        headers = [(b"authorization", f"Bearer {token}".encode())]
        async with guard:
            for _ in range(20):
                await guard.check(headers, [])
            assert connections_of(guard) == 1
            await asyncio.gather(*(guard.check(headers, []) for _ in range(100)))
            most = connections_of(guard)

    asyncio.run(many())
    assert 1 <= most <= 32


def connections_of(guard: Guard) -> int:
    """Return the number of connections in the guard's pool, as httpx reports it."""
    transport: Any = guard._client._transport  # noqa: SLF001 - httpx has no other way to tell
    return len(transport._pool.connections)  # noqa: SLF001 - as above


def test_the_documented_lines_are_those_of_the_example() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guard.md").read_text()
    example = (Path(__file__).parents[2] / "docs" / "examples" / "guard.py").read_text()
    code = "".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    for name in ("Guard", "GuardMiddleware", "Key", "key_of_request"):
        assert re.search(rf"\b{name}\b", code)
        assert re.search(rf"^(async )?(class|def) {name}\b", example, flags=re.MULTILINE)
