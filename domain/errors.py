"""Every way in which the ledger says no.

A refusal that a caller should expect is one of these classes; each has a stable ``code`` that
programs may branch on, and a message that says what was wrong and what would be right. The
classes know nothing of HTTP: the doors have one table that maps them to statuses.
"""

from typing import ClassVar


class LedgerError(Exception):
    """The base of all the refusals below; catching it catches what is expected, never a bug."""

    code: ClassVar[str]


class Invalid(LedgerError):
    """A value breaks a rule of the ledger; ``field`` names the value as the caller knows it."""

    code = "INVALID"

    def __init__(self, field: str, message: str) -> None:
        """Say which ``field`` is wrong and, in ``message``, what would be right."""
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Unauthenticated(LedgerError):
    """What was presented is no credential of this ledger."""

    code = "UNAUTHENTICATED"


class NoCredential(Unauthenticated):
    """No credential was presented at all."""


class CredentialRevoked(Unauthenticated):
    """The credential's secret is right, and its key was revoked."""

    code = "REVOKED"


class CredentialExpired(Unauthenticated):
    """The credential's secret is right, and its key has expired."""

    code = "EXPIRED"


class InsufficientScope(LedgerError):
    """The credential is good, but lacks ``scope``."""

    code = "INSUFFICIENT_SCOPE"

    def __init__(self, scope: str, message: str | None = None) -> None:
        """Name the ``scope`` that would have been enough; with none, say why none would be."""
        super().__init__(message or f"this needs a key with the scope {scope}")
        self.scope = scope


class ScopeNotHeld(LedgerError):
    """Somebody tried to grant a scope that they do not hold themselves."""

    code = "SCOPE_NOT_HELD"


class WorkspaceForbidden(LedgerError):
    """A credential outside the root workspace named another workspace, or asked for all of them."""

    code = "WORKSPACE_FORBIDDEN"


class KeyNotFound(LedgerError):
    """There is no such key in the workspace; another workspace's key is exactly as absent."""

    code = "KEY_NOT_FOUND"


class KeyRevoked(LedgerError):
    """The key was revoked, which is final: nothing about it changes any more."""

    code = "KEY_REVOKED"


class KeyExpired(LedgerError):
    """The key has expired: it can be revoked, and nothing else about it changes any more."""

    code = "KEY_EXPIRED"


class AlreadyRotated(LedgerError):
    """The key has a successor already."""

    code = "ALREADY_ROTATED"


class ConcurrentChange(LedgerError):
    """Somebody else changed the key at the same time and won; nothing of this change was kept."""

    code = "CONCURRENT_CHANGE"


class VersionMismatch(LedgerError):
    """The key is no longer at the version that the caller had seen."""

    code = "VERSION_MISMATCH"


class IdempotencyKeyReused(LedgerError):
    """The same idempotency key came before with a different request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class EntryNotFound(LedgerError):
    """The audit trail has no such entry; another workspace's, named by its key, is as absent."""

    code = "ENTRY_NOT_FOUND"


class NoCheckpoint(LedgerError):
    """No checkpoint of the audit trail was signed yet."""

    code = "NO_CHECKPOINT"


class TileNotFound(LedgerError):
    """The tree has no such tile, or not yet."""

    code = "TILE_NOT_FOUND"


class ProjectionNotFound(LedgerError):
    """There is no projection of that name."""

    code = "PROJECTION_NOT_FOUND"


class RebuildRunning(LedgerError):
    """The projection is being rebuilt already, by this process or another."""

    code = "REBUILD_RUNNING"


class NotOwner(LedgerError):
    """This needs the role that owns the database's tables, and it runs as another one."""

    code = "NOT_OWNER"


class Overloaded(LedgerError):
    """Too much work is waiting already; the same call may succeed in ``retry_after`` seconds."""

    code = "OVERLOADED"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        """Say what is overloaded, and after how many seconds to try again."""
        super().__init__(message)
        self.retry_after = retry_after


class TooManyReads(LedgerError):
    """A credential, or its workspace, has as many costly reads under way as it may have."""

    code = "TOO_MANY_READS"


class LedgerUnavailable(LedgerError):
    """The event store cannot be asked now; nothing was changed, and no answer is a guess."""

    code = "LEDGER_UNAVAILABLE"


class HistoryInDoubt(LedgerError):
    """The log is not the one that checkpoints outside were signed for; nothing may be changed."""

    code = "HISTORY_IN_DOUBT"


class SchemaChanged(LedgerError):
    """The tables of the database are not as the program made them; nothing is done with them."""

    code = "SCHEMA_CHANGED"


class DamagedHistory(LedgerError):
    """The stored events of a key cannot be decoded, or do not follow on each other."""

    code = "DAMAGED_HISTORY"


class ProjectionInconsistent(LedgerError):
    """A projection contradicts the events; a rebuild of it is the remedy."""

    code = "PROJECTION_INCONSISTENT"


class PoisonEvent(LedgerError):
    """The stored event at ``position`` cannot be decoded or projected."""

    code = "POISON_EVENT"

    def __init__(self, position: int, reason: str) -> None:
        """Name the ``position`` of the event and the ``reason`` why it cannot be projected."""
        super().__init__(f"the event at position {position} cannot be projected: {reason}")
        self.position = position
        self.reason = reason


class EventNotSealed(PoisonEvent):
    """The stored event at ``position`` has no right seal: the ledger did not write it like this."""

    code = "EVENT_NOT_SEALED"

    def __init__(self, position: int) -> None:
        """Name the ``position`` of the event."""
        super().__init__(position, "its seal is not the one that the ledger writes")


class RowNotSealed(LedgerError):
    """A row that would grant access has no right seal, so that it grants nothing."""

    code = "ROW_NOT_SEALED"
