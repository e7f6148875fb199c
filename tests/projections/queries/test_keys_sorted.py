"""Keys in other orders: each key once, page after page, whatever the order and the filters."""

from datetime import timedelta
from itertools import product
from typing import get_args
from uuid import UUID

import pytest

from api.composition import OpenLedger
from projections.queries.filters import Filters
from projections.queries.key_count import count_keys
from projections.queries.key_names import names_of_keys
from projections.queries.keys_now import list_keys
from projections.queries.keys_sorted import Order, list_keys_by
from projections.queries.workspaces import list_workspaces
from projections.views.key_fields import ListedKey
from tests.conftest import SettableClock
from tests.projections.ledgers import HOUR, Keys

ORDERS: tuple[Order, ...] = get_args(Order)


@pytest.fixture
def keys(opened: OpenLedger, clock: SettableClock) -> Keys:
    """Keys of which several are equal in each order; some used, ended or revoked."""
    keys = Keys(opened)
    made = []
    for number in range(23):
        lives = (None, 10 * HOUR, 500 * HOUR)[number % 3]
        made.append(keys.create(("beta", "Alpha", "gamma")[number % 3], lives=lives))
        if number % 4 == 0:
            clock.advance(minutes=5)
        if number % 5 == 0:
            keys.verify(made[-1].token)
    opened.last_uses.flush(opened.database)
    keys.revoke(made[2].key_id)
    keys.create("elsewhere", workspace="other")
    clock.advance(hours=11)
    return keys


def pages(
    keys: Keys, order: Order, *, descending: bool, filters: Filters, length: int
) -> list[list[ListedKey]]:
    found: list[list[ListedKey]] = []
    with keys.database.read() as connection:
        while True:
            after = found[-1][-1].position if found else None
            page = list_keys_by(
                connection,
                "default",
                filters,
                order,
                descending=descending,
                now=keys.now,
                after=after,
                limit=length,
            )
            if not page:
                return found
            assert len(page) <= length
            found.append(page)


def value(key: ListedKey, order: Order) -> str:
    far = key.created_at + timedelta(days=9999)
    return {
        "name": key.name.lower(),
        "created": f"{key.created_at:%F %T.%f}",
        "used": "" if key.last_used_at is None else f"{key.last_used_at:%F %T}",
        "expires": f"{key.expires_at or far:%F %T.%f}",
    }[order]


@pytest.mark.parametrize("order", ORDERS)
def test_the_pages_have_every_key_once_and_in_order(keys: Keys, order: Order) -> None:
    for filters in (Filters(), Filters(status="active"), Filters(text="A")):
        with keys.database.read() as connection:
            every = list_keys(connection, "default", filters, now=keys.now, limit=100)
        assert len(every) > 5
        for descending, length in product((False, True), (1, 4, 50)):
            found = pages(keys, order, descending=descending, filters=filters, length=length)
            assert [key for page in found for key in page] == sorted(
                every, key=lambda key: (value(key, order), key.position), reverse=descending
            )


def test_the_clock_decides_the_status(keys: Keys) -> None:
    def count(filters: Filters) -> int:
        return sum(map(len, pages(keys, "name", descending=False, filters=filters, length=50)))

    # Nobody has recorded these ends yet.
    assert count(Filters(status="expired")) == 8
    assert count(Filters(status="revoked")) == 1
    assert count(Filters(status="active")) == 14


def test_the_workspaces_that_have_keys_are_listed_once_each(keys: Keys) -> None:
    keys.create("third", workspace="Zebra".lower())
    with keys.database.read() as connection:
        assert list_workspaces(connection, limit=10) == ["default", "other", "zebra"]
        assert list_workspaces(connection, limit=2) == ["default", "other"]


@pytest.mark.parametrize(
    "filters",
    [Filters(), Filters(status="active"), Filters(status="expired"), Filters(text="a"),
     Filters(never_used=True)],
    ids=str,
)  # fmt: skip
def test_keys_are_counted_as_they_are_listed(keys: Keys, filters: Filters) -> None:
    with keys.database.read() as connection:
        listed = list_keys(connection, "default", filters, now=keys.now, limit=100)

        def count(at_most: int, workspace: str | None = "default") -> int:
            return count_keys(connection, workspace, filters, now=keys.now, at_most=at_most)

        assert len(listed) > 3
        assert count(100) == len(listed)
        assert count(3) == 3
        if filters == Filters():
            assert count(100, None) == len(listed) + 1


def test_keys_are_named_within_their_workspace(keys: Keys) -> None:
    own, other = keys.create("own"), keys.create("other", workspace="other")
    ids = [own.key_id, other.key_id, f"apikey_{UUID(int=7)}"]
    with keys.database.read() as connection:
        names = names_of_keys(connection, "default", ids)
        all_names = names_of_keys(connection, None, ids)
    own_name = names.pop(own.key_id)
    assert (own_name.name, own_name.workspace) == ("own", "default")
    assert names == {}
    assert all_names.pop(own.key_id) == own_name
    assert all_names.pop(other.key_id).workspace == "other"
    assert all_names == {}
