"""The errors that callers of the ledger should expect.

Each class has a stable ``code`` for programs; its message says what was wrong and what to do. The
classes know nothing of HTTP: `api.http.problems` has the table of their statuses and titles.
"""

from typing import ClassVar


class LedgerError(Exception):
    """Base class of all expected errors; catching it never hides a bug."""

    code: ClassVar[str]


class Invalid(LedgerError):
    """A value is not valid; ``field`` is the caller's name of the value."""

    code = "INVALID"

    def __init__(self, field: str, message: str) -> None:
        """Name the ``field``; the ``message`` says what is wrong and what is allowed."""
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Unauthenticated(LedgerError):
    """The credential is not one of this ledger."""

    code = "UNAUTHENTICATED"


class NoCredential(Unauthenticated):
    """The request has no credential."""


class CredentialRevoked(Unauthenticated):
    """The secret of the credential is right, but its key was revoked."""

    code = "REVOKED"


class CredentialExpired(Unauthenticated):
    """The secret of the credential is right, but its key has expired."""

    code = "EXPIRED"


class InsufficientScope(LedgerError):
    """The credential is valid, but lacks the ``scope``."""

    code = "INSUFFICIENT_SCOPE"

    def __init__(self, scope: str, message: str | None = None) -> None:
        """Name the required ``scope``; without one, the ``message`` says why none is enough."""
        super().__init__(message or f"this needs a credential with the scope {scope}")
        self.scope = scope


class ScopeNotHeld(LedgerError):
    """The caller grants a scope that it does not hold."""

    code = "SCOPE_NOT_HELD"


class WorkspaceForbidden(LedgerError):
    """A credential of another workspace than root names a workspace that is not its own."""

    code = "WORKSPACE_FORBIDDEN"


class KeyNotFound(LedgerError):
    """The workspace has no such key; keys of other workspaces are not found either."""

    code = "KEY_NOT_FOUND"


class KeyRevoked(LedgerError):
    """The key was revoked, which is final: it cannot be changed."""

    code = "KEY_REVOKED"


class KeyExpired(LedgerError):
    """The key has expired: it can only be revoked."""

    code = "KEY_EXPIRED"


class AlreadyRotated(LedgerError):
    """The key already has a successor."""

    code = "ALREADY_ROTATED"


class ConcurrentChange(LedgerError):
    """A concurrent change of the key was committed first; nothing of this change was kept."""

    code = "CONCURRENT_CHANGE"


class VersionMismatch(LedgerError):
    """The key does not have the version that the caller expects."""

    code = "VERSION_MISMATCH"


class IdempotencyKeyReused(LedgerError):
    """The idempotency key was used with a different request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class EntryNotFound(LedgerError):
    """The log has no such entry; entries of other workspaces' keys are not found either."""

    code = "ENTRY_NOT_FOUND"


class NoCheckpoint(LedgerError):
    """No checkpoint of the log was signed yet."""

    code = "NO_CHECKPOINT"


class TileNotFound(LedgerError):
    """The tree does not have this tile, or not yet."""

    code = "TILE_NOT_FOUND"


class ProjectionNotFound(LedgerError):
    """There is no projection with this name."""

    code = "PROJECTION_NOT_FOUND"


class RebuildRunning(LedgerError):
    """A rebuild of the projection is running, in this or another process."""

    code = "REBUILD_RUNNING"


class NotOwner(LedgerError):
    """The database role does not own the tables, which this operation needs."""

    code = "NOT_OWNER"


class Overloaded(LedgerError):
    """Too much work is waiting; the same call may succeed in ``retry_after`` seconds."""

    code = "OVERLOADED"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        """Say what is overloaded, and when to try again, in seconds."""
        super().__init__(message)
        self.retry_after = retry_after


class TooManyReads(LedgerError):
    """A credential or its workspace has the maximum number of expensive reads running."""

    code = "TOO_MANY_READS"


class LedgerUnavailable(LedgerError):
    """The event store is not available; nothing was changed."""

    code = "LEDGER_UNAVAILABLE"


class HistoryInDoubt(LedgerError):
    """The log does not match its signed checkpoints; changes are refused."""

    code = "HISTORY_IN_DOUBT"


class SchemaChanged(LedgerError):
    """The tables of the database were changed; the ledger does not use them."""

    code = "SCHEMA_CHANGED"


class DamagedHistory(LedgerError):
    """The stored events of a key cannot be decoded, or their versions are not consecutive."""

    code = "DAMAGED_HISTORY"


class ProjectionInconsistent(LedgerError):
    """A projection contradicts the events; a rebuild corrects it."""

    code = "PROJECTION_INCONSISTENT"


class PoisonEvent(LedgerError):
    """The stored event at ``position`` cannot be decoded or projected."""

    code = "POISON_EVENT"

    def __init__(self, position: int, reason: str) -> None:
        """Name the ``position`` of the event, and the ``reason`` why it cannot be projected."""
        super().__init__(f"the event at position {position} cannot be projected: {reason}")
        self.position = position
        self.reason = reason


class EventNotSealed(PoisonEvent):
    """The stored event at ``position`` has no valid seal: the ledger did not write it like this."""

    code = "EVENT_NOT_SEALED"

    def __init__(self, position: int) -> None:
        """Name the ``position`` of the event."""
        super().__init__(position, "it has no valid seal")


class RowNotSealed(LedgerError):
    """A row that grants access has no valid seal, so it grants nothing."""

    code = "ROW_NOT_SEALED"
