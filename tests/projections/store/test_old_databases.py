"""Ledgers of older versions of the program, stored as files: each can be opened for ever.

``old_databases/revision-N.sqlite3`` is a ledger of a program of that revision, and
``revision-N.json`` has the answers that it must still give. Both were created once, by the function
below at that time, and are never created again: a newer program would make a newer database.
"""

import json
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from typer.testing import CliRunner

from api.command_line import audit
from api.composition import opened_ledger
from api.settings import read_settings
from domain.caller import Actor, Caller
from domain.errors import LedgerUnavailable
from domain.key_ids import to_uuid
from domain.key_ledger import Changes, Idempotency
from domain.times import from_text, to_text
from domain.verdict import Code
from domain.verifiers import CHEAPEST
from projections.integrity.verify import check_integrity
from projections.rebuild.rebuild import check, rebuild
from projections.recorder import LedgerRecorder
from projections.sealing.ledger_secret import LedgerNotSealed
from projections.store.database import open_database
from projections.store.schema import HEAD, upgrade_schema
from projections.store.sqlite_driver import driver as sqlite3
from projections.views.key_fields import ListedKey
from projections.views.registry import VIEWS
from tests.conftest import NOON, SettableClock
from tests.engines import database_file, file_address
from tests.projections.ledgers import ADA, HOUR, Keys, Made, differing_rows, keys_in, made
from tests.projections.processes import die_at_statement, run_until_killed
from tests.projections.store.old_ledgers import sign_all_events
from tests.raw_sql import count_events, dump, rows_of, sql, tables_of, view_rows

pytestmark = pytest.mark.only_on("sqlite")

FOLDER = Path(__file__).with_name("old_databases")
REVISIONS = sorted(file.stem for file in FOLDER.glob("*.sqlite3"))

BOT = Caller(
    Actor("key", "apikey_11111111-1111-8111-8111-111111111111"),
    holds=("*",),
    request_id="req-7",
    source_ip="192.0.2.7",
)


def make_old_database(folder: Path) -> None:
    """Make the two files of this program's revision, to be kept once there is a newer one.

    The tokens come from a fixed seed; the salts of the verifiers do not, so no two runs give the
    same bytes. It is run by hand, in a checkout of the last version of a revision:

        python -c "from pathlib import Path
        from tests.projections.store.test_old_databases import *
        make_old_database(Path('tests/projections/store/old_databases'))"
    """
    database = folder / f"revision-{HEAD}.sqlite3"
    assert not database.exists(), "what was made once is kept"
    clock = SettableClock(NOON)
    with TemporaryDirectory() as name:
        data_dir = Path(name) / "data"
        with opened_ledger(
            read_settings(data_dir=data_dir),
            clock=clock,
            random=random.Random(1).randbytes,
            argon2_profile=CHEAPEST,
        ) as opened:
            issued = _lead_a_life(Keys(opened), clock)
            expected = {
                "revision": HEAD,
                "pepper": (data_dir / "pepper").read_bytes().hex(),
                "now": to_text(clock.now),
                "keys": [
                    {
                        "token": each.token,
                        "code": Keys(opened).verify(each.token),
                        "row": _as_json(Keys(opened).show(each.key_id, workspace=workspace)),
                    }
                    for each, workspace in issued
                ],
            }
        with closing(sqlite3.connect(database_file(data_dir))) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.write_bytes(database_file(data_dir).read_bytes())
    text = json.dumps(expected, indent=2, ensure_ascii=False)
    database.with_suffix(".json").write_text(f"{text}\n")


def _lead_a_life(keys: Keys, clock: SettableClock) -> list[tuple[Made, str]]:
    plain = keys.create("plain")
    changed = keys.create("changed", scopes=("mcp:read", "mcp:write"), lives=100 * HOUR)
    clock.advance(minutes=1)
    keys.rename(changed.key_id, 'Ünïcödé "100%"')
    keys.update(changed.key_id, Changes(scopes=["logs:*", "mcp:read"]), by=BOT)
    keys.update(changed.key_id, Changes(expires_at=NOON + timedelta(days=400, microseconds=1)))
    rotated = keys.create("rotated", scopes=("*",), lives=1000 * HOUR, by=BOT)
    clock.advance(hours=1, microseconds=123456)
    successor = keys.rotate(rotated.key_id, grace=HOUR)
    expired = keys.create("expired", lives=HOUR)
    clock.advance(hours=2)
    keys.expire_due()
    revoked = keys.create("revoked", by=BOT)
    keys.opened.ledger.revoke_key(
        revoked.key_id,
        workspace="default",
        reason="leaked",
        comment="found in\na public place",
        by=BOT,
        at=clock.now,
    )
    both = keys.create("expired and revoked", lives=HOUR)
    elsewhere = keys.create("elsewhere", workspace="root", prefix="blnk", scopes=("api-keys:read",))
    repeated = made(
        keys.opened.ledger.create_key(
            workspace="default",
            name="repeated",
            scopes=["a:b"],
            expires_at=clock.now + 900 * HOUR,
            token_prefix="key",
            by=ADA,
            at=clock.now,
            idempotency=Idempotency("request-1", "ab" * 32),
        )
    )
    due = keys.create("due, and not recorded", lives=2 * HOUR)
    clock.advance(hours=1)
    keys.expire_due()
    keys.revoke(both.key_id)
    clock.advance(hours=1)
    in_default = [plain, changed, rotated, successor, expired, revoked, both, repeated, due]
    return [*((each, "default") for each in in_default), (elsewhere, "root")]


def _as_json(key: ListedKey) -> dict[str, Any]:
    return {
        name: to_text(value) if isinstance(value, datetime) else value
        for name, value in asdict(key).items()
    }


class OldLedger:
    """A copy of an old database, and what it must say."""

    def __init__(self, revision: str, data_dir: Path) -> None:
        data_dir.mkdir()
        self.data_dir = data_dir
        self.path = database_file(data_dir)
        self.path.write_bytes((FOLDER / f"{revision}.sqlite3").read_bytes())
        self.expected: dict[str, Any] = json.loads((FOLDER / f"{revision}.json").read_text())
        self.argon2_calls = 0
        self.keep_the_pepper()
        self.sign()

    @property
    def now(self) -> datetime:
        return from_text(self.expected["now"])

    @contextmanager
    def opened(self) -> Iterator[Keys]:
        def count(change: int) -> None:
            self.argon2_calls += change > 0

        with keys_in(self.data_dir, now=self.now, on_argon2=count) as keys:
            yield keys

    def keep_the_pepper(self) -> None:
        (self.data_dir / "pepper").write_bytes(bytes.fromhex(self.expected["pepper"]))

    def lose_the_pepper(self) -> None:
        (self.data_dir / "pepper").unlink()

    def sign(self) -> None:
        """Sign a checkpoint over all events into the file outside, as a program of then does."""
        sign_all_events(self.path, self.data_dir)

    def check_answers(self, keys: Keys) -> None:
        """See that each key is listed and verified as it ever was; new fields may have come."""
        for each in self.expected["keys"]:
            row = each["row"]
            shown = _as_json(keys.show(row["key_id"], workspace=row["workspace"]))
            shown["scopes"] = list(shown["scopes"])
            assert {name: shown[name] for name in row} == row
            assert keys.verify(each["token"]) == each["code"]


@pytest.fixture(params=REVISIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> OldLedger:
    return OldLedger(request.param, tmp_path / "data")


def test_the_old_databases_contain_every_kind_of_event(old: OldLedger) -> None:
    assert "revision-0001" in REVISIONS
    topics = {topic for (topic,) in sql(file_address(old.path), "SELECT topic FROM events")}
    assert topics == {
        "ApiKey.Created",
        "ApiKey.Revoked",
        "ApiKey.Expired",
        "ApiKey.Rotated",
        "ApiKey.ExpirationChanged",
        "ApiKey.Renamed",
        "ApiKey.ScopesChanged",
    }
    assert {each["code"] for each in old.expected["keys"]} == {
        Code.VALID,
        Code.REVOKED,
        Code.EXPIRED,
    }


def test_an_old_database_opens_and_gives_the_same_answers(old: OldLedger) -> None:
    events = rows_of(file_address(old.path), "events")
    with old.opened() as keys:
        old.check_answers(keys)
        # A digest of then does not cover the lookup id; each secret is proved once more.
        assert old.argon2_calls == len(old.expected["keys"])
        old.check_answers(keys)
        assert old.argon2_calls == len(old.expected["keys"])
        assert sql(keys.address, "SELECT version_num FROM alembic_version") == [(HEAD,)]
        live = view_rows(keys.address)
        for view in VIEWS:
            assert check(keys.database, view).differing == 0
            assert rebuild(keys.database, view, clock=lambda: NOON).differing == 0
        assert view_rows(keys.address) == live
        old.check_answers(keys)
    *_, seals = zip(*rows_of(file_address(old.path), "events"), strict=True)
    assert [row[:-1] for row in rows_of(file_address(old.path), "events")] == events
    assert None not in seals


def test_uses_that_were_noted_by_key_id_are_kept_by_position(tmp_path: Path) -> None:
    old = OldLedger("revision-0002", tmp_path / "data")
    used = {
        each["row"]["key_id"]: f"2026-03-03T12:{number:02}:00.000000Z"
        for number, each in enumerate(old.expected["keys"][::2])
    }
    of_nobody = "apikey_11111111-1111-8111-8111-111111111111"
    for key_id, at in (used | {of_nobody: "2026-03-03T11:00:00.000000Z"}).items():
        sql(
            file_address(old.path),
            "INSERT INTO last_uses (key_id, used_at) VALUES (?, ?)",
            key_id,
            at,
        )
    with old.opened() as keys:
        named = "SELECT key_id, used_at FROM last_uses JOIN key_list USING (position)"
        assert dict(sql(keys.address, named)) == used
        assert len(rows_of(keys.address, "last_uses")) == len(used)
        for each in old.expected["keys"]:
            row = each["row"]
            shown = keys.show(row["key_id"], workspace=row["workspace"])
            last = shown.last_used_at
            assert used.get(row["key_id"]) == (None if last is None else to_text(last))


def test_without_its_pepper_an_old_database_says_the_same(old: OldLedger) -> None:
    old.lose_the_pepper()
    with old.opened() as keys:
        old.check_answers(keys)
        assert old.argon2_calls == len(old.expected["keys"])
        old.check_answers(keys)
        assert old.argon2_calls == len(old.expected["keys"])


def test_an_old_database_without_a_checkpoint_is_sealed_by_the_command_alone(
    old: OldLedger,
) -> None:
    (old.data_dir / "checkpoints.txt").unlink()
    with pytest.raises(LedgerNotSealed, match="keyledger audit seal"), old.opened():
        pass
    command = ["seal", "--reason", "an old ledger", "--yes", "--data-dir", str(old.data_dir)]
    ended = CliRunner().invoke(audit.app, command)
    assert ended.exit_code == 0, ended.output
    with old.opened() as keys:
        old.check_answers(keys)
        assert differing_rows(keys) == {}
        assert check_integrity(keys.database, notes=[], keys=None).findings == ()
        (newest,) = sql(keys.address, "SELECT topic FROM events ORDER BY id DESC LIMIT 1")
        assert newest == ("AuditLog.Resealed",)


def test_an_old_database_can_be_used(old: OldLedger) -> None:
    with old.opened() as keys:
        valid = [each for each in old.expected["keys"] if each["code"] == Code.VALID]
        for each in valid:
            row = each["row"]
            successor = keys.rotate(row["key_id"], workspace=row["workspace"])
            assert keys.verify(each["token"]) is Code.EXPIRED
            assert keys.verify(successor.token) is Code.VALID
            keys.revoke(row["key_id"], workspace=row["workspace"])
            assert keys.verify(each["token"]) is Code.REVOKED
        # One was due and one was not recorded; those just rotated are revoked.
        assert keys.expire_due() == sum(
            each["code"] == Code.EXPIRED and each["row"]["name"] == "due, and not recorded"
            for each in old.expected["keys"]
        )
        assert differing_rows(keys) == {}


# What a version of the program that knew the views otherwise may have left in place of them.
OLDER_VIEWS = {
    "another version": ["UPDATE projection_states SET view_version = 0"],
    "another version of one": [
        "UPDATE projection_states SET view_version = 0 WHERE table_name = 'auth_lookup'"
    ],
    "other tables": [
        "UPDATE projection_states SET view_version = 0",
        "DROP TABLE key_list",
        "CREATE TABLE key_list (position INTEGER PRIMARY KEY, whatever TEXT)",
        "ALTER TABLE auth_lookup DROP COLUMN role",
    ],
    "other values": [
        "UPDATE projection_states SET view_version = 0",
        "UPDATE key_list SET name = 'as it was called then', status = 'active'",
        "UPDATE auth_lookup SET revoked = 0, expires_at = NULL",
    ],
    "no tables": [
        "DROP TABLE key_list",
        "DROP TABLE auth_lookup",
        "DELETE FROM projection_states",
    ],
    "states without tables": ["DROP TABLE key_list", "DROP TABLE auth_lookup"],
    "tables without states": ["DELETE FROM projection_states"],
}


@pytest.mark.parametrize("changes", OLDER_VIEWS.values(), ids=OLDER_VIEWS.keys())
def test_views_of_another_version_are_rebuilt(
    old: OldLedger, tmp_path: Path, changes: list[str]
) -> None:
    with OldLedger(f"revision-{old.expected['revision']}", tmp_path / "as it is").opened() as keys:
        right = view_rows(keys.address)
    for change in changes:
        sql(file_address(old.path), change)
    with old.opened() as keys:
        assert view_rows(keys.address) == right
        old.check_answers(keys)
        states = sql(
            keys.address,
            "SELECT table_name, view_version, position FROM projection_states"
            " WHERE table_name NOT LIKE '%_previous'",
        )
        last = count_events(keys.address)
        assert sorted(states) == sorted((view.name, view.version, last) for view in VIEWS)
        assert not [table for table in tables_of(keys.address) if "_rebuild" in table]
        keys.create("new")
        assert differing_rows(keys) == {}


@pytest.mark.parametrize("which", range(len(VIEWS)), ids=lambda which: VIEWS[which].name)
def test_a_program_that_still_runs_while_a_newer_one_upgrades_the_views_appends_nothing(
    old: OldLedger, which: int
) -> None:
    with old.opened() as older:
        views = list(VIEWS)
        views[which] = replace(views[which], version=views[which].version + 1)
        rebuild(older.database, views[which], clock=lambda: NOON)
        before = dump(older.address)
        valid = next(each for each in old.expected["keys"] if each["code"] == Code.VALID)
        for command in (
            lambda: older.create("new"),
            lambda: older.rename(valid["row"]["key_id"], "renamed"),
            lambda: older.revoke(valid["row"]["key_id"]),
            lambda: older.rotate(valid["row"]["key_id"]),
        ):
            with pytest.raises(LedgerUnavailable) as caught:
                command()
            assert caught.value.code == "LEDGER_UNAVAILABLE"
        assert dump(older.address) == before
        # The newer program goes on.
        newer = LedgerRecorder(older.database, views)
        uuid = to_uuid(valid["row"]["key_id"])
        *_, last = newer.select_events(uuid)
        created = newer.select_events(uuid, lte=1)[0]
        # A first event says all that a renaming says, and more.
        renamed = replace(
            created, topic="ApiKey.Renamed", originator_version=last.originator_version + 1
        )
        assert newer.insert_events([renamed]) == [count_events(older.address)]


def upgrade_until(path: Path, number: int, when: str) -> None:
    database = open_database(f"sqlite:///{path}")
    die_at_statement(number, when=when)
    upgrade_schema(database)
    database.close()


@pytest.mark.parametrize("when", ["before_cursor_execute", "after_cursor_execute"])
def test_an_upgrade_of_an_old_database_that_is_killed_has_done_nothing_or_everything(
    old: OldLedger, when: str
) -> None:
    as_it_was, before = old.path.read_bytes(), dump(file_address(old.path))
    killed = []
    for number in count(1):
        for file in (old.path, *old.path.parent.glob(f"{old.path.name}-*")):
            file.unlink()
        old.path.write_bytes(as_it_was)
        if not run_until_killed(upgrade_until, old.path, number, when):
            break
        killed.append(dump(file_address(old.path)))
    upgraded = dump(file_address(old.path))
    assert all(each in (before, upgraded) for each in killed)
    assert (before != upgraded) == (old.expected["revision"] != HEAD)
