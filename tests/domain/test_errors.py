"""Refusals: each has one code, which programs use and which never changes."""

from domain import errors
from domain.errors import Invalid, LedgerError, Overloaded, PoisonEvent

CODES = {
    "AlreadyRotated": "ALREADY_ROTATED",
    "ConcurrentChange": "CONCURRENT_CHANGE",
    "CredentialExpired": "EXPIRED",
    "CredentialRevoked": "REVOKED",
    "DamagedHistory": "DAMAGED_HISTORY",
    "IdempotencyKeyReused": "IDEMPOTENCY_KEY_REUSED",
    "InsufficientScope": "INSUFFICIENT_SCOPE",
    "Invalid": "INVALID",
    "KeyExpired": "KEY_EXPIRED",
    "KeyNotFound": "KEY_NOT_FOUND",
    "KeyRevoked": "KEY_REVOKED",
    "LedgerUnavailable": "LEDGER_UNAVAILABLE",
    "NoCredential": "UNAUTHENTICATED",
    "NotOwner": "NOT_OWNER",
    "Overloaded": "OVERLOADED",
    "TooManyReads": "TOO_MANY_READS",
    "PoisonEvent": "POISON_EVENT",
    "ProjectionInconsistent": "PROJECTION_INCONSISTENT",
    "ProjectionNotFound": "PROJECTION_NOT_FOUND",
    "RebuildRunning": "REBUILD_RUNNING",
    "ScopeNotHeld": "SCOPE_NOT_HELD",
    "Unauthenticated": "UNAUTHENTICATED",
    "VersionMismatch": "VERSION_MISMATCH",
    "WorkspaceForbidden": "WORKSPACE_FORBIDDEN",
}


def _refusals() -> dict[str, type[LedgerError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, LedgerError) and value is not LedgerError
    }


def test_error_codes_never_change() -> None:
    codes = {name: refusal.code for name, refusal in _refusals().items()}

    assert {name: codes.get(name) for name in CODES} == CODES


def test_every_refusal_has_a_code_of_its_own() -> None:
    refusals = _refusals()
    own = [refusal.code for refusal in refusals.values() if "code" in vars(refusal)]

    assert len(own) == len(set(own))
    # Only "no credential" has its parent's code: programs need not distinguish the two.
    assert len(refusals) - len(own) == 1


def test_an_invalid_value_is_named() -> None:
    refusal = Invalid("name", "the name is empty")

    assert (refusal.field, refusal.message) == ("name", "the name is empty")
    assert str(refusal) == "name: the name is empty"


def test_an_overload_says_when_to_come_back() -> None:
    assert Overloaded("too much").retry_after == 1
    assert Overloaded("too much", retry_after=5).retry_after == 5


def test_a_poison_event_is_named_by_its_position() -> None:
    refusal = PoisonEvent(41, "no such topic")

    assert (refusal.position, refusal.reason) == (41, "no such topic")
    assert "41" in str(refusal)
    assert "no such topic" in str(refusal)
