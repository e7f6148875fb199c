"""The one place that decides whether a key may be used."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from domain.scopes import cover


class Code(StrEnum):
    """The result of verifying, for programs."""

    VALID = "VALID"
    MALFORMED = "MALFORMED"
    NOT_FOUND = "NOT_FOUND"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE"


@dataclass(frozen=True, slots=True, eq=False)
class AuthRow:
    """What the auth lookup knows of a key: all that a verdict needs.

    One that was read anew is not the same one, so that what follows from one can be remembered.
    """

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
    """The secret is right and the key may be used for all the scopes asked for."""

    key: AuthRow

    code = Code.VALID


@dataclass(frozen=True, slots=True)
class Refused:
    """The token may not be used.

    ``key`` is there only when its secret was proved; whoever does not hold the secret learns
    nothing about the key, not even that it exists.
    """

    code: Code
    key: AuthRow | None = None


Verdict = Verified | Refused


def judge(key: AuthRow, scopes: Sequence[str], now: datetime) -> Verdict:
    """Decide about a key whose secret has been proved.

    Args:
        key: the row of the auth lookup.
        scopes: what the key is to be used for; none asks only whether it is live.
        now: the time of the decision. Expiry is the clock's word, whether or not `Expired` has
            been appended yet; and what has expired stays so if a clock goes back.
    """
    if key.revoked:
        return Refused(Code.REVOKED, key)
    if key.expired or (key.expires_at is not None and now >= key.expires_at):
        return Refused(Code.EXPIRED, key)
    if not cover(key.scopes, scopes):
        return Refused(Code.INSUFFICIENT_SCOPE, key)
    return Verified(key)
