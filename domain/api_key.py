"""The API key aggregate: its events, and the rules for what may follow what.

A method checks every rule before it triggers an event, because ``apply`` runs again at each replay,
when it is too late to refuse anything.

Stored events are kept for ever. A new field of an event comes last and has a default; a changed
meaning is a new event. ``tests/domain/corpus`` keeps the stored bytes of every event version.
CONTRIBUTING.md lists what else a new event or field needs.
"""

from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal
from uuid import UUID

from eventsourcing.domain import Aggregate

from domain import names, times
from domain import scopes as scope_rules
from domain.caller import Caller
from domain.credential import Credential
from domain.errors import AlreadyRotated, Invalid, KeyExpired, KeyRevoked
from domain.key_ids import to_key_id

Status = Literal["active", "revoked", "expired"]
MEMBER = "Member"


class ApiKey(Aggregate):
    """An API key."""

    TOPIC: ClassVar[str] = "ApiKey"

    class Event(Aggregate.Event):
        """Fields of every event: who made the change, and with which request."""

        TOPIC: ClassVar[str]

        actor: dict[str, str]
        request_id: str | None
        source_ip: str | None

    class Created(Event, Aggregate.Created):
        """A key was created; ``verifier`` is the Argon2id string of its secret.

        ``request_sha256`` is the fingerprint of the request if it had an idempotency key. It tells
        a repeated request from a different one.
        """

        TOPIC: ClassVar[str] = "ApiKey.Created"

        workspace: str
        name: str
        token_prefix: str
        lookup_id: str
        verifier: str = field(repr=False)
        scopes: list[str]
        role: str
        expires_at: datetime | None
        rotated_from: str | None
        request_sha256: str | None

    class Revoked(Event):
        """The key was disabled, immediately and for ever."""

        TOPIC: ClassVar[str] = "ApiKey.Revoked"

        reason: str | None
        comment: str | None

        def apply(self, aggregate: "ApiKey") -> None:
            """Mark the key as revoked."""
            aggregate.revoked = True

    class Expired(Event):
        """The key's expiry time has passed; by the clock it was expired from that moment on."""

        TOPIC: ClassVar[str] = "ApiKey.Expired"

        def apply(self, aggregate: "ApiKey") -> None:
            """Mark the key as expired."""
            aggregate.expired = True

    class Rotated(Event):
        """The key got a successor; ``expires_at`` is its own new end, never later than before."""

        TOPIC: ClassVar[str] = "ApiKey.Rotated"

        successor_id: str
        expires_at: datetime

        def apply(self, aggregate: "ApiKey") -> None:
            """Set the successor and the earlier end."""
            aggregate.rotated_to = self.successor_id
            aggregate.expires_at = self.expires_at

    class ExpirationChanged(Event):
        """The key got another end, or none."""

        TOPIC: ClassVar[str] = "ApiKey.ExpirationChanged"

        expires_at: datetime | None

        def apply(self, aggregate: "ApiKey") -> None:
            """Set the end."""
            aggregate.expires_at = self.expires_at

    class Renamed(Event):
        """The key got another name."""

        TOPIC: ClassVar[str] = "ApiKey.Renamed"

        name: str

        def apply(self, aggregate: "ApiKey") -> None:
            """Set the name."""
            aggregate.name = self.name

    class ScopesChanged(Event):
        """The key got other scopes."""

        TOPIC: ClassVar[str] = "ApiKey.ScopesChanged"

        scopes: list[str]

        def apply(self, aggregate: "ApiKey") -> None:
            """Set the scopes."""
            aggregate.scopes = list(self.scopes)

    def __init__(
        self,
        *,
        workspace: str,
        name: str,
        token_prefix: str,
        lookup_id: str,
        verifier: str,
        scopes: list[str],
        role: str,
        expires_at: datetime | None,
        rotated_from: str | None,
        request_sha256: str | None,
    ) -> None:
        """Initialize a key from `Created`; called by the event, also at replay."""
        self.workspace = workspace
        self.name = name
        self.token_prefix = token_prefix
        self.lookup_id = lookup_id
        self.verifier = verifier
        self.scopes = list(scopes)
        self.role = role
        self.expires_at = expires_at
        self.rotated_from = rotated_from
        self.rotated_to: str | None = None
        self.request_sha256 = request_sha256
        self.revoked = False
        self.expired = False

    def __repr__(self) -> str:
        return f"ApiKey({self.key_id}, version {self.version})"

    @classmethod
    def create(
        cls,
        credential: Credential,
        *,
        key_id: UUID,
        workspace: str,
        name: str,
        scopes: list[str],
        expires_at: datetime | None,
        by: Caller,
        at: datetime,
        request_sha256: str | None = None,
    ) -> "ApiKey":
        """Create a key.

        Raises:
            Invalid: a value breaks a rule, or ``expires_at`` is not after ``at``.
            ScopeNotHeld: ``by`` would grant scopes that it does not hold.
        """
        checked_scopes = scope_rules.checked(scopes)
        scope_rules.check_held(by.holds, checked_scopes)
        return cls._begin(
            credential,
            key_id=key_id,
            workspace=names.checked_workspace(workspace),
            name=names.checked_name(name),
            scopes=checked_scopes,
            expires_at=_checked_end(expires_at, at),
            rotated_from=None,
            by=by,
            at=at,
            request_sha256=request_sha256,
        )

    @property
    def key_id(self) -> str:
        """The key's public id."""
        return to_key_id(self.id)

    def status(self, at: datetime) -> Status:
        """Return the key's status at a time; revoked outranks expired, and the clock decides."""
        if self.revoked:
            return "revoked"
        if self.expired or (self.expires_at is not None and at >= self.expires_at):
            return "expired"
        return "active"

    def revoke(self, *, reason: str | None, comment: str | None, by: Caller, at: datetime) -> None:
        """Disable the key; a revoked key stays unchanged and gets no second event.

        Raises:
            Invalid: the reason or the comment breaks a rule.
        """
        reason, comment = names.checked_reason(reason), names.checked_comment(comment)
        if not self.revoked:
            self._trigger(self.Revoked, by, at, reason=reason, comment=comment)

    def expire(self, *, by: Caller, at: datetime) -> None:
        """Record that the key has expired, if it has and this is not recorded yet."""
        if self.status(at) == "expired" and not self.expired:
            self._trigger(self.Expired, by, at)

    def rename(self, name: str, *, by: Caller, at: datetime) -> None:
        """Rename the key; the same name is no change.

        Raises:
            Invalid: the name breaks a rule.
            KeyRevoked, KeyExpired: the key is no longer active.
        """
        name = names.checked_name(name)
        self._check_active(at)
        if name != self.name:
            self._trigger(self.Renamed, by, at, name=name)

    def change_scopes(self, scopes: list[str], *, by: Caller, at: datetime) -> None:
        """Replace the key's scopes; the same scopes are no change.

        Raises:
            Invalid: the scopes break a rule.
            ScopeNotHeld: ``by`` would grant scopes that it does not hold.
            KeyRevoked, KeyExpired: the key is no longer active.
        """
        scopes = scope_rules.checked(scopes)
        self._check_active(at)
        added = [scope for scope in scopes if not scope_rules.cover(self.scopes, [scope])]
        scope_rules.check_held(by.holds, added)
        if scopes != self.scopes:
            self._trigger(self.ScopesChanged, by, at, scopes=scopes)

    def change_expiration(self, expires_at: datetime | None, *, by: Caller, at: datetime) -> None:
        """Set another end, or none; the same end is no change.

        A later end prolongs a grant, so the caller must hold the key's scopes. A rotated key's end
        can only become earlier, because its successor replaces it.

        Raises:
            Invalid: the end is not after ``at``, or is later than before on a rotated key.
            ScopeNotHeld: ``by`` would prolong scopes that it does not hold.
            KeyRevoked, KeyExpired: the key is no longer active.
        """
        expires_at = _checked_end(expires_at, at)
        self._check_active(at)
        if expires_at == self.expires_at:
            return
        if self.expires_at is not None and (expires_at is None or expires_at > self.expires_at):
            if self.rotated_to is not None:
                message = f"the key was rotated: use a time up to {self.expires_at}"
                raise Invalid("expires_at", message)
            scope_rules.check_held(by.holds, self.scopes)
        self._trigger(self.ExpirationChanged, by, at, expires_at=expires_at)

    def rotate(
        self,
        credential: Credential,
        *,
        successor_id: UUID,
        grace: timedelta,
        by: Caller,
        at: datetime,
        expires_at: datetime | None = None,
        never_expires: bool = False,
        request_sha256: str | None = None,
    ) -> "ApiKey":
        """Create a successor with its own secret, and end this key after ``grace``.

        The successor has the same workspace, name, scopes and prefix. This key's own end never
        becomes later.

        Args:
            expires_at: end of the successor; by default that of `end_of_successor`.
            never_expires: whether the successor has no end.

        Returns:
            The successor, to be saved together with this key.

        Raises:
            Invalid: ``grace`` is negative, or ``expires_at`` is not after ``at``.
            AlreadyRotated: the key has a successor.
            ScopeNotHeld: ``by`` would get a secret for scopes that it does not hold.
            KeyRevoked, KeyExpired: the key is no longer active.
        """
        if grace < timedelta(0):
            raise Invalid("grace_seconds", "the grace period is negative: use 0 or more seconds")
        self.check_rotatable(at)
        scope_rules.check_held(by.holds, self.scopes)
        successor = self._begin(
            credential,
            key_id=successor_id,
            workspace=self.workspace,
            name=self.name,
            scopes=self.scopes,
            expires_at=(
                _checked_end(expires_at, at)
                if never_expires or expires_at is not None
                else end_of_successor(self.created_on, self.expires_at, at)
            ),
            rotated_from=self.key_id,
            by=by,
            at=at,
            request_sha256=request_sha256,
        )
        end = _later(at, grace)
        self._trigger(
            self.Rotated,
            by,
            at,
            successor_id=successor.key_id,
            expires_at=end if self.expires_at is None else min(end, self.expires_at),
        )
        return successor

    def check_rotatable(self, at: datetime) -> None:
        """Raise unless the key can have a successor.

        Raises:
            AlreadyRotated: it has one.
            KeyRevoked, KeyExpired: the key is no longer active.
        """
        if self.rotated_to is not None:
            message = f"{self.key_id} was rotated already; its successor is {self.rotated_to}"
            raise AlreadyRotated(message)
        self._check_active(at)

    @classmethod
    def _begin(
        cls,
        credential: Credential,
        *,
        key_id: UUID,
        workspace: str,
        name: str,
        scopes: list[str],
        expires_at: datetime | None,
        rotated_from: str | None,
        by: Caller,
        at: datetime,
        request_sha256: str | None,
    ) -> "ApiKey":
        return cls._create(
            event_class=cls.Created,
            id=key_id,
            timestamp=at,
            actor=by.actor.as_json(),
            request_id=by.request_id,
            source_ip=by.source_ip,
            workspace=workspace,
            name=name,
            token_prefix=credential.token_prefix,
            lookup_id=credential.lookup_id,
            verifier=credential.verifier,
            scopes=scopes,
            role=MEMBER,
            expires_at=expires_at,
            rotated_from=rotated_from,
            request_sha256=request_sha256,
        )

    def _trigger(
        self, event_class: type[Event], by: Caller, at: datetime, **values: object
    ) -> None:
        self.trigger_event(
            event_class,
            timestamp=at,
            actor=by.actor.as_json(),
            request_id=by.request_id,
            source_ip=by.source_ip,
            **values,
        )

    def _check_active(self, at: datetime) -> None:
        status = self.status(at)
        if status == "revoked":
            message = f"{self.key_id} was revoked, which is final; create a new key"
            raise KeyRevoked(message)
        if status == "expired":
            message = f"{self.key_id} has expired; create a new key"
            raise KeyExpired(message)


def end_of_successor(
    created_at: datetime, expires_at: datetime | None, at: datetime
) -> datetime | None:
    """Return the default end of a successor created at ``at``; ``None`` if it never expires.

    The successor lives as long as the key it replaces was meant to live from its creation.
    """
    if expires_at is None:
        return None
    # With clocks that differ, a key's creation time may be after its end.
    return max(expires_at, _later(at, expires_at - created_at))


def _checked_end(expires_at: datetime | None, at: datetime) -> datetime | None:
    expires_at = times.checked("expires_at", expires_at)
    if expires_at is not None and expires_at <= at:
        raise Invalid(
            "expires_at", f"the time has passed: use a time after {times.to_text(at)}, or null"
        )
    return expires_at


def _later(at: datetime, span: timedelta) -> datetime:
    try:
        return at + span
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
