"""A replay of a key is the same from the store and from a pack."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from sqlalchemy import Connection, select

from domain.errors import DamagedHistory, Invalid
from domain.key_ledger import Changes
from projections.queries.key_replay import history_in_pack, replayed
from projections.store.events import read_history
from projections.views import entries
from tests.conftest import NOON, SettableClock
from tests.engines import fresh_copy
from tests.projections.histories import History, Step, steps
from tests.projections.ledgers import HOUR, Keys, keys_in
from tests.projections.tlog.packs import FIRST_KEY, a_creation, a_line, a_pack, forged


def entries_in(connection: Connection) -> list[bytes]:
    return list(connection.scalars(select(entries.table.c.entry).order_by("leaf_index")))


def test_a_replay_shows_the_key_after_each_event(keys: Keys, clock: SettableClock) -> None:
    made = keys.create("first", lives=HOUR)
    keys.update(made.key_id, Changes(name="second", scopes=["logs:read"]))
    clock.advance(hours=2)
    keys.expire_due()
    keys.revoke(made.key_id, reason="tidied up")
    with keys.database.read() as connection:
        steps = list(replayed(read_history(connection, made.key_id, after=0, limit=10)))
    assert [(key.version, key.status, key.name) for _, key in steps] == [
        (1, "active", "first"),
        (2, "active", "second"),
        (3, "active", "second"),
        (4, "expired", "second"),
        (5, "revoked", "second"),
    ]
    assert [key.scopes for _, key in steps][1:3] == [("mcp:read",), ("logs:read",)]
    assert steps[-1].key.revoke_reason == "tidied up"


@settings(max_examples=10, deadline=None)
@given(commands=steps)
def test_store_pack_and_key_list_agree(empty_ledger: Path, commands: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        clock = SettableClock(NOON)
        with keys_in(fresh_copy(empty_ledger, Path(folder) / "data"), clock=clock) as keys:
            history = History(keys, clock, [])
            history.play(commands)
            with keys.database.read() as connection:
                pack = a_pack(Path(folder), entries_in(connection))
                for made, workspace in history.made:
                    stored = list(
                        replayed(read_history(connection, made.key_id, after=0, limit=99))
                    )
                    packed = list(replayed(history_in_pack(pack, made.key_id)))
                    assert [_without_place(key) for _, key in stored] == [
                        _without_place(key) for _, key in packed
                    ]
                    shown = keys.show(made.key_id, workspace=workspace)
                    last = stored[-1].key
                    assert (last.name, last.scopes, last.expires_at, last.version) == (
                        shown.name,
                        shown.scopes,
                        shown.expires_at,
                        shown.version,
                    )


def _without_place(key: object) -> dict[str, object]:
    return {name: getattr(key, name) for name in key.__slots__ if name != "position"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        b'{"key_id":"%b"}' % FIRST_KEY.encode(),
        b'"key_id":"%b"' % FIRST_KEY.encode(),
        a_creation().replace(b"ApiKey.Created", b"ApiKey.Unheard"),
        a_creation(expires_at="tomorrow"),
    ],
)
def test_a_line_that_is_not_an_event_is_named(tmp_path: Path, line: bytes) -> None:
    pack = forged(a_pack(tmp_path, [a_creation()]), entries=a_creation() + b"\n" + line + b"\n")
    with pytest.raises(Invalid, match="its entry 1 is not an event"):
        list(history_in_pack(pack, FIRST_KEY))


def test_a_replay_without_a_creation_is_refused(tmp_path: Path) -> None:
    pack = a_pack(tmp_path, [a_line("Renamed", 2, name="x")])
    with pytest.raises(DamagedHistory, match="the event at 0 cannot be replayed"):
        list(replayed(history_in_pack(pack, FIRST_KEY)))


def test_a_file_that_is_not_a_pack_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.zip").write_bytes(b"other")
    with pytest.raises(Invalid, match="is not an audit pack"):
        list(history_in_pack(tmp_path / "other.zip", FIRST_KEY))
