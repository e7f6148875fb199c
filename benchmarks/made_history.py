"""A generated history: any number of events, the same in every run, and possible in a real ledger.

The keys of many workspaces exist at the same time, so the events of a key are spread over the whole
store. About four events in ten create a key; the others change random keys, and a key with an end
expires when the history's clock passes it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from random import Random
from typing import Any
from uuid import UUID

from domain.api_key import MEMBER, ApiKey
from domain.key_ids import to_key_id
from domain.tokens import ALPHABET, LOOKUP_ID_LENGTH

_ADMINS = {
    f"team-{number}": {"type": "key", "id": to_key_id(UUID(int=number))} for number in range(20)
}
WORKSPACES = tuple(_ADMINS)
START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=10)

_LIVES = (None, None, timedelta(days=30), timedelta(days=90))
_CHANGES = ("revoke", "rename", "change_scopes", "change_expiration", "rotate")
_WEIGHTS = (20, 25, 25, 15, 15)
_EXPIRER = {"type": "system", "id": "expirer"}
_SCOPES = ("mcp:read", "mcp:write", "mcp:*", "billing:read", "billing:write", "hooks:*", "*:read")


@dataclass(slots=True, eq=False)
class _Key:
    """The state of an active key that its next events depend on."""

    uuid: UUID
    workspace: str
    name: str
    expires_at: datetime | None
    version: int = 1
    rotated: bool = False


class MadeHistory:
    """Generates events, one after the other."""

    def __init__(
        self,
        *,
        created_share: float = 0.39,
        workspaces: Sequence[str] = WORKSPACES,
        step: timedelta = STEP,
        seed: int = 7,
    ) -> None:
        """Begin a history; equal arguments give equal events.

        Args:
            created_share: share of actions that create a key.
            workspaces: workspaces of the keys, some of `WORKSPACES`.
            step: time between two actions.
            seed: seed of the random generator.
        """
        self._random = Random(seed)
        self._created_share = created_share
        self._workspaces = workspaces
        self._step = step
        self._now = START
        self._living: list[_Key] = []
        self._places: dict[_Key, int] = {}
        self._ends: list[tuple[datetime, UUID, _Key]] = []

    def events(self) -> Iterator[ApiKey.Event]:
        """Generate events without end."""
        changes = [getattr(self, f"_{name}") for name in _CHANGES]
        while True:
            self._now += self._step
            yield from self._expire()
            if not self._living or self._random.random() < self._created_share:
                yield self._create(f"key {self._random.getrandbits(32)}")
            else:
                (change,) = self._random.choices(changes, _WEIGHTS)
                yield from change(self._random.choice(self._living))

    def _create(self, name: str, after: _Key | None = None) -> ApiKey.Event:
        life = self._random.choice(_LIVES)
        key = _Key(
            uuid=UUID(int=self._random.getrandbits(128)),
            workspace=self._random.choice(self._workspaces) if after is None else after.workspace,
            name=name,
            expires_at=None if life is None else self._now + life,
        )
        self._places[key] = len(self._living)
        self._living.append(key)
        self._await_end(key)
        return _event(
            ApiKey.Created,
            originator_topic=ApiKey.TOPIC,
            **self._envelope(key),
            workspace=key.workspace,
            name=key.name,
            token_prefix="key",
            lookup_id=self._text(LOOKUP_ID_LENGTH),
            verifier=f"$argon2id$v=19$m=19456,t=2,p=1${self._text(22)}${self._text(43)}",
            scopes=self._scopes(),
            role=MEMBER,
            expires_at=key.expires_at,
            rotated_from=None if after is None else to_key_id(after.uuid),
            request_sha256=None,
        )

    def _expire(self) -> Iterator[ApiKey.Event]:
        while self._ends and self._ends[0][0] <= self._now:
            end, _, key = heappop(self._ends)
            if key in self._places and key.expires_at == end:
                yield _event(ApiKey.Expired, **self._next(key, actor=_EXPIRER))
                self._bury(key)

    def _revoke(self, key: _Key) -> Iterator[ApiKey.Event]:
        yield _event(ApiKey.Revoked, **self._next(key), reason="no longer used", comment=None)
        self._bury(key)

    def _rename(self, key: _Key) -> Iterator[ApiKey.Event]:
        yield _event(ApiKey.Renamed, **self._next(key), name=f"key {self._random.getrandbits(32)}")

    def _change_scopes(self, key: _Key) -> Iterator[ApiKey.Event]:
        yield _event(ApiKey.ScopesChanged, **self._next(key), scopes=self._scopes())

    def _change_expiration(self, key: _Key) -> Iterator[ApiKey.Event]:
        if not key.rotated:
            key.expires_at = self._now + timedelta(days=self._random.randint(30, 90))
            self._await_end(key)
            yield _event(ApiKey.ExpirationChanged, **self._next(key), expires_at=key.expires_at)

    def _rotate(self, key: _Key) -> Iterator[ApiKey.Event]:
        if key.rotated:
            return
        successor = self._create(key.name, after=key)
        yield successor
        end = self._now + timedelta(days=1)
        key.expires_at = end if key.expires_at is None else min(end, key.expires_at)
        key.rotated = True
        self._await_end(key)
        yield _event(
            ApiKey.Rotated,
            **self._next(key),
            successor_id=to_key_id(successor.originator_id),
            expires_at=key.expires_at,
        )

    def _next(self, key: _Key, **actor: dict[str, str]) -> dict[str, Any]:
        key.version += 1
        return self._envelope(key) | actor

    def _envelope(self, key: _Key) -> dict[str, Any]:
        return {
            "originator_id": key.uuid,
            "originator_version": key.version,
            "timestamp": self._now,
            "actor": _ADMINS[key.workspace],
            "request_id": f"{self._random.getrandbits(128):032x}",
            "source_ip": f"10.0.0.{self._random.getrandbits(8)}",
        }

    def _await_end(self, key: _Key) -> None:
        if key.expires_at is not None:
            heappush(self._ends, (key.expires_at, key.uuid, key))

    def _bury(self, key: _Key) -> None:
        """Remove a key; the last active key takes its place."""
        place, last = self._places.pop(key), self._living.pop()
        if last is not key:
            self._living[place] = last
            self._places[last] = place

    def _scopes(self) -> list[str]:
        return self._random.sample(_SCOPES, self._random.randint(1, 3))

    def _text(self, length: int) -> str:
        return "".join(self._random.choices(ALPHABET, k=length))


def _event(
    event_class: type[ApiKey.Event],
    **values: Any,  # noqa: ANN401 - whatever fields the event has
) -> ApiKey.Event:
    return event_class(**values)
