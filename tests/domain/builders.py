"""Builders of keys and callers, and a way to see the newest events of a key."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings

from domain.api_key import ApiKey
from domain.caller import Actor, Caller
from domain.credential import Credential, digest_of
from domain.pepper import Pepper
from domain.tokens import RandomSource, mint
from domain.verdict import AuthRow

NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
FIRST_ID = UUID(int=1)

ADA = Caller(Actor("cli", "ada"), holds=("*",), request_id="req-ada", source_ip="192.0.2.7")
BOB = Caller(Actor("cli", "bob"), holds=("*",), request_id="req-bob", source_ip="192.0.2.8")

PEPPER = Pepper(bytes(range(32)))
VERIFIER = (
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$8AaZmkzADN+CZYpgVEx4RJAS051bvntmjH6XU+Gp3Qg"
)

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For property tests: a slow machine is not a counterexample."""


def a_caller(*holds: str, named: str = "apikey_00000000-0000-4000-8000-00000000000a") -> Caller:
    """A caller that holds exactly these scopes."""
    return Caller(Actor("key", named), holds=holds)


def a_random_source(seed: int = 7) -> RandomSource:
    return random.Random(seed).randbytes


def a_credential(token_prefix: str = "key", *, seed: int = 7) -> Credential:
    """A credential with a verifier that costs nothing."""
    token = mint(token_prefix, a_random_source(seed))
    return Credential(token.prefix, token.lookup_id, VERIFIER, digest_of(token, PEPPER))


def a_new_key(
    *,
    credential: Credential | None = None,
    key_id: UUID = FIRST_ID,
    workspace: str = "default",
    name: str = "payments-api",
    scopes: tuple[str, ...] = ("mcp:read", "mcp:write"),
    expires_at: datetime | None = None,
    by: Caller = ADA,
    at: datetime = NOON,
    request_sha256: str | None = None,
) -> ApiKey:
    """A key whose creation is still pending."""
    return ApiKey.create(
        credential or a_credential(),
        key_id=key_id,
        workspace=workspace,
        name=name,
        scopes=list(scopes),
        expires_at=expires_at,
        by=by,
        at=at,
        request_sha256=request_sha256,
    )


def a_key(
    *,
    name: str = "payments-api",
    scopes: tuple[str, ...] = ("mcp:read", "mcp:write"),
    expires_at: datetime | None = None,
    workspace: str = "default",
) -> ApiKey:
    """A key created at noon by Ada, who may do anything; without pending events."""
    return settled(a_new_key(name=name, scopes=scopes, expires_at=expires_at, workspace=workspace))


def a_revoked_key() -> ApiKey:
    """A key that Ada revoked an hour after noon."""
    key = a_key()
    key.revoke(reason="leaked", comment="seen on a forum", by=ADA, at=NOON + HOUR)
    return settled(key)


def a_key_past_its_end() -> ApiKey:
    """A key that expired a day after noon, without an `Expired` event."""
    return a_key(expires_at=NOON + DAY)


def an_expired_key() -> ApiKey:
    """A key that expired a day after noon, with an `Expired` event."""
    key = a_key_past_its_end()
    key.expire(by=ADA, at=NOON + DAY)
    return settled(key)


def a_rotated_key(
    *, scopes: tuple[str, ...] = ("mcp:read", "mcp:write"), grace: timedelta = DAY
) -> ApiKey:
    """A key that Ada rotated at noon."""
    key = a_key(scopes=scopes)
    key.rotate(a_credential(seed=8), successor_id=UUID(int=2), grace=grace, by=ADA, at=NOON)
    return settled(key)


def settled(key: ApiKey) -> ApiKey:
    """The same key without pending events."""
    key.collect_events()
    return key


def news(key: ApiKey) -> list[tuple[str, dict[str, Any]]]:
    """Return the pending events of a key: type and own fields of each."""
    return [
        (
            type(event).__name__,
            {name: value for name, value in vars(event).items() if name not in _SAID_BY_ALL},
        )
        for event in key.collect_events()
    ]


_SAID_BY_ALL = frozenset(
    {
        "originator_id",
        "originator_version",
        "originator_topic",
        "timestamp",
        "actor",
        "request_id",
        "source_ip",
    }
)

_A_ROW = AuthRow(
    position=1,
    lookup_id="0123456789ABCDEF",
    key_id="apikey_00000000-0000-0000-0000-000000000001",
    workspace="default",
    name="payments-api",
    role="Member",
    token_prefix="key",
    scopes=("mcp:read", "mcp:write"),
    expires_at=None,
    revoked=False,
    expired=False,
    verifier=VERIFIER,
)


def a_row(
    *,
    scopes: tuple[str, ...] = _A_ROW.scopes,
    expires_at: datetime | None = None,
    revoked: bool = False,
    expired: bool = False,
) -> AuthRow:
    """A row of the auth lookup for a key."""
    return replace(_A_ROW, scopes=scopes, expires_at=expires_at, revoked=revoked, expired=expired)
