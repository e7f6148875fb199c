"""The application: one method for each command, each of them all or nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import EventSourcingError
from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    Mapper,
    PersistenceError,
)
from eventsourcing.utils import Environment, EnvType

from domain.api_key import ApiKey
from domain.caller import Caller
from domain.credential import Credential
from domain.errors import (
    AlreadyRotated,
    ConcurrentChange,
    DamagedHistory,
    EventNotSealed,
    IdempotencyKeyReused,
    KeyNotFound,
    LedgerUnavailable,
    VersionMismatch,
)
from domain.key_ids import derived_uuid, to_key_id, to_uuid
from domain.serialization import EventMapper
from domain.tokens import Token

Issue = Callable[[str], tuple[Token, Credential]]
"""Mints a token with a prefix, and returns it with its stored part."""

_REVOKE_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Makes a repeated request have the effect of one.

    Args:
        key: the request's idempotency key, unique for the caller.
        request_sha256: fingerprint of everything that the request asks for.
    """

    key: str
    request_sha256: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A key that was just created, or was created before by the same request.

    Args:
        key_id: id of the key.
        token: shown this once; ``None`` if it was shown before.
    """

    key_id: str
    token: Token | None


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes to a key; a field that is not given stays unchanged."""

    name: str | None = None
    scopes: Sequence[str] | None = None
    expires_at: datetime | None = None
    never_expires: bool = False


class KeyLedger(Application[UUID]):
    """Creates, changes and revokes API keys.

    Each command takes the caller (``by``) and the time (``at``). A command on an existing key also
    takes its workspace: a key of another workspace does not exist. With ``expected_version``, the
    command fails unless the key has that version.

    Each command may also raise `LedgerUnavailable`: nothing was changed, or, if the connection
    broke before the answer arrived, everything was.
    """

    name = "KeyLedger"

    def __init__(self, recorder: ApplicationRecorder, issue: Issue) -> None:
        """Store events with a recorder, and issue credentials with ``issue``."""
        self._recorder = recorder
        self._issue = issue
        super().__init__()

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        """Configure the library only here.

        By default it reads the process's environment, where a stray variable such as
        ``COMPRESSOR_TOPIC`` would change how events are stored.
        """
        return Environment(name, dict(env or {}))

    def construct_mapper(self) -> Mapper[UUID]:
        """Return the mapper that serializes events."""
        return EventMapper()

    def construct_recorder(self) -> ApplicationRecorder:
        """Return the recorder that was passed in."""
        return self._recorder

    def create_key(
        self,
        *,
        workspace: str,
        name: str,
        scopes: list[str],
        expires_at: datetime | None,
        token_prefix: str,
        by: Caller,
        at: datetime,
        idempotency: Idempotency | None = None,
    ) -> Issued:
        """Create a key; a repeated idempotent request returns the key that it created before.

        Raises:
            Invalid: a value breaks a rule.
            ScopeNotHeld: ``by`` would grant scopes that it does not hold.
            IdempotencyKeyReused: the idempotency key was used with a different request.
            Overloaded: too many secrets are being hashed.
        """
        if made := self._made_before(idempotency, workspace, by):
            return made
        token, credential = self._issue(token_prefix)
        key = ApiKey.create(
            credential,
            key_id=_uuid_of_new_key(credential, idempotency, workspace, by),
            workspace=workspace,
            name=name,
            scopes=scopes,
            expires_at=expires_at,
            by=by,
            at=at,
            request_sha256=None if idempotency is None else idempotency.request_sha256,
        )
        try:
            self._commit(key, digests=[credential.digest])
        except ConcurrentChange:
            if made := self._made_before(idempotency, workspace, by):
                return made
            raise
        return Issued(key.key_id, token)

    def revoke_key(
        self,
        key_id: str,
        *,
        workspace: str,
        reason: str | None,
        comment: str | None,
        by: Caller,
        at: datetime,
        expected_version: int | None = None,
    ) -> None:
        """Disable a key for ever; a key that is already revoked stays unchanged.

        A revocation does not lose against a concurrent change: it is tried again after it, unless
        the caller expects a version.

        Raises:
            KeyNotFound: the workspace has no such key.
            Invalid: the reason or the comment breaks a rule.
            VersionMismatch: the key does not have the expected version.
        """
        for _ in range(_REVOKE_ATTEMPTS):
            key = self._load(key_id, workspace, expected_version)
            key.revoke(reason=reason, comment=comment, by=by, at=at)
            try:
                self._commit(key)
            except ConcurrentChange:
                continue
            return
        message = f"{key_id} kept changing; it is NOT revoked by this call: try again"
        raise ConcurrentChange(message)

    def rotate_key(
        self,
        key_id: str,
        *,
        workspace: str,
        grace: timedelta,
        by: Caller,
        at: datetime,
        expires_at: datetime | None = None,
        never_expires: bool = False,
        expected_version: int | None = None,
        idempotency: Idempotency | None = None,
    ) -> Issued:
        """Create a successor of a key, and end the key after ``grace``, in one transaction.

        Args:
            expires_at: end of the successor; by default it lives as long as the key was meant to.
            never_expires: whether the successor has no end.

        Returns:
            The successor.

        Raises:
            KeyNotFound: the workspace has no such key.
            AlreadyRotated, KeyRevoked, KeyExpired: the key cannot have a successor.
            ScopeNotHeld: ``by`` would get a secret for scopes that it does not hold.
            Invalid: ``grace`` is negative, or ``expires_at`` is not after ``at``.
            IdempotencyKeyReused: the idempotency key was used with a different request.
            ConcurrentChange, VersionMismatch: the key was changed at the same time.
            Overloaded: too many secrets are being hashed.
        """
        if made := self._made_before(idempotency, workspace, by):
            return made
        try:
            key = self._load(key_id, workspace, expected_version)
            key.check_rotatable(at)
            token, credential = self._issue(key.token_prefix)
            successor = key.rotate(
                credential,
                successor_id=_uuid_of_new_key(credential, idempotency, workspace, by),
                grace=grace,
                by=by,
                at=at,
                expires_at=expires_at,
                never_expires=never_expires,
                request_sha256=None if idempotency is None else idempotency.request_sha256,
            )
            self._commit(successor, key, digests=[credential.digest])
        except (AlreadyRotated, ConcurrentChange, VersionMismatch):
            # The winner may have been this same request, sent twice at once.
            if made := self._made_before(idempotency, workspace, by):
                return made
            # The other change may have rotated, revoked or renamed the key: report which.
            self._load(key_id, workspace, expected_version).check_rotatable(at)
            raise
        return Issued(successor.key_id, token)

    def update_key(
        self,
        key_id: str,
        changes: Changes,
        *,
        workspace: str,
        by: Caller,
        at: datetime,
        expected_version: int | None = None,
    ) -> None:
        """Change a key's name, scopes and end, all or none; an unchanged value makes no event.

        Raises:
            KeyNotFound: the workspace has no such key.
            Invalid: a value breaks a rule.
            ScopeNotHeld: ``by`` would grant or prolong scopes that it does not hold.
            KeyRevoked, KeyExpired: the key is no longer active.
            ConcurrentChange, VersionMismatch: the key was changed at the same time.
        """
        key = self._load(key_id, workspace, expected_version)
        if changes.name is not None:
            key.rename(changes.name, by=by, at=at)
        if changes.scopes is not None:
            key.change_scopes(list(changes.scopes), by=by, at=at)
        if changes.never_expires or changes.expires_at is not None:
            key.change_expiration(changes.expires_at, by=by, at=at)
        try:
            self._commit(key)
        except ConcurrentChange:
            self._load(key_id, workspace, expected_version)
            raise

    def expire_keys(self, key_ids: Sequence[str], *, by: Caller, at: datetime) -> int:
        """Record which of the keys have expired.

        All events go into one transaction. If a key of the batch changes at the same time, each is
        tried alone, and keys that change again are left to the next call.

        Returns:
            The number of events appended.
        """
        due = [key for key_id in key_ids if (key := self._expired(key_id, by, at)) is not None]
        try:
            self._commit(*due)
        except ConcurrentChange:
            if len(key_ids) == 1:
                return 0
            return sum(self.expire_keys([key_id], by=by, at=at) for key_id in key_ids)
        return len(due)

    def _expired(self, key_id: str, by: Caller, at: datetime) -> ApiKey | None:
        try:
            key = self._find(to_uuid(key_id))
        except (KeyNotFound, DamagedHistory, EventNotSealed):
            key = None
        if key is None:
            # A row of the list without a valid history: the integrity check reports it, and the
            # other keys must not wait for it.
            return None
        key.expire(by=by, at=at)
        return key if key.pending_events else None

    def _made_before(
        self, idempotency: Idempotency | None, workspace: str, by: Caller
    ) -> Issued | None:
        if idempotency is None:
            return None
        key = self._find(_uuid_of_request(idempotency, workspace, by))
        if key is None:
            return None
        if key.request_sha256 != idempotency.request_sha256:
            message = (
                "this Idempotency-Key was used with a different request: use a new one for a new"
                " request"
            )
            raise IdempotencyKeyReused(message)
        return Issued(key.key_id, None)

    def _load(self, key_id: str, workspace: str, expected_version: int | None) -> ApiKey:
        key = self._find(to_uuid(key_id))
        if key is None or key.workspace != workspace:
            raise KeyNotFound(f"there is no key {key_id} in the workspace {workspace}")
        if expected_version is not None and key.version != expected_version:
            message = (
                f"{key_id} is at version {key.version}, not {expected_version}: read it again"
                " and repeat the change if you still want it"
            )
            raise VersionMismatch(message)
        return key

    def _find(self, key_uuid: UUID) -> ApiKey | None:
        try:
            key: ApiKey = self.repository.get(key_uuid)
        except AggregateNotFoundError:
            return None
        except PersistenceError as error:
            raise _unavailable() from error
        except (EventSourcingError, AssertionError, AttributeError, TypeError) as error:
            message = f"the stored events of {to_key_id(key_uuid)} are damaged: {error!r}"
            raise DamagedHistory(message) from error
        return key

    def _commit(self, *keys: ApiKey, **kwargs: Any) -> None:  # noqa: ANN401 - as in save()
        if not any(key.pending_events for key in keys):
            return
        try:
            self.save(*keys, **kwargs)
        except IntegrityError as error:
            message = (
                "the key was changed at the same time: read it again, and repeat the change if"
                " you still want it"
            )
            raise ConcurrentChange(message) from error
        except PersistenceError as error:
            raise _unavailable() from error


def _uuid_of_new_key(
    credential: Credential, idempotency: Idempotency | None, workspace: str, by: Caller
) -> UUID:
    """Return the id of a new key.

    The id for an idempotent request is derived from the request. So the store's rule of one first
    event for each key prevents a repeated request from creating a second key.
    """
    if idempotency is None:
        return derived_uuid("lookup id", credential.lookup_id)
    return _uuid_of_request(idempotency, workspace, by)


def _uuid_of_request(idempotency: Idempotency, workspace: str, by: Caller) -> UUID:
    return derived_uuid("request", workspace, by.actor.type, by.actor.id, idempotency.key)


def _unavailable() -> LedgerUnavailable:
    # The library's message quotes the statement; it stays in the exception chain, for the log.
    return LedgerUnavailable("the event store is not available: try again later")
