"""Clients that record what they requested and were answered, and check it later."""

from dataclasses import dataclass, field
from random import Random
from threading import Semaphore
from typing import Literal

import httpx

from tests.system.clients import LOST, Client, Json, answered

Fact = tuple[str, Json]
"""The kind of an event, and what it must say."""


@dataclass
class Key:
    """A key as its client knows it: the events of its life that were acknowledged."""

    name: str
    scopes: list[str]
    key_id: str
    token: str | None
    history: list[Fact]
    rotated_from: str | None = None
    rotated_to: str | None = None
    revoked: bool = False
    ended: bool = False

    @property
    def verdict(self) -> str:
        """What verifying its token must say."""
        if self.revoked:
            return "REVOKED"
        return "EXPIRED" if self.ended else "VALID"


@dataclass
class Order:
    """Something that a client asks for; ``name`` and ``scopes`` as they are to be afterwards."""

    action: Literal["create", "update", "revoke", "rotate"]
    name: str
    scopes: list[str]
    key: Key | None = None
    grace_seconds: int = 0
    idempotency_key: str | None = None

    def send(self, client: Client) -> httpx.Response:
        """Ask for it, for the first time or again."""
        if self.key is None:
            return client.create(self.name, self.scopes, idempotency_key=self.idempotency_key)
        key_id = self.key.key_id
        if self.action == "update":
            return client.update(key_id, name=self.name, scopes=self.scopes)
        if self.action == "revoke":
            return client.revoke(key_id, self.name)
        return client.rotate(key_id, self.grace_seconds, idempotency_key=self.idempotency_key)

    def facts(self, successor_id: str | None) -> list[Fact]:
        """Return the events that it adds to the history of its key."""
        if self.action == "update":
            return [
                ("ApiKey.Renamed", {"name": self.name}),
                ("ApiKey.ScopesChanged", {"scopes": self.scopes}),
            ]
        if self.action == "revoke":
            return [("ApiKey.Revoked", {"reason": self.name})]
        return [("ApiKey.Rotated", {"successor_id": successor_id})]


@dataclass
class Customer:
    """A client with keys that nobody else touches."""

    number: int
    random: Random
    keys: dict[str, Key] = field(default_factory=dict)
    unanswered: Order | None = None
    touched: set[str] = field(default_factory=set)
    """Keys that something was noted of since this was emptied last."""
    _orders: int = 0

    def work(self, client: Client, acknowledged: Semaphore) -> None:
        """Give orders, one after the other, until the server is gone."""
        while True:
            self.unanswered = order = self._next_order()
            try:
                answer = order.send(client)
            except LOST:
                return
            self.note(order, answered(answer, 200 if order.action in _CHANGES else 201))
            self.unanswered = None
            acknowledged.release()

    def note(self, order: Order, answer: Json) -> None:
        """Write down that an order was carried out."""
        key = order.key
        if order.action in ("create", "rotate"):
            made = _made_by(order, answer)
            self.keys[made.key_id] = made
            self.touched.add(made.key_id)
        if key is None:
            return
        self.touched.add(key.key_id)
        key.history += order.facts(answer["key_id"])
        if order.action == "update":
            key.name, key.scopes = order.name, order.scopes
        elif order.action == "revoke":
            key.revoked = True
        else:
            key.rotated_to = answer["key_id"]
            key.ended = order.grace_seconds == 0

    def settle(self, client: Client) -> None:
        """Find out what became of the order that got no answer: all of it, or nothing."""
        order, self.unanswered = self.unanswered, None
        if order is None:
            return
        if order.action in _CHANGES:
            assert order.key is not None
            self.touched.add(order.key.key_id)
            history = client.history(order.key.key_id)
            if facts_in(history) != order.key.history:
                # What it says instead is compared later, with all the other keys.
                self.note(order, client.show(order.key.key_id))
            return
        made = [key for key in client.list_keys(q=order.name) if _is_made_by(key, order)]
        assert len(made) <= 1, made
        if order.idempotency_key is not None:
            answer = answered(order.send(client), 201)
            if made:
                assert answer["key_id"] == made[0]["key_id"]
                assert answer["token"] is None
            else:
                assert answer["token"] is not None
            again = answered(order.send(client), 201)
            assert (again["key_id"], again["token"]) == (answer["key_id"], None)
            self.note(order, answer)
        elif made:
            self.note(order, made[0] | {"token": None})

    def _next_order(self) -> Order:
        self._orders += 1
        name = f"customer {self.number} order {self._orders}."
        scopes = [f"crash:{self._orders}", "mcp:*"]
        living = [key for key in self.keys.values() if key.verdict == "VALID"]
        rotatable = [key for key in living if key.rotated_to is None]
        action = self.random.choice(("create", "create", "update", "revoke", "rotate"))
        candidates = rotatable if action == "rotate" else living
        once = f"{name} once".replace(" ", "-") if self.random.random() < 0.5 else None
        if action == "create" or not candidates:
            return Order("create", name, scopes, idempotency_key=once)
        key = self.random.choice(candidates)
        if action == "rotate":
            grace = self.random.choice((0, 3600))
            return Order("rotate", key.name, key.scopes, key, grace, once)
        return Order("update" if action == "update" else "revoke", name, scopes, key)


_CHANGES = ("update", "revoke")
_KNOWN = {
    "ApiKey.Created": ("name", "scopes", "rotated_from"),
    "ApiKey.Renamed": ("name",),
    "ApiKey.ScopesChanged": ("scopes",),
    "ApiKey.Revoked": ("reason",),
    "ApiKey.Rotated": ("successor_id",),
}


def facts_in(history: list[Json]) -> list[Fact]:
    """Return the events of a key's history, each with what a client knows of it.

    The expirer's events come whenever it has time; they are no client's.
    """
    return [
        (event["type"], {name: event["data"][name] for name in _KNOWN[event["type"]]})
        for event in history
        if event["type"] != "ApiKey.Expired"
    ]


def _made_by(order: Order, answer: Json) -> Key:
    rotated_from = None if order.key is None else order.key.key_id
    said = {"name": order.name, "scopes": order.scopes, "rotated_from": rotated_from}
    return Key(
        name=order.name,
        scopes=order.scopes,
        key_id=answer["key_id"],
        token=answer["token"],
        history=[("ApiKey.Created", said)],
        rotated_from=rotated_from,
    )


def _is_made_by(key: Json, order: Order) -> bool:
    if order.key is not None:
        return bool(key["rotated_from"] == order.key.key_id)
    return key["name"] == order.name and key["rotated_from"] is None
