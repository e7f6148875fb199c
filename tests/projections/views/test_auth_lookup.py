from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from domain.key_ledger import Changes
from domain.pepper import Pepper
from domain.verdict import AuthRow
from projections.auth.freshness import open_freshness_check
from projections.views.auth_lookup import Found
from tests.conftest import NOON, SettableClock
from tests.projections.ledgers import HOUR, Keys
from tests.raw_sql import sql

DAY = timedelta(days=1)


def lookup_id_of(token: str) -> str:
    return token.partition("_")[2][:16]


def find(keys: Keys, lookup_id: str, pepper_id: str) -> Found | None:
    with closing(open_freshness_check(keys.database)) as check:
        return check.find(lookup_id, pepper_id)


def found(keys: Keys, token: str) -> AuthRow:
    row = find(keys, lookup_id_of(token), "no pepper")
    assert row is not None
    return row[0]


def test_the_auth_row_has_everything_that_a_verdict_needs(keys: Keys) -> None:
    made = keys.create("payments", scopes=("mcp:read", "a:*"), lives=DAY, prefix="blnk")
    ((verifier,),) = sql(keys.address, "SELECT verifier FROM auth_lookup")
    expected = AuthRow(
        position=1,
        lookup_id=made.token[5:21],
        key_id=made.key_id,
        workspace="default",
        name="payments",
        role="Member",
        token_prefix="blnk",
        scopes=("mcp:read", "a:*"),
        expires_at=NOON + DAY,
        revoked=False,
        expired=False,
        verifier=verifier,
    )
    assert asdict(found(keys, made.token)) == asdict(expected)
    assert verifier.startswith("$argon2id$")
    assert verifier not in repr(found(keys, made.token))


def test_each_change_is_there_and_no_other(keys: Keys, clock: SettableClock) -> None:
    made = keys.create(lives=DAY)
    expected = asdict(found(keys, made.token))

    def now_has(**changes: Any) -> None:  # noqa: ANN401 - of whatever type they are
        expected.update(changes)
        assert asdict(found(keys, made.token)) == expected

    keys.rename(made.key_id, "renamed")
    now_has(name="renamed")
    keys.update(made.key_id, Changes(scopes=["a:b"]))
    now_has(scopes=("a:b",))
    keys.update(made.key_id, Changes(never_expires=True))
    now_has(expires_at=None)
    keys.update(made.key_id, Changes(expires_at=NOON + 2 * DAY))
    now_has(expires_at=NOON + 2 * DAY)
    successor = keys.rotate(made.key_id, grace=HOUR)
    now_has(expires_at=NOON + HOUR)
    assert found(keys, successor.token).expires_at == NOON + 2 * DAY
    clock.advance(hours=1)
    keys.expire_due()
    now_has(expired=True)
    keys.revoke(made.key_id)
    now_has(revoked=True)


def test_an_unknown_lookup_id_finds_nothing(keys: Keys) -> None:
    made = keys.create()
    lookup_id = lookup_id_of(made.token)
    for unknown in ("0" * 16, "", lookup_id[:15], f"{lookup_id}0", lookup_id.swapcase()):
        assert find(keys, unknown, "no pepper") is None


def test_a_digest_is_found_under_its_own_pepper_alone(keys: Keys) -> None:
    made = keys.create()
    other = keys.create()
    pepper = Pepper((keys.data_dir / "pepper").read_bytes())
    for each in (made, other):
        own = find(keys, lookup_id_of(each.token), pepper.pepper_id)
        assert own is not None
        assert own[1] == pepper.digest(lookup_id_of(each.token), each.token[20:63])
    without = find(keys, lookup_id_of(made.token), Pepper(bytes(32)).pepper_id)
    assert without is not None
    assert without[1] is None
