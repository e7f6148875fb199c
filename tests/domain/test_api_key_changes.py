"""Changes of name, scopes and end."""

from datetime import datetime, timedelta

import pytest

from domain.errors import Invalid, ScopeNotHeld
from tests.domain.builders import (
    ADA,
    DAY,
    HOUR,
    NOON,
    a_caller,
    a_key,
    a_rotated_key,
    news,
)

WRITER = a_caller("api-keys:write")
"""A caller that may change keys and holds no other scope."""


class TestRename:
    def test_a_key_gets_another_name(self) -> None:
        key = a_key()

        key.rename(" ledger-api ", by=WRITER, at=NOON)

        assert news(key) == [("Renamed", {"name": "ledger-api"})]
        assert key.name == "ledger-api"

    @pytest.mark.parametrize("same", ["payments-api", " payments-api\t"])
    def test_the_same_name_is_no_change(self, same: str) -> None:
        key = a_key()

        key.rename(same, by=WRITER, at=NOON)

        assert news(key) == []

    def test_a_name_that_breaks_the_rules_is_refused(self) -> None:
        key = a_key()

        with pytest.raises(Invalid) as refusal:
            key.rename("", by=WRITER, at=NOON)

        assert refusal.value.field == "name"
        assert news(key) == []


class TestScopes:
    def test_a_key_gets_other_scopes(self) -> None:
        key = a_key()

        key.change_scopes(["mcp:*", "mcp:*", "audit:read"], by=ADA, at=NOON)

        assert news(key) == [("ScopesChanged", {"scopes": ["mcp:*", "audit:read"]})]
        assert key.scopes == ["mcp:*", "audit:read"]

    def test_the_same_scopes_are_no_change(self) -> None:
        key = a_key()

        key.change_scopes(["mcp:read", "mcp:write", "mcp:read"], by=ADA, at=NOON)

        assert news(key) == []

    def test_nobody_adds_a_scope_that_they_do_not_hold(self) -> None:
        key = a_key()

        with pytest.raises(ScopeNotHeld, match=r"do not hold mcp:delete: grant only"):
            key.change_scopes(["mcp:read", "mcp:delete"], by=WRITER, at=NOON)

        assert news(key) == []
        assert key.scopes == ["mcp:read", "mcp:write"]

    def test_a_wildcard_over_what_the_key_may_do_is_more_than_it_may_do(self) -> None:
        with pytest.raises(ScopeNotHeld):
            a_key().change_scopes(["mcp:*"], by=a_caller("mcp:read", "mcp:write"), at=NOON)

    @pytest.mark.parametrize(
        ("had", "left"),
        [
            (("mcp:read", "mcp:write"), ["mcp:write"]),
            (("mcp:*",), ["mcp:read"]),
            (("*",), ["audit:read", "mcp:*"]),
        ],
    )
    def test_the_write_scope_allows_removing_scopes_one_does_not_hold(
        self, had: tuple[str, ...], left: list[str]
    ) -> None:
        key = a_key(scopes=had)

        key.change_scopes(left, by=WRITER, at=NOON)

        assert news(key) == [("ScopesChanged", {"scopes": left})]

    def test_removed_scopes_cannot_be_restored_without_holding_them(self) -> None:
        key = a_key()
        key.change_scopes(["mcp:read"], by=WRITER, at=NOON)

        with pytest.raises(ScopeNotHeld):
            key.change_scopes(["mcp:read", "mcp:write"], by=WRITER, at=NOON)

    def test_no_scopes_at_all_are_refused(self) -> None:
        with pytest.raises(Invalid) as refusal:
            a_key().change_scopes([], by=ADA, at=NOON)

        assert refusal.value.field == "scopes"


class TestEnd:
    @pytest.mark.parametrize(
        ("had", "given"),
        [
            (None, NOON + DAY),
            (NOON + DAY, NOON + HOUR),
        ],
    )
    def test_the_write_scope_allows_an_earlier_end(
        self, had: datetime | None, given: datetime
    ) -> None:
        key = a_key(expires_at=had)

        key.change_expiration(given, by=WRITER, at=NOON)

        assert news(key) == [("ExpirationChanged", {"expires_at": given})]
        assert key.expires_at == given

    @pytest.mark.parametrize("given", [NOON + DAY + timedelta(microseconds=1), None])
    def test_extending_a_key_requires_its_scopes(self, given: datetime | None) -> None:
        key = a_key(expires_at=NOON + DAY)

        with pytest.raises(ScopeNotHeld, match=r"do not hold mcp:write: grant only"):
            key.change_expiration(given, by=a_caller("mcp:read"), at=NOON)
        assert news(key) == []

        key.change_expiration(given, by=a_caller("mcp:*"), at=NOON)
        assert news(key) == [("ExpirationChanged", {"expires_at": given})]

    @pytest.mark.parametrize("same", [None, NOON + DAY])
    def test_the_same_end_is_no_change(self, same: datetime | None) -> None:
        key = a_key(expires_at=same)

        key.change_expiration(same, by=WRITER, at=NOON)

        assert news(key) == []

    @pytest.mark.parametrize("too_early", [NOON, NOON - DAY])
    def test_an_end_that_is_not_in_the_future_is_refused(self, too_early: datetime) -> None:
        key = a_key()

        with pytest.raises(Invalid, match="the time has passed") as refusal:
            key.change_expiration(too_early, by=ADA, at=NOON)

        assert refusal.value.field == "expires_at"
        assert news(key) == []

    def test_an_end_without_an_offset_is_refused(self) -> None:
        with pytest.raises(Invalid, match="offset"):
            a_key().change_expiration((NOON + DAY).replace(tzinfo=None), by=ADA, at=NOON)

    @pytest.mark.parametrize("given", [NOON + 2 * DAY, None])
    def test_nobody_puts_off_the_end_of_a_key_that_has_a_successor(
        self, given: datetime | None
    ) -> None:
        key = a_rotated_key(grace=DAY)

        with pytest.raises(Invalid, match="was rotated"):
            key.change_expiration(given, by=ADA, at=NOON)

        assert news(key) == []
        assert key.expires_at == NOON + DAY

    def test_the_end_of_a_rotated_key_can_become_earlier(self) -> None:
        key = a_rotated_key(grace=DAY)

        key.change_expiration(NOON + HOUR, by=WRITER, at=NOON)

        assert news(key) == [("ExpirationChanged", {"expires_at": NOON + HOUR})]
