"""A key that was proved once is judged again without its secret, as strictly as with it."""

from datetime import timedelta

import pytest

from api.composition import OpenLedger
from domain.errors import RowNotSealed
from domain.verdict import AuthRow, Code, Verified
from projections.store.database import open_database
from tests.conftest import SettableClock
from tests.projections.ledgers import Keys, Made


@pytest.fixture
def keys(opened: OpenLedger) -> Keys:
    return Keys(opened)


def proved(keys: Keys, made: Made) -> AuthRow:
    verdict = keys.opened.authentication.verify(made.token, (), now=keys.now).verdict
    assert isinstance(verdict, Verified)
    return verdict.key


def judged(keys: Keys, key: AuthRow) -> Code:
    answer = keys.opened.authentication.verify_again(key.key_id, key.lookup_id, now=keys.now)
    return answer.verdict.code


def test_an_active_key_is_valid_and_its_use_is_recorded(keys: Keys, clock: SettableClock) -> None:
    made = keys.create()
    key = proved(keys, made)
    clock.advance(minutes=7)
    assert judged(keys, key) is Code.VALID
    keys.opened.last_uses.flush(keys.database)
    assert keys.show(made.key_id).last_used_at == keys.now.replace(second=0)


def test_a_revocation_counts_at_once(keys: Keys) -> None:
    made = keys.create()
    key = proved(keys, made)
    keys.revoke(made.key_id)
    assert judged(keys, key) is Code.REVOKED


def test_so_does_one_that_somebody_else_wrote(keys: Keys) -> None:
    made = keys.create()
    key = proved(keys, made)
    assert judged(keys, key) is Code.VALID
    other = open_database(keys.database.url)
    with other.write() as connection:
        connection.exec_driver_sql("UPDATE auth_lookup SET revoked = true")
        connection.exec_driver_sql("UPDATE projection_states SET generation = generation + 1")
    other.close()
    with pytest.raises(RowNotSealed):
        judged(keys, key)


def test_an_end_counts_by_the_clock(keys: Keys, clock: SettableClock) -> None:
    key = proved(keys, keys.create(lives=timedelta(hours=1)))
    clock.advance(minutes=59)
    assert judged(keys, key) is Code.VALID
    clock.advance(minutes=1)
    assert judged(keys, key) is Code.EXPIRED


def test_a_lookup_id_belongs_to_at_most_one_key(keys: Keys) -> None:
    one, other = (proved(keys, keys.create()) for _ in range(2))
    authentication = keys.opened.authentication
    for key_id, lookup_id in ((one.key_id, other.lookup_id), (one.key_id, "0" * 16)):
        answer = authentication.verify_again(key_id, lookup_id, now=keys.now)
        assert answer.verdict.code is Code.NOT_FOUND
        assert answer.verdict.key is None
