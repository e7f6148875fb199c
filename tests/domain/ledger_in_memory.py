"""A real ledger on a recorder in memory, which can be observed, interrupted and made to fail."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from eventsourcing.persistence import PersistenceError, StoredEvent
from eventsourcing.popo import POPOApplicationRecorder

from domain.api_key import ApiKey
from domain.caller import Caller
from domain.credential import Digest, issue
from domain.errors import LedgerError
from domain.key_ids import to_uuid
from domain.key_ledger import Changes, Idempotency, Issue, Issued, KeyLedger
from domain.verifiers import CHEAPEST, Argon2Gate
from tests.domain.builders import ADA, HOUR, NOON, PEPPER, a_random_source

GATE = Argon2Gate(at_once=4, waiting=64, profile=CHEAPEST)
RENAMED = Changes(name="ledger-api")
PATIENCE = 20.0

Deed = Callable[[], object]


class WatchedRecorder(POPOApplicationRecorder):
    """The library's in-memory recorder with hooks.

    ``before_read`` and ``before_append`` run before the next reads and appends; each is called
    once. ``appends`` has the topics of each successful append, and ``digests`` the digests stored
    with them. While ``failing`` is set, every call fails. ``meeting`` is a barrier where each
    thread waits before its first append.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before_read: deque[Deed] = deque()
        self.before_append: deque[Deed] = deque()
        self.appends: list[list[str]] = []
        self.digests: list[Digest] = []
        self.failing: PersistenceError | None = None
        self.meeting: threading.Barrier | None = None
        self._met: set[int] = set()

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        **kwargs: Any,  # noqa: ANN401 - the library's signature
    ) -> Sequence[int] | None:
        if self.before_append:
            self.before_append.popleft()()
        if self.meeting is not None and threading.get_ident() not in self._met:
            self._met.add(threading.get_ident())
            self.meeting.wait(PATIENCE)
        self._fail_if_failing()
        positions = super().insert_events(stored_events, **kwargs)
        self.appends.append([stored.topic for stored in stored_events])
        self.digests += kwargs.get("digests", ())
        return positions

    def select_events(
        self,
        originator_id: UUID | str,
        **kwargs: Any,  # noqa: ANN401 - the library's signature
    ) -> Sequence[StoredEvent]:
        if self.before_read:
            self.before_read.popleft()()
        self._fail_if_failing()
        return super().select_events(originator_id, **kwargs)

    def meet(self, parties: int) -> None:
        """Make this many threads wait for each other before they append."""
        self._met.clear()
        self.meeting = threading.Barrier(parties) if parties else None

    def _fail_if_failing(self) -> None:
        if self.failing is not None:
            raise self.failing


class Desk:
    """Runs commands with defaults for arguments that a test does not care about."""

    def __init__(self, issue_credential: Issue | None = None) -> None:
        self.recorder = WatchedRecorder()
        self.ledger = KeyLedger(self.recorder, issue_credential or an_issue())

    def create(
        self,
        *,
        workspace: str = "default",
        name: str = "payments-api",
        scopes: tuple[str, ...] = ("mcp:read",),
        expires_at: datetime | None = None,
        token_prefix: str = "key",
        by: Caller = ADA,
        at: datetime = NOON,
        idempotency: Idempotency | None = None,
    ) -> Issued:
        return self.ledger.create_key(
            workspace=workspace,
            name=name,
            scopes=list(scopes),
            expires_at=expires_at,
            token_prefix=token_prefix,
            by=by,
            at=at,
            idempotency=idempotency,
        )

    def revoke(
        self,
        key_id: str,
        *,
        workspace: str = "default",
        reason: str | None = None,
        by: Caller = ADA,
        at: datetime = NOON,
        expected_version: int | None = None,
    ) -> None:
        self.ledger.revoke_key(
            key_id,
            workspace=workspace,
            reason=reason,
            comment=None,
            by=by,
            at=at,
            expected_version=expected_version,
        )

    def rotate(
        self,
        key_id: str,
        *,
        workspace: str = "default",
        grace: timedelta = HOUR,
        by: Caller = ADA,
        at: datetime = NOON,
        expected_version: int | None = None,
        idempotency: Idempotency | None = None,
    ) -> Issued:
        return self.ledger.rotate_key(
            key_id,
            workspace=workspace,
            grace=grace,
            by=by,
            at=at,
            expected_version=expected_version,
            idempotency=idempotency,
        )

    def update(
        self,
        key_id: str,
        changes: Changes = RENAMED,
        *,
        workspace: str = "default",
        by: Caller = ADA,
        at: datetime = NOON,
        expected_version: int | None = None,
    ) -> None:
        self.ledger.update_key(
            key_id,
            changes,
            workspace=workspace,
            by=by,
            at=at,
            expected_version=expected_version,
        )

    def expire(self, *key_ids: str, at: datetime) -> int:
        return self.ledger.expire_keys(key_ids, by=ADA, at=at)

    def key(self, key_id: str) -> ApiKey:
        """Return the key from its stored events."""
        return cast("ApiKey", self.ledger.repository.get(to_uuid(key_id)))

    def history(self, key_id: str) -> list[str]:
        """Return the types of the key's events."""
        stored = self.recorder.select_events(to_uuid(key_id))
        return [event.topic.removeprefix("ApiKey.") for event in stored]

    def everything(self) -> list[str]:
        """Return the types of all events, in order."""
        stored = self.recorder.select_notifications(1, 10_000)
        return [event.topic.removeprefix("ApiKey.") for event in stored]


def an_issue(seed: int = 7) -> Issue:
    """Return a function that issues real tokens, repeatable and cheap."""
    random = a_random_source(seed)
    return lambda prefix: issue(prefix, random=random, gate=GATE, pepper=PEPPER)


def at_once(desk: Desk, *deeds: Deed) -> list[object]:
    """Run all in threads that meet before they append; return each result or refusal."""
    desk.recorder.meet(len(deeds))
    try:
        with ThreadPoolExecutor(len(deeds)) as pool:
            return list(pool.map(_outcome, deeds, timeout=PATIENCE))
    finally:
        desk.recorder.meet(0)


def _outcome(deed: Deed) -> object:
    try:
        return deed()
    except LedgerError as refusal:
        return refusal
