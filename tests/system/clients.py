"""HTTP clients, and many of them at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import httpx

Json = dict[str, Any]
T = TypeVar("T")

LOST = (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""How a client learns that the server is gone; a timeout is not among them."""


class Client:
    """A client of one server, with one token and one connection."""

    def __init__(self, url: str, token: str) -> None:
        self.token = token
        self.http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
        )

    def close(self) -> None:
        self.http.close()

    def create(
        self,
        name: str,
        scopes: Sequence[str] = ("mcp:read",),
        *,
        workspace: str | None = None,
        idempotency_key: str | None = None,
        **more: object,
    ) -> httpx.Response:
        return self.http.post(
            "/v1/keys",
            params={} if workspace is None else {"workspace": workspace},
            json={"name": name, "scopes": list(scopes), **more},
            headers=_idempotency(idempotency_key),
        )

    def revoke(self, key_id: str, reason: str | None = None, **query: str) -> httpx.Response:
        return self.http.post(f"/v1/keys/{key_id}/revoke", params=query, json={"reason": reason})

    def rotate(
        self, key_id: str, grace_seconds: int = 0, *, idempotency_key: str | None = None
    ) -> httpx.Response:
        return self.http.post(
            f"/v1/keys/{key_id}/rotate",
            json={"grace_seconds": grace_seconds},
            headers=_idempotency(idempotency_key),
        )

    def update(self, key_id: str, **changes: object) -> httpx.Response:
        return self.http.patch(f"/v1/keys/{key_id}", json=changes)

    def rebuild(self, view: str) -> httpx.Response:
        return self.http.post(f"/v1/projections/{view}/rebuild")

    def projections(self) -> dict[str, Json]:
        """Return the state of each projection by its name."""
        data = answered(self.http.get("/v1/projections"))["data"]
        return {each["name"]: each for each in data}

    def show(self, key_id: str) -> Json:
        return answered(self.http.get(f"/v1/keys/{key_id}"))

    def verdict(self, token: str, **query: str) -> Json:
        return answered(self.http.post("/v1/verify", params=query, json={"token": token}))

    def verify(self, token: str, **query: str) -> str:
        """Return the code of the verdict on a token."""
        code: str = self.verdict(token, **query)["code"]
        return code

    def list_keys(self, **filters: str) -> list[Json]:
        """Return all the keys of the workspace, the newest first."""
        return self._pages("/v1/keys", filters)

    def history(self, key_id: str) -> list[Json]:
        """Return all the events of a key, the oldest first."""
        return self._pages(f"/v1/keys/{key_id}/events", {})

    def _pages(self, path: str, filters: dict[str, str]) -> list[Json]:
        items: list[Json] = []
        query = {"limit": "100", **filters}
        while True:
            page = answered(self.http.get(path, params=query))
            items += page["data"]
            if page["next_cursor"] is None:
                return items
            query["cursor"] = page["next_cursor"]


def answered(response: httpx.Response, status: int = 200) -> Json:
    """Return the document of an answer that has the status expected."""
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    document: Json = response.json()
    return document


def types(history: Sequence[Json]) -> list[str]:
    """Return the kinds of the events of a history, without their common beginning."""
    return [event["type"].removeprefix("ApiKey.") for event in history]


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make the calls at the same moment, each in a thread; return what they return, in order."""
    barrier = Barrier(len(calls))

    def call_with_the_others(call: Callable[[], T]) -> T:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call_with_the_others, calls))


def _idempotency(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}
