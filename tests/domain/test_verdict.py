"""The verdict on a key whose secret was proved."""

from datetime import datetime, timedelta

import pytest

from domain.verdict import AuthRow, Code, Refused, Verified, decide
from tests.domain.builders import DAY, NOON, VERIFIER, a_row

MOMENT = timedelta(microseconds=1)
LIVE = a_row(scopes=("mcp:read", "audit:*"), expires_at=NOON + DAY)
REVOKED = a_row(revoked=True)
EXPIRED = a_row(expired=True)
PAST_ITS_END = a_row(expires_at=NOON)
ENDED_IN_EVERY_WAY = a_row(scopes=("mcp:read",), revoked=True, expired=True, expires_at=NOON)


@pytest.mark.parametrize(
    ("key", "scopes", "now", "code"),
    [
        (LIVE, [], NOON, Code.VALID),
        (LIVE, ["mcp:read"], NOON, Code.VALID),
        (LIVE, ["mcp:read", "audit:write"], NOON, Code.VALID),
        (LIVE, ["audit:*"], NOON, Code.VALID),
        (LIVE, ["mcp:write"], NOON, Code.INSUFFICIENT_SCOPE),
        (LIVE, ["mcp:read", "mcp:write"], NOON, Code.INSUFFICIENT_SCOPE),
        (LIVE, ["mcp:*"], NOON, Code.INSUFFICIENT_SCOPE),
        (LIVE, ["*"], NOON, Code.INSUFFICIENT_SCOPE),
        (LIVE, ["mcp:read"], NOON + DAY - MOMENT, Code.VALID),
        (LIVE, ["mcp:read"], NOON + DAY, Code.EXPIRED),
        (PAST_ITS_END, [], NOON - MOMENT, Code.VALID),
        (PAST_ITS_END, [], NOON, Code.EXPIRED),
        (EXPIRED, [], NOON, Code.EXPIRED),
        (EXPIRED, ["nothing:held"], NOON, Code.EXPIRED),
        (PAST_ITS_END, ["nothing:held"], NOON, Code.EXPIRED),
        (REVOKED, [], NOON, Code.REVOKED),
        (REVOKED, ["nothing:held"], NOON, Code.REVOKED),
        (ENDED_IN_EVERY_WAY, ["nothing:held"], NOON, Code.REVOKED),
        (a_row(expires_at=NOON + DAY, expired=True), [], NOON, Code.EXPIRED),
    ],
)
def test_revoked_outranks_expired_and_that_outranks_scope(
    key: AuthRow, scopes: list[str], now: datetime, code: Code
) -> None:
    verdict = decide(key, scopes, now)

    assert verdict.code == code
    assert verdict.key is key
    assert isinstance(verdict, Verified if code is Code.VALID else Refused)


def test_the_codes_are_those_that_programs_know() -> None:
    assert [str(code) for code in Code] == [
        "VALID",
        "MALFORMED",
        "NOT_FOUND",
        "REVOKED",
        "EXPIRED",
        "INSUFFICIENT_SCOPE",
    ]


def test_a_refusal_reveals_nothing_about_a_key_by_default() -> None:
    assert Refused(Code.NOT_FOUND).key is None


def test_no_verdict_shows_the_verifier() -> None:
    assert VERIFIER not in repr(decide(LIVE, [], NOON))
    assert VERIFIER not in repr(decide(REVOKED, [], NOON))
