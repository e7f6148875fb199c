"""Invariants of a key under any sequence of commands."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import binary, integers, lists, none, one_of, sampled_from, text

from domain import scopes as scope_rules
from domain.api_key import ApiKey, Status
from domain.caller import Caller
from domain.errors import LedgerError
from domain.serialization import EventMapper
from tests.domain.builders import ADA, NOON, PATIENT, a_caller, a_credential, a_new_key

CALLERS = sampled_from(
    [ADA, a_caller("api-keys:write"), a_caller("mcp:read"), a_caller("mcp:*", "audit:read")]
)
SCOPES = lists(
    sampled_from(["*", "mcp:*", "*:read", "mcp:read", "mcp:write", "audit:read"]),
    min_size=1,
    max_size=3,
)
WORDS = one_of(none(), text(max_size=12))
SPANS = integers(min_value=-2, max_value=60).map(lambda minutes: timedelta(minutes=minutes))
MAPPER = EventMapper()


class LifeOfAKey(RuleBasedStateMachine):
    """Runs random commands at random times, and stores the events as the ledger does."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.key = a_new_key(scopes=("mcp:read", "audit:*"), expires_at=NOON + timedelta(hours=1))
        self.stored = [MAPPER.to_stored_event(event) for event in self.key.collect_events()]
        self.seen: list[Status] = ["active"]

    def command(self, by: Caller, name: str, *args: object, **kwargs: object) -> None:
        before = (self.key.scopes, self.key.expires_at, self.key.rotated_to)
        try:
            getattr(self.key, name)(*args, **kwargs, by=by, at=self.now)
        except LedgerError:
            assert not self.key.pending_events, "a refused command leaves nothing behind"
        self.check_grant(by, *before)
        self.stored += [MAPPER.to_stored_event(event) for event in self.key.collect_events()]

    def check_grant(
        self, by: Caller, scopes: list[str], expires_at: datetime | None, rotated_to: str | None
    ) -> None:
        assert scope_rules.cover([*scopes, *by.holds], self.key.scopes)
        if _end(self.key.expires_at) > _end(expires_at):
            assert rotated_to is None, "the end of a rotated key only comes nearer"
            assert scope_rules.cover(by.holds, self.key.scopes)

    @rule(minutes=integers(min_value=0, max_value=30))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @precondition(lambda self: len(self.stored) > 3)
    @rule(by=CALLERS, reason=WORDS, comment=WORDS)
    def revoke(self, by: Caller, reason: str | None, comment: str | None) -> None:
        self.command(by, "revoke", reason=reason, comment=comment)

    @rule(by=CALLERS)
    def expire(self, by: Caller) -> None:
        self.command(by, "expire")

    @rule(by=CALLERS, name=text(max_size=4))
    def rename(self, by: Caller, name: str) -> None:
        self.command(by, "rename", name)

    @rule(by=CALLERS, scopes=SCOPES)
    def change_scopes(self, by: Caller, scopes: list[str]) -> None:
        self.command(by, "change_scopes", scopes)

    @rule(by=CALLERS, span=one_of(none(), SPANS))
    def change_expiration(self, by: Caller, span: timedelta | None) -> None:
        self.command(by, "change_expiration", None if span is None else self.now + span)

    @rule(by=CALLERS, grace=SPANS, uuid=binary(min_size=16, max_size=16))
    def rotate(self, by: Caller, grace: timedelta, uuid: bytes) -> None:
        self.command(by, "rotate", a_credential(), successor_id=UUID(bytes=uuid), grace=grace)

    @invariant()
    def what_has_ended_never_lives_again(self) -> None:
        self.seen.append(self.key.status(self.now))
        previous, present = self.seen[-2:]
        if previous == "revoked":
            assert present == "revoked"
        if previous == "expired":
            assert present in {"expired", "revoked"}

    @invariant()
    def versions_count_up_from_one(self) -> None:
        versions = [stored.originator_version for stored in self.stored]
        assert versions == list(range(1, self.key.version + 1))

    @invariant()
    def it_ends_at_most_once_in_each_way(self) -> None:
        topics = [stored.topic for stored in self.stored]
        for once in ("ApiKey.Created", "ApiKey.Expired", "ApiKey.Revoked", "ApiKey.Rotated"):
            assert topics.count(once) <= 1
        if "ApiKey.Revoked" in topics:
            assert topics[-1] == "ApiKey.Revoked"

    @invariant()
    def the_stored_bytes_give_the_same_key(self) -> None:
        replayed: ApiKey | None = None
        for stored in self.stored:
            event = MAPPER.decode(
                stored.topic, UUID(int=1), stored.originator_version, stored.state
            )
            replayed = event.mutate(replayed)
            assert MAPPER.to_stored_event(event) == stored
        assert replayed == self.key


def _end(expires_at: datetime | None) -> datetime:
    return datetime.max.replace(tzinfo=UTC) if expires_at is None else expires_at


TestLifeOfAKey = LifeOfAKey.TestCase
TestLifeOfAKey.settings = settings(PATIENT, max_examples=80, stateful_step_count=30)
