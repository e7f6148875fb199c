"""The app in the test's process: with its own ledger, a settable clock and a root key."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import URL

from api.app import create_app
from api.composition import opened_ledger
from api.settings import Settings
from domain.caller import Actor, Caller
from domain.verifiers import CHEAPEST, Argon2Profile
from tests.conftest import NOON, SettableClock
from tests.engines import fresh_copy, settings_of

Json = dict[str, Any]

KEY_FIELDS = [
    "key_id", "workspace", "name", "prefix", "scopes", "role", "status", "expires_at",
    "created_at", "created_by", "revoked_at", "revoked_by", "revoke_reason", "rotated_from",
    "rotated_to", "last_used_at", "version",
]  # fmt: skip
"""Fields of a key in an answer, in this order; a missing value is null."""

SOURCE = "192.0.2.7"
"""Client address of all requests in the tests."""

UNKNOWN_KEY_ID = "apikey_00000000-0000-8000-8000-000000000000"
"""A valid key id that no key has."""

_MAKER = Caller(Actor("cli", "ada"), holds=("*",))


@dataclass(frozen=True)
class Key:
    """A key that a test created, and its token."""

    key_id: str
    token: str
    document: Json

    @property
    def path(self) -> str:
        return f"/v1/keys/{self.key_id}"


@dataclass(frozen=True)
class NewLedger:
    """A data folder with a new ledger and root key; copying it avoids migrations."""

    folder: Path
    root: Key

    @classmethod
    def made_in(cls, folder: Path) -> "NewLedger":
        with opened_ledger(
            settings_of(folder),
            clock=lambda: NOON,
            random=random.Random(1).randbytes,
            argon2_profile=CHEAPEST,
        ) as opened:
            issued = opened.ledger.create_key(
                workspace="root",
                name="root",
                scopes=["*"],
                expires_at=None,
                token_prefix="key",
                by=_MAKER,
                at=NOON,
            )
        assert issued.token is not None
        return cls(folder, Key(issued.key_id, issued.token.reveal(), {}))

    def copied_to(self, folder: Path) -> Path:
        return fresh_copy(self.folder, folder)


class Api:
    """A client of an app; requests without another credential are sent with root's token."""

    def __init__(self, app: FastAPI, client: TestClient, clock: SettableClock, root: Key) -> None:
        self.app = app
        self.client = client
        self.clock = clock
        self.root = root

    @property
    def settings(self) -> Settings:
        settings: Settings = self.app.state.ledger.settings
        return settings

    @property
    def address(self) -> URL:
        """URL of the database, for changes outside the program."""
        url: URL = self.app.state.ledger.database.url
        return url

    def send(
        self,
        method: str,
        path: str,
        *,
        by: Key | str | None = "root",
        headers: Mapping[str, str] | list[tuple[bytes, bytes]] | None = None,
        **request: Any,  # noqa: ANN401 - as in httpx
    ) -> Response:
        """Send a request, with the token of a key, a token, or none."""
        if by == "root":
            by = self.root
        token = by.token if isinstance(by, Key) else by
        if token is not None:
            given = [*headers.items()] if isinstance(headers, Mapping) else headers or []
            bearer: Any = ("Authorization", f"Bearer {token}")
            if isinstance(headers, list):
                bearer = (b"Authorization", f"Bearer {token}".encode())
            return self.client.request(method, path, headers=[bearer, *given], **request)
        return self.client.request(method, path, headers=headers, **request)

    def get(self, path: str, **request: Any) -> Response:  # noqa: ANN401 - as in `send`
        return self.send("GET", path, **request)

    def post(self, path: str, **request: Any) -> Response:  # noqa: ANN401 - as in `send`
        return self.send("POST", path, **request)

    def patch(self, path: str, **request: Any) -> Response:  # noqa: ANN401 - as in `send`
        return self.send("PATCH", path, **request)

    def make(
        self,
        *scopes: str,
        name: str = "payments-api",
        workspace: str = "acme",
        by: Key | None = None,
        **more: object,
    ) -> Key:
        """Create a key; by default with ``mcp:read`` in the workspace ``acme``."""
        asked = {"name": name, "scopes": scopes or ["mcp:read"], **more}
        params = {"workspace": workspace} if by is None else {}
        response = self.post("/v1/keys", by=by or self.root, params=params, json=asked)
        assert response.status_code == 201, response.text
        document = response.json()
        return Key(document["key_id"], document["token"], document)

    def admin(self, workspace: str = "acme") -> Key:
        """Create a key with all scopes in one workspace."""
        return self.make("*", name="admin", workspace=workspace)

    def revoked(self, *scopes: str, workspace: str = "acme") -> Key:
        key = self.make(*scopes, workspace=workspace)
        self.revoke(key)
        return key

    def revoke(self, key: Key) -> None:
        workspace = key.document["workspace"]
        answer = self.post(f"{key.path}/revoke", params={"workspace": workspace})
        assert answer.status_code == 200, answer.text

    def show(self, key: Key) -> Json:
        """Return the key as root sees it now."""
        answer = self.get(key.path, params={"workspace": key.document["workspace"]})
        assert answer.status_code == 200, answer.text
        document: Json = answer.json()
        return document

    def history(self, key: Key) -> list[Json]:
        """Return the key's events."""
        answer = self.get(
            f"{key.path}/events", params={"workspace": key.document["workspace"], "limit": 100}
        )
        assert answer.status_code == 200, answer.text
        events: list[Json] = answer.json()["data"]
        return events

    def event_types(self, key: Key) -> list[str]:
        return [event["type"].removeprefix("ApiKey.") for event in self.history(key)]

    def position(self) -> int:
        """Return the position of the newest event."""
        position: int = self.get("/readyz", by=None).json()["position"]
        return position

    def metrics(self) -> dict[str, float]:
        """Return the value of each series of the metrics."""
        lines = self.get("/metrics", by=None).text.splitlines()
        series = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in series}


@contextmanager
def served(
    settings: Settings,
    root: Key,
    clock: SettableClock,
    *,
    seed: int = 2,
    argon2_profile: Argon2Profile = CHEAPEST,
) -> Iterator[Api]:
    """Serve an app; it answers unexpected errors itself instead of raising them in the test."""
    app = create_app(
        settings, clock=clock, random=random.Random(seed).randbytes, argon2_profile=argon2_profile
    )
    address = (SOURCE, 50_000)
    with TestClient(
        app, raise_server_exceptions=False, follow_redirects=False, client=address
    ) as client:
        yield Api(app, client, clock, root)


def refused(response: Response, status: int, code: str) -> Json:
    """Assert the form, status and code of a refusal; return the document."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: Json = response.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["X-Request-Id"]
    assert set(problem) <= {
        "type", "title", "status", "detail", "code", "request_id", "errors"
    }  # fmt: skip
    if status == 422 and code == "INVALID":
        assert problem["errors"], "what is not valid must be named"
        for error in problem["errors"]:
            assert set(error) == {"field", "message"}
            assert error["field"] in problem["detail"]
    if status == 401:
        assert response.headers["WWW-Authenticate"].startswith('Bearer realm="keyledger"')
    if status == 503:
        assert int(response.headers["Retry-After"]) >= 1
    return problem


def invalid(response: Response, *fields: str) -> Json:
    """Assert a 422 for exactly these fields; return the document."""
    problem = refused(response, 422, "INVALID")
    assert [error["field"] for error in problem["errors"]] == list(fields), problem
    return problem
