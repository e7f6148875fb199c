"""A real ledger on a recorder in memory, which can be watched, interrupted and made to fail."""

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
    """The library's recorder in memory, and what may happen around it.

    ``before_read`` and ``before_append`` are what others do just before the next reads and
    appends; each deed is done once, ahead of one call. ``appends`` are the topics of each append
    that succeeded, and ``digests`` what came with them. While ``failing`` is set, nothing works.
    ``meeting`` is where each thread waits before its first append.
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
        """From now on, let so many threads wait for each other before they append."""
        self._met.clear()
        self.meeting = threading.Barrier(parties) if parties else None

    def _fail_if_failing(self) -> None:
        if self.failing is not None:
            raise self.failing


class Desk:
    """Where commands are given: all that a test does not care about is filled in."""

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
        """The key as its stored events tell it."""
        return cast("ApiKey", self.ledger.repository.get(to_uuid(key_id)))

    def history(self, key_id: str) -> list[str]:
        """The names of the key's events."""
        stored = self.recorder.select_events(to_uuid(key_id))
        return [event.topic.removeprefix("ApiKey.") for event in stored]

    def everything(self) -> list[str]:
        """The names of all the events there are, in their order."""
        stored = self.recorder.select_notifications(1, 10_000)
        return [event.topic.removeprefix("ApiKey.") for event in stored]


def an_issue(seed: int = 7) -> Issue:
    """A way to issue real tokens, repeatable and cheap."""
    random = a_random_source(seed)
    return lambda prefix: issue(prefix, random=random, gate=GATE, pepper=PEPPER)


def at_once(desk: Desk, *deeds: Deed) -> list[object]:
    """Do all of them in threads that meet before each appends; what each gave or how it refused."""
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
