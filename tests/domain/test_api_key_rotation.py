"""Rotation: a successor with its own secret, and an earlier end of the old key."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from domain.api_key import ApiKey
from domain.caller import Caller
from domain.errors import AlreadyRotated, Invalid, ScopeNotHeld
from tests.domain.builders import (
    ADA,
    DAY,
    HOUR,
    NOON,
    VERIFIER,
    a_caller,
    a_credential,
    a_key,
    a_rotated_key,
    news,
)

LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
OLD_ID = "apikey_00000000-0000-0000-0000-000000000001"
NEW_ID = "apikey_00000000-0000-0000-0000-000000000002"


def rotate(
    key: ApiKey,
    *,
    grace: timedelta = HOUR,
    by: Caller = ADA,
    at: datetime = NOON,
    expires_at: datetime | None = None,
    never_expires: bool = False,
) -> ApiKey:
    return key.rotate(
        a_credential("acme", seed=8),
        successor_id=UUID(int=2),
        grace=grace,
        by=by,
        at=at,
        expires_at=expires_at,
        never_expires=never_expires,
        request_sha256="cd" * 32,
    )


class TestSuccessor:
    def test_it_may_do_the_same_with_a_secret_of_its_own(self) -> None:
        key = a_key(workspace="acme")

        successor = rotate(key)

        assert news(successor) == [
            (
                "Created",
                {
                    "workspace": "acme",
                    "name": "payments-api",
                    "token_prefix": "acme",
                    "lookup_id": a_credential(seed=8).lookup_id,
                    "verifier": VERIFIER,
                    "scopes": ["mcp:read", "mcp:write"],
                    "role": "Member",
                    "expires_at": None,
                    "rotated_from": OLD_ID,
                    "request_sha256": "cd" * 32,
                },
            )
        ]
        assert news(key) == [("Rotated", {"successor_id": NEW_ID, "expires_at": NOON + HOUR})]
        assert key.rotated_to == successor.key_id == NEW_ID

    def test_it_has_what_the_key_has_now_and_not_what_it_was_created_with(self) -> None:
        key = a_key()
        key.rename("ledger-api", by=ADA, at=NOON)
        key.change_scopes(["audit:read"], by=ADA, at=NOON)

        successor = rotate(key)

        assert (successor.name, successor.scopes) == ("ledger-api", ["audit:read"])

    def test_it_lives_as_long_from_now_as_the_key_was_meant_to_from_its_creation(self) -> None:
        key = a_key(expires_at=NOON + 30 * DAY)

        successor = rotate(key, at=NOON + 29 * DAY)

        assert successor.expires_at == NOON + 59 * DAY

    @pytest.mark.parametrize("own_end", [None, NOON + DAY])
    @pytest.mark.parametrize("end", [None, NOON + HOUR, NOON + 90 * DAY])
    def test_its_end_can_be_chosen_and_the_keys_own_is_not_put_off(
        self, own_end: datetime | None, end: datetime | None
    ) -> None:
        key = a_key(expires_at=own_end)

        successor = rotate(key, expires_at=end, never_expires=end is None)

        assert successor.expires_at == end
        assert key.expires_at == NOON + HOUR

    @pytest.mark.parametrize("end", [NOON, NOON - DAY])
    def test_it_cannot_have_expired_already(self, end: datetime) -> None:
        key = a_key()

        with pytest.raises(Invalid, match="the time has passed"):
            rotate(key, expires_at=end)

        assert news(key) == []

    def test_its_life_ends_with_the_calendar(self) -> None:
        key = a_key(expires_at=datetime(9999, 12, 31, tzinfo=UTC))

        successor = rotate(key, at=NOON + DAY)

        assert successor.expires_at == LAST_MOMENT

    def test_it_does_not_share_a_list_with_its_predecessor(self) -> None:
        key = a_key()

        successor = rotate(key)

        assert successor.scopes == key.scopes
        assert successor.scopes is not key.scopes


class TestOldKey:
    def test_without_grace_it_ends_at_once(self) -> None:
        key = a_key()

        rotate(key, grace=timedelta(0))

        assert key.expires_at == NOON
        assert key.status(NOON) == "expired"

    def test_with_grace_it_lives_until_that_has_passed(self) -> None:
        key = a_key()

        rotate(key, grace=HOUR)

        assert key.status(NOON + HOUR - timedelta(microseconds=1)) == "active"
        assert key.status(NOON + HOUR) == "expired"

    @pytest.mark.parametrize(
        ("grace", "end"), [(2 * DAY, NOON + DAY), (DAY, NOON + DAY), (HOUR, NOON + HOUR)]
    )
    def test_its_end_is_never_extended(self, grace: timedelta, end: datetime) -> None:
        key = a_key(expires_at=NOON + DAY)

        rotate(key, grace=grace)

        assert news(key) == [("Rotated", {"successor_id": NEW_ID, "expires_at": end})]

    def test_a_grace_beyond_the_calendar_ends_with_it(self) -> None:
        key = a_key()

        rotate(key, grace=timedelta.max)

        assert key.expires_at == LAST_MOMENT

    def test_it_can_be_revoked_within_its_grace_and_the_successor_lives_on(self) -> None:
        key = a_key()
        successor = rotate(key)

        key.revoke(reason=None, comment=None, by=ADA, at=NOON)

        assert (key.status(NOON), successor.status(NOON)) == ("revoked", "active")


class TestRefusal:
    @pytest.mark.parametrize("at", [NOON, NOON + 2 * DAY])
    def test_a_second_rotation_is_refused_and_names_the_successor(self, at: datetime) -> None:
        key = a_rotated_key(grace=DAY)

        with pytest.raises(AlreadyRotated, match=NEW_ID):
            rotate(key, at=at)

        assert news(key) == []

    def test_a_negative_grace_is_refused(self) -> None:
        key = a_key()

        with pytest.raises(Invalid) as refusal:
            rotate(key, grace=-timedelta(microseconds=1))

        assert refusal.value.field == "grace_seconds"
        assert news(key) == []

    @pytest.mark.parametrize("scopes", [("*",), ("mcp:read",), ("api-keys:write", "mcp:read")])
    def test_the_write_scope_alone_gives_no_secret_with_more_scopes(
        self, scopes: tuple[str, ...]
    ) -> None:
        key = a_key(scopes=scopes)

        with pytest.raises(ScopeNotHeld):
            rotate(key, by=a_caller("api-keys:write"))

        assert news(key) == []
        assert (key.rotated_to, key.expires_at) == (None, None)

    def test_a_caller_with_the_keys_scopes_may_rotate_it(self) -> None:
        assert rotate(a_key(), by=a_caller("mcp:*")).rotated_from == OLD_ID
