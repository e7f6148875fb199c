"""Decide whether a key may be used; no other code does."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from domain.scopes import cover


class Code(StrEnum):
    """The code of a verdict, for programs."""

    VALID = "VALID"
    MALFORMED = "MALFORMED"
    NOT_FOUND = "NOT_FOUND"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE"


@dataclass(frozen=True, slots=True)
class AuthRow:
    """A row of the auth lookup: everything that a verdict needs.

    Args:
        position: position of the key's first event.
    """

    position: int
    lookup_id: str
    key_id: str
    workspace: str
    name: str
    role: str
    token_prefix: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    revoked: bool
    expired: bool
    verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verified:
    """The secret is right, and the key may be used for all requested scopes."""

    key: AuthRow

    code = Code.VALID


@dataclass(frozen=True, slots=True)
class Refused:
    """The token may not be used.

    ``key`` is set only if the secret was proved: a client without the secret learns nothing about
    the key, not even that it exists.
    """

    code: Code
    key: AuthRow | None = None


Verdict = Verified | Refused


def decide(key: AuthRow, scopes: Sequence[str], now: datetime) -> Verdict:
    """Decide about a key whose secret has been proved.

    Args:
        key: its row of the auth lookup.
        scopes: the scopes that the key is to be used for; with none, only the status counts.
        now: the time of the decision. The key is expired once this reaches its end, even if no
            `Expired` event was appended yet; with that event, it stays expired even if a clock is
            set back.
    """
    if key.revoked:
        return Refused(Code.REVOKED, key)
    if key.expired or (key.expires_at is not None and now >= key.expires_at):
        return Refused(Code.EXPIRED, key)
    if not cover(key.scopes, scopes):
        return Refused(Code.INSUFFICIENT_SCOPE, key)
    return Verified(key)
