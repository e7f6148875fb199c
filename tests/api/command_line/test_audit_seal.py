"""``keyledger audit seal``: sealing a ledger again after its pepper was lost."""

from pathlib import Path
from secrets import token_bytes

import pytest

from tests.api.command_line.commands import Run
from tests.engines import address_of
from tests.raw_sql import sql

SEAL = ("audit", "seal", "--reason", "the pepper was lost", "--yes")


@pytest.fixture
def lost(data_dir: Path, keyledger: Run) -> Path:
    """The folder of a ledger with two keys, whose pepper was lost."""
    for name in ("a", "b"):
        assert keyledger("keys", "create", "--name", name, "--scopes", "a:b").code == 0
    (data_dir / "pepper").write_bytes(token_bytes(32))
    return data_dir


def test_a_ledger_with_a_lost_pepper_is_refused_until_it_is_sealed_again(
    keyledger: Run, lost: Path
) -> None:
    refused = keyledger("keys", "list")
    assert refused.code == 1
    assert "the pepper of this machine is not that of the ledger" in refused.err
    assert "keyledger audit seal --reason" in refused.err

    sealed = keyledger(*SEAL, "--json")
    assert sealed.code == 0, sealed.err
    assert sealed.json["type"] == "AuditLog.Resealed"
    assert sealed.json["data"]["events"] == 2
    assert sealed.json["data"]["reason"] == "the pepper was lost"
    assert sql(address_of(lost), "SELECT count(*) FROM events WHERE seal IS NULL") == [(0,)]
    assert keyledger("keys", "list").code == 0
    verified = keyledger("audit", "verify")
    assert verified.code == 0, verified.out


def test_a_ledger_without_a_pepper_gets_a_new_one_only_when_it_is_sealed_again(
    keyledger: Run, lost: Path
) -> None:
    (lost / "pepper").unlink()
    refused = keyledger("keys", "create", "--name", "c", "--scopes", "a:b", "--json")
    assert (refused.code, refused.error["code"]) == (1, "OTHER_SECRET")
    assert not (lost / "pepper").exists()
    assert keyledger(*SEAL).code == 0
    assert keyledger("audit", "verify").code == 0


def test_a_ledger_with_findings_is_not_sealed(keyledger: Run, lost: Path) -> None:
    sql(address_of(lost), "UPDATE auth_lookup SET scopes = '[\"*\"]'")
    ended = keyledger(*SEAL)
    assert ended.code == 1
    assert "nothing was sealed" in ended.err
    assert "auth_lookup" in ended.err
    assert keyledger("keys", "list").code == 1


def test_a_forged_event_is_not_sealed_unless_the_pepper_is_lost(
    keyledger: Run, data_dir: Path
) -> None:
    for name in ("a", "b"):
        assert keyledger("keys", "create", "--name", name, "--scopes", "a:b").code == 0
    sql(address_of(data_dir), "UPDATE events SET seal = NULL WHERE id = 2")
    sql(address_of(data_dir), "DELETE FROM ledger_secret")
    ended = keyledger(*SEAL)
    assert ended.code == 1
    assert "1 event (position 2) without a valid seal" in ended.err
    assert sql(address_of(data_dir), "SELECT count(*) FROM events WHERE seal IS NULL") == [(1,)]


def test_a_sealing_without_a_prompt_reports_what_checkpoints_cover(
    keyledger: Run, lost: Path
) -> None:
    assert lost.exists()
    ended = keyledger(*SEAL)
    assert ended.code == 0
    assert "Signed checkpoints outside the database cover all events." in ended.err


def test_a_sealing_without_a_reason_or_a_confirmation_is_refused(
    keyledger: Run, lost: Path
) -> None:
    assert keyledger("audit", "seal", "--reason", "  ", "--yes").code == 2
    assert keyledger("audit", "seal", "--reason", "lost").code == 2
    assert "OTHER_SECRET" in keyledger("keys", "list", "--json").err
    assert lost.exists()


def test_a_ledger_whose_signing_key_is_lost_too_is_sealed_without_checkpoints(
    keyledger: Run, lost: Path
) -> None:
    (lost / "signing-key").unlink()
    refused = keyledger(*SEAL)
    assert refused.code == 1
    assert "use --without-checkpoints" in refused.err

    sealed = keyledger(*SEAL, "--without-checkpoints", "--json")
    assert sealed.code == 0, sealed.err
    assert sealed.json["data"]["events"] == 2
    assert sql(address_of(lost), "SELECT count(*) FROM events WHERE seal IS NULL") == [(0,)]
    assert keyledger("keys", "list").code == 0
    doubted = keyledger("keys", "create", "--name", "c", "--scopes", "a:b")
    assert doubted.code == 1
    assert "keyledger audit fork" in doubted.err

    forked = keyledger("audit", "fork", "--reason", "the signing key was lost", "--yes")
    assert forked.code == 0, forked.err
    assert keyledger("keys", "create", "--name", "c", "--scopes", "a:b").code == 0
    verified = keyledger("audit", "verify")
    assert verified.code == 0, verified.out


def test_a_log_that_differs_from_its_checkpoints_is_not_sealed_with_them(
    keyledger: Run, lost: Path
) -> None:
    for statement in (
        "DELETE FROM entries WHERE position = 2",
        "DELETE FROM events WHERE id = 2",
        "DELETE FROM key_list WHERE position = 2",
        "DELETE FROM auth_lookup WHERE position = 2",
        "DELETE FROM key_versions WHERE position = 2",
    ):
        sql(address_of(lost), statement)
    refused = keyledger(*SEAL)
    assert refused.code == 1
    assert keyledger("keys", "list").code == 1
