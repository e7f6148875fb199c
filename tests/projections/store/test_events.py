import pytest

from domain.api_key import ApiKey
from domain.errors import KeyNotFound, PoisonEvent
from domain.key_ids import to_uuid
from projections.store.events import decode_rows, last_position, read_history, read_rows
from tests.projections.ledgers import Keys, Made
from tests.raw_sql import sql


@pytest.fixture
def made(keys: Keys) -> list[Made]:
    """Two keys, whose five events are mixed and have a gap in their positions."""
    first, second = keys.create("first"), keys.create("second")
    keys.rename(first.key_id, "renamed")
    keys.create("gone")
    keys.revoke(second.key_id)
    sql(keys.address, "DELETE FROM events WHERE id = 4")
    keys.revoke(first.key_id)
    return [first, second]


def test_an_empty_ledger_is_at_0(keys: Keys) -> None:
    with keys.database.read() as connection:
        assert last_position(connection) == 0
        assert read_rows(connection, after=0, limit=None) == []


@pytest.mark.usefixtures("made")
def test_rows_come_in_the_one_order_a_limit_at_a_time(keys: Keys) -> None:
    with keys.database.read() as connection:
        assert last_position(connection) == 6
        for limit in (1, 2, 3, 100):
            found: list[int] = []
            while rows := read_rows(connection, after=found[-1] if found else 0, limit=limit):
                assert len(rows) <= limit
                found += [row[0] for row in rows]
            assert found == [1, 2, 3, 5, 6]
        assert [row[0] for row in read_rows(connection, after=2, limit=None)] == [3, 5, 6]


def test_rows_are_decoded_into_the_events_that_were_appended(keys: Keys, made: list[Made]) -> None:
    with keys.database.read() as connection:
        recorded = decode_rows(read_rows(connection, after=0, limit=None))
    assert [(each.position, type(each.event)) for each in recorded] == [
        (1, ApiKey.Created),
        (2, ApiKey.Created),
        (3, ApiKey.Renamed),
        (5, ApiKey.Revoked),
        (6, ApiKey.Revoked),
    ]
    assert recorded[2].event.originator_id == to_uuid(made[0].key_id)
    assert recorded[2].event.originator_version == 2
    assert recorded[2].event.timestamp == keys.now


def test_a_history_has_only_its_keys_events_in_pages(keys: Keys, made: list[Made]) -> None:
    key_id = made[0].key_id
    with keys.database.read() as connection:

        def positions(*, after: int, limit: int) -> list[int]:
            return [
                each.position for each in read_history(connection, key_id, after=after, limit=limit)
            ]

        assert positions(after=0, limit=100) == [1, 3, 6]
        assert positions(after=0, limit=2) == [1, 3]
        assert positions(after=3, limit=2) == [6]
        assert positions(after=6, limit=2) == []
        assert read_history(connection, f"{key_id[:-12]}{'0' * 12}", after=0, limit=9) == []
        with pytest.raises(KeyNotFound):
            read_history(connection, "no key id", after=0, limit=9)


OF_ANY_TYPE = pytest.mark.only_on("sqlite")
"""Only SQLite has values in a column that are not of its type."""


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    "change",
    [
        "state = NULL",
        "state = x'00'",
        "topic = 'x'",
        "originator_id = NULL",
        *(
            pytest.param(change, marks=OF_ANY_TYPE)
            for change in (
                "state = 'garbage'",
                "originator_id = x'00'",
                "originator_id = 7",
                "originator_id = 'one of 16 signs.'",
                "originator_id = CAST(x'00112233445566778899aabbccddeeff' AS TEXT)",
                "topic = CAST(x'ff' AS TEXT)",
                "state = CAST(x'ff' AS TEXT)",
            )
        ),
    ],
)
def test_an_undecodable_event_is_named_by_its_position(keys: Keys, change: str) -> None:
    sql(keys.address, "CREATE TABLE loose AS SELECT * FROM events")
    sql(keys.address, "DROP TABLE events")
    sql(keys.address, "ALTER TABLE loose RENAME TO events")
    sql(keys.address, f"UPDATE events SET {change} WHERE id = 5")  # noqa: S608 - from above
    with keys.database.read() as connection:
        rows = read_rows(connection, after=0, limit=None)
        with pytest.raises(PoisonEvent) as caught:
            decode_rows(rows)
        assert caught.value.position == 5
        assert "the event at position 5 cannot be projected" in str(caught.value)
        assert len(decode_rows(rows[:3])) == 3
