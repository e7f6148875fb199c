"""Creation, revocation and expiry of a key, and the fields of every event."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from domain.api_key import ApiKey
from domain.caller import Caller
from domain.errors import Invalid, KeyExpired, KeyRevoked, LedgerError, ScopeNotHeld
from tests.domain.builders import (
    ADA,
    BOB,
    DAY,
    HOUR,
    NOON,
    VERIFIER,
    a_caller,
    a_credential,
    a_key,
    a_key_past_its_end,
    a_new_key,
    a_revoked_key,
    a_rotated_key,
    an_expired_key,
    news,
)

Command = Callable[[ApiKey, Caller, datetime], object]
COMMANDS: dict[str, Command] = {
    "revoke": lambda key, by, at: key.revoke(reason=None, comment=None, by=by, at=at),
    "expire": lambda key, by, at: key.expire(by=by, at=at),
    "rename": lambda key, by, at: key.rename("ledger-api", by=by, at=at),
    "change_scopes": lambda key, by, at: key.change_scopes(["mcp:read"], by=by, at=at),
    "change_expiration": lambda key, by, at: key.change_expiration(at + HOUR, by=by, at=at),
    "rotate": lambda key, by, at: key.rotate(
        a_credential(seed=8), successor_id=UUID(int=2), grace=HOUR, by=by, at=at
    ),
}
CHANGES = {name: command for name, command in COMMANDS.items() if name not in {"revoke", "expire"}}


class TestCreate:
    def test_a_key_is_created_with_all_that_was_asked_for(self) -> None:
        key = a_new_key(
            workspace="acme",
            name=" payments-api ",
            scopes=("mcp:read", "mcp:*", "mcp:read"),
            expires_at=NOON + DAY,
            request_sha256="ab" * 32,
        )

        assert news(key) == [
            (
                "Created",
                {
                    "workspace": "acme",
                    "name": "payments-api",
                    "token_prefix": "key",
                    "lookup_id": a_credential().lookup_id,
                    "verifier": VERIFIER,
                    "scopes": ["mcp:read", "mcp:*"],
                    "role": "Member",
                    "expires_at": NOON + DAY,
                    "rotated_from": None,
                    "request_sha256": "ab" * 32,
                },
            )
        ]
        assert key.key_id == "apikey_00000000-0000-0000-0000-000000000001"
        assert (key.version, key.status(NOON), key.rotated_to) == (1, "active", None)

    def test_an_end_is_kept_in_utc(self) -> None:
        ten_in_tokyo = datetime(2026, 3, 4, 10, tzinfo=timezone(timedelta(hours=9)))

        key = a_new_key(expires_at=ten_in_tokyo)

        assert key.expires_at == datetime(2026, 3, 4, 1, tzinfo=UTC)
        assert key.expires_at.tzinfo is UTC

    @pytest.mark.parametrize("too_early", [timedelta(0), -timedelta(microseconds=1), -DAY])
    def test_an_end_that_is_not_in_the_future_is_refused(self, too_early: timedelta) -> None:
        with pytest.raises(Invalid, match="the time has passed") as refusal:
            a_new_key(expires_at=NOON + too_early)

        assert refusal.value.field == "expires_at"

    def test_an_end_without_an_offset_is_refused(self) -> None:
        naive = (NOON + DAY).replace(tzinfo=None)

        with pytest.raises(Invalid, match="offset") as refusal:
            a_new_key(expires_at=naive)

        assert refusal.value.field == "expires_at"

    def test_nobody_creates_a_key_that_may_do_more_than_they(self) -> None:
        with pytest.raises(ScopeNotHeld, match=r"do not hold mcp:write: grant only"):
            a_new_key(by=a_caller("api-keys:write", "mcp:read"))

    @pytest.mark.parametrize(
        ("field", "refused"),
        [
            ("name", lambda: a_new_key(name=" ")),
            ("workspace", lambda: a_new_key(workspace="Acme")),
            ("scopes", lambda: a_new_key(scopes=())),
            ("scopes", lambda: a_new_key(scopes=("mcp",))),
        ],
    )
    def test_an_invalid_value_is_refused(self, field: str, refused: Callable[[], ApiKey]) -> None:
        with pytest.raises(Invalid) as refusal:
            refused()

        assert refusal.value.field == field


class TestRevoke:
    def test_an_active_key_is_revoked_for_ever(self) -> None:
        key = a_key()

        key.revoke(reason="leaked", comment="seen on a forum", by=ADA, at=NOON)

        assert news(key) == [("Revoked", {"reason": "leaked", "comment": "seen on a forum"})]
        assert key.status(NOON) == key.status(NOON - DAY) == key.status(NOON + DAY) == "revoked"

    def test_a_revoked_key_stays_as_it_is(self) -> None:
        key = a_revoked_key()

        key.revoke(reason="another", comment="another", by=BOB, at=NOON + DAY)

        assert news(key) == []
        assert key.version == 2
        assert key.modified_on == NOON + HOUR

    def test_repeated_headers_are_each_validated(self) -> None:
        with pytest.raises(Invalid):
            a_revoked_key().revoke(reason="\0", comment=None, by=ADA, at=NOON)

    @pytest.mark.parametrize("make", [a_key_past_its_end, an_expired_key])
    def test_an_expired_key_can_be_revoked_and_is_revoked_from_then_on(
        self, make: Callable[[], ApiKey]
    ) -> None:
        key = make()

        key.revoke(reason=None, comment=None, by=ADA, at=NOON + DAY)

        assert news(key) == [("Revoked", {"reason": None, "comment": None})]
        assert key.status(NOON + DAY) == "revoked"

    def test_blank_text_is_none(self) -> None:
        key = a_key()

        key.revoke(reason="", comment=" \n ", by=ADA, at=NOON)

        assert news(key) == [("Revoked", {"reason": None, "comment": None})]

    @pytest.mark.parametrize(
        ("field", "reason", "comment"), [("reason", "a\0", None), ("comment", None, "a\0")]
    )
    def test_text_that_cannot_be_shown_is_refused(
        self, field: str, reason: str | None, comment: str | None
    ) -> None:
        key = a_key()

        with pytest.raises(Invalid) as refusal:
            key.revoke(reason=reason, comment=comment, by=ADA, at=NOON)

        assert refusal.value.field == field
        assert news(key) == []
        assert key.status(NOON) == "active"


class TestExpire:
    def test_the_clock_decides_whether_or_not_it_is_recorded(self) -> None:
        key = a_key_past_its_end()

        assert key.status(NOON + DAY - timedelta(microseconds=1)) == "active"
        assert key.status(NOON + DAY) == "expired"

    def test_a_key_after_its_end_gets_an_expired_event(self) -> None:
        key = a_key_past_its_end()

        key.expire(by=ADA, at=NOON + DAY)

        assert news(key) == [("Expired", {})]

    def test_a_key_before_its_end_does_not_expire(self) -> None:
        key = a_key_past_its_end()

        key.expire(by=ADA, at=NOON + DAY - timedelta(microseconds=1))

        assert news(key) == []

    def test_a_key_without_an_end_never_expires(self) -> None:
        key = a_key()

        key.expire(by=ADA, at=datetime.max.replace(tzinfo=UTC))

        assert news(key) == []

    def test_it_is_recorded_once(self) -> None:
        key = an_expired_key()

        key.expire(by=ADA, at=NOON + 2 * DAY)

        assert news(key) == []

    def test_a_revoked_key_does_not_expire(self) -> None:
        key = a_key_past_its_end()
        key.revoke(reason=None, comment=None, by=ADA, at=NOON)
        news(key)

        key.expire(by=ADA, at=NOON + DAY)

        assert news(key) == []
        assert key.status(NOON + DAY) == "revoked"

    def test_a_recorded_expiry_holds_even_if_a_clock_goes_back(self) -> None:
        assert an_expired_key().status(NOON) == "expired"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
class TestAfterTheEnd:
    @pytest.mark.parametrize(
        ("make", "refusal"),
        [
            (a_revoked_key, KeyRevoked),
            (a_key_past_its_end, KeyExpired),
            (an_expired_key, KeyExpired),
        ],
    )
    def test_nothing_changes_any_more(
        self, change: Command, make: Callable[[], ApiKey], refusal: type[LedgerError]
    ) -> None:
        key = make()

        with pytest.raises(refusal, match=key.key_id):
            change(key, ADA, NOON + DAY)

        assert news(key) == []


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
class TestEveryEvent:
    def test_says_who_did_it_when_and_with_which_request(self, command: Command) -> None:
        key = a_key_past_its_end()
        at = NOON + DAY if command is COMMANDS["expire"] else NOON + HOUR / 2

        successor = command(key, BOB, at)

        events = [*key.collect_events()]
        if isinstance(successor, ApiKey):
            events += successor.collect_events()
        assert len(events) == (2 if command is COMMANDS["rotate"] else 1)
        for event in events:
            assert isinstance(event, ApiKey.Event)
            assert event.timestamp == at
            assert event.actor == {"type": "cli", "id": "bob"}
            assert (event.request_id, event.source_ip) == ("req-bob", "192.0.2.8")
        assert key.modified_on == at

    def test_counts_the_version_up_by_one(self, command: Command) -> None:
        key = a_key_past_its_end()
        at = NOON + DAY if command is COMMANDS["expire"] else NOON

        command(key, BOB, at)

        assert key.version == 2
        assert [event.originator_version for event in key.collect_events()] == [2]

    def test_says_null_where_there_was_no_request(self, command: Command) -> None:
        key = a_key_past_its_end()
        at = NOON + DAY if command is COMMANDS["expire"] else NOON

        command(key, a_caller("*"), at)

        (event,) = key.collect_events()
        assert isinstance(event, ApiKey.Event)
        assert (event.request_id, event.source_ip) == (None, None)


class TestShowing:
    def test_neither_a_key_nor_its_events_show_the_verifier(self) -> None:
        key = a_new_key()

        assert VERIFIER not in repr(key)
        assert VERIFIER not in str(key)
        (created,) = key.collect_events()
        assert VERIFIER not in repr(created)

    def test_a_key_shows_which_one_it_is(self) -> None:
        assert a_rotated_key().key_id in repr(a_rotated_key())
