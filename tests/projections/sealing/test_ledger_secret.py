"""The secret of a ledger's seals, and the sealing of ledgers without seals."""

from collections.abc import Callable
from pathlib import Path
from secrets import token_bytes

import pytest

from domain.verdict import Code
from projections.sealing.ledger_secret import LedgerNotSealed, OtherSecret
from tests.engines import address_of
from tests.projections.ledgers import keys_in
from tests.projections.processes import die_at_statement, run_until_killed
from tests.raw_sql import sql


def made_in(data_dir: Path, *, signed: bool = True) -> str:
    """Make a ledger with a key; return its token."""
    with keys_in(data_dir) as keys:
        made = keys.create()
        keys.rename(made.key_id, "renamed")
        if signed:
            keys.opened.signer.sign()
    return made.token


def take_seals_away(data_dir: Path) -> None:
    """Change the database to what the last version without seals would have left."""
    for statement in (
        "UPDATE events SET seal = NULL",
        "UPDATE key_digests SET seal = NULL",
        "DELETE FROM ledger_secret",
        "UPDATE projection_states SET view_version = 2 WHERE table_name = 'auth_lookup'",
    ):
        sql(address_of(data_dir), statement)


def unsealed(data_dir: Path) -> int:
    found: int = sql(address_of(data_dir), "SELECT count(*) FROM events WHERE seal IS NULL")[0][0]
    return found


def test_a_machine_with_another_pepper_does_not_start_and_says_what_to_do(data_dir: Path) -> None:
    token = made_in(data_dir)
    pepper = (data_dir / "pepper").read_bytes()
    (data_dir / "pepper").write_bytes(token_bytes(32))
    with (
        pytest.raises(OtherSecret, match=r"Copy the file .* keyledger audit seal"),
        keys_in(data_dir),
    ):
        pass
    (data_dir / "pepper").write_bytes(pepper)
    with keys_in(data_dir) as keys:
        assert keys.verify(token) is Code.VALID


def test_a_missing_pepper_of_a_sealed_ledger_is_not_replaced(data_dir: Path) -> None:
    token = made_in(data_dir)
    kept = (data_dir / "pepper").rename(data_dir.parent / "kept")
    with pytest.raises(OtherSecret, match="the pepper is missing"), keys_in(data_dir):
        pass
    assert not (data_dir / "pepper").exists()
    kept.rename(data_dir / "pepper")
    with keys_in(data_dir) as keys:
        assert keys.verify(token) is Code.VALID


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_secret SET seal = x'00'",
        "UPDATE ledger_secret SET secret_id = '0000000000000000'",
        "INSERT INTO ledger_secret VALUES ('0000000000000000', x'00')",
    ],
)
def test_a_forged_ledger_secret_prevents_the_start(data_dir: Path, change: str) -> None:
    made_in(data_dir)
    sql(address_of(data_dir), change)
    with pytest.raises(OtherSecret), keys_in(data_dir):
        pass


def test_an_unsealed_ledger_covered_by_checkpoints_is_sealed_at_startup(
    data_dir: Path,
) -> None:
    token = made_in(data_dir)
    take_seals_away(data_dir)
    with keys_in(data_dir) as keys:
        assert keys.verify(token) is Code.VALID
        assert unsealed(data_dir) == 0


def forget_checkpoints(data_dir: Path) -> None:
    (data_dir / "checkpoints.txt").unlink()


def plant_an_event(data_dir: Path) -> None:
    sql(
        address_of(data_dir),
        "INSERT INTO events (originator_id, originator_version, topic, state)"
        " SELECT originator_id, 3, topic, state FROM events WHERE id = 2",
    )


def change_an_event(data_dir: Path) -> None:
    sql(address_of(data_dir), "UPDATE events SET topic = 'ApiKey.Expired' WHERE id = 2")


def delete_an_event(data_dir: Path) -> None:
    sql(address_of(data_dir), "DELETE FROM events WHERE id = 2")


@pytest.mark.parametrize(
    "change",
    [
        # On a server, a signed checkpoint in the database proves as much.
        pytest.param(forget_checkpoints, marks=pytest.mark.only_on("sqlite")),
        plant_an_event,
        change_an_event,
        delete_an_event,
    ],
)
def test_events_without_a_checkpoint_are_not_sealed(
    data_dir: Path, change: Callable[[Path], None]
) -> None:
    made_in(data_dir)
    take_seals_away(data_dir)
    change(data_dir)
    before = unsealed(data_dir)
    for _ in range(2):
        with pytest.raises(LedgerNotSealed, match="keyledger audit seal"), keys_in(data_dir):
            pass
    assert unsealed(data_dir) == before != 0


@pytest.mark.only_on("sqlite")
def test_dropping_the_seal_column_and_resetting_the_revision_grants_nothing(
    data_dir: Path,
) -> None:
    made_in(data_dir)
    for statement in (
        *(
            f"ALTER TABLE {table} DROP COLUMN seal"
            for table in ("events", "key_digests", "console_sessions", "last_attestation")
        ),
        "DROP TABLE ledger_secret",
        "UPDATE alembic_version SET version_num = '0006'",
    ):
        sql(address_of(data_dir), statement)
    plant_an_event(data_dir)
    with pytest.raises(LedgerNotSealed), keys_in(data_dir):
        pass


def test_a_missing_ledger_secret_with_sealed_events_prevents_the_start(data_dir: Path) -> None:
    made_in(data_dir)
    sql(address_of(data_dir), "DELETE FROM ledger_secret")
    with (
        pytest.raises(
            LedgerNotSealed, match="row of ledger_secret that names their secret is missing"
        ),
        keys_in(data_dir),
    ):
        pass


def open_until(data_dir: Path, number: int) -> None:
    die_at_statement(number, when="before_cursor_execute")
    with keys_in(data_dir):
        pass


@pytest.mark.only_on("sqlite")
def test_a_killed_sealing_is_completed_at_the_next_start(data_dir: Path) -> None:
    token = made_in(data_dir)
    number = 1
    while True:
        take_seals_away(data_dir)
        killed = run_until_killed(open_until, data_dir, number)
        with keys_in(data_dir) as keys:
            assert keys.verify(token) is Code.VALID
        if not killed:
            break
        number += 9
    assert number > 20
