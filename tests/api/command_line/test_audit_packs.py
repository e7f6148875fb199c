"""``keyledger audit export`` and ``verify-pack``, and replaying from either."""

import os
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.api.command_line.commands import Run
from tests.engines import address_of, fresh_copy
from tests.projections.ledgers import keys_in
from tests.raw_sql import sql


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return tmp_path / "pack.zip"


@pytest.fixture(scope="module")
def used_ledger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A ledger with three events, each of them signed, and its key."""
    folder = tmp_path_factory.mktemp("used_ledger") / "keyledger-data"
    with keys_in(folder) as keys:
        key_id = keys.create("payments-api").key_id
        keys.opened.signer.sign()
        keys.rename(key_id, "=renamed")
        keys.opened.signer.sign()
        keys.revoke(key_id, reason="leaked")
        keys.opened.signer.sign()
    return folder, key_id


@pytest.fixture
def data_dir(used_ledger: tuple[Path, str], tmp_path: Path) -> Path:
    return fresh_copy(used_ledger[0], tmp_path / "keyledger-data")


@pytest.fixture
def key_id(used_ledger: tuple[Path, str]) -> str:
    return used_ledger[1]


@pytest.fixture
def exported(keyledger: Run, pack: Path) -> dict[str, Any]:
    ended = keyledger("audit", "export", str(pack), "--json")
    assert ended.code == 0, ended.err
    document: dict[str, Any] = ended.json
    return document


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An auditor's machine without a ledger."""
    folder = tmp_path / "auditor"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KEYLEDGER_DATA_DIR", str(folder / "no-ledger"))
    return folder


class TestExport:
    def test_it_says_what_is_in_the_pack(
        self, exported: dict[str, Any], pack: Path, keyledger: Run
    ) -> None:
        assert list(exported) == ["pack", "origin", "entries", "root", "public_key"]
        assert (exported["pack"], exported["entries"]) == (str(pack), 3)
        assert exported["public_key"].startswith(f"{exported['origin']}+")
        assert pack.stat().st_mode & 0o777 == 0o600
        people = keyledger("audit", "export", str(pack.with_name("again.zip")))
        assert "again.zip: 3 entries" in people.out
        assert exported["public_key"] in people.out
        assert pack.with_name("again.zip").read_bytes() == pack.read_bytes()

    def test_reports_go_with_it(self, exported: dict[str, Any], key_id: str, pack: Path) -> None:
        assert exported
        with ZipFile(pack) as archive:
            reports = [name for name in archive.namelist() if name.startswith("reports/")]
            keys = archive.read("reports/keys.csv").decode()
        assert reports == [
            "reports/keys.csv",
            "reports/review-expiring.csv",
            "reports/review-full-access.csv",
            "reports/review-never-used.csv",
            "reports/review-no-expiry.csv",
            "reports/review-rotated-late.csv",
            "reports/review-unused.csv",
        ]
        assert key_id in keys
        assert "'=renamed" in keys
        assert "revoked" in keys

    def test_an_existing_file_is_kept(
        self, exported: dict[str, Any], pack: Path, keyledger: Run
    ) -> None:
        assert exported
        before = pack.read_bytes()
        ended = keyledger("audit", "export", str(pack), "--json")
        assert (ended.code, ended.error["code"]) == (1, "FILE_EXISTS")
        assert pack.read_bytes() == before

    def test_of_a_log_in_doubt_no_pack_is_made(
        self, exported: dict[str, Any], pack: Path, keyledger: Run, data_dir: Path
    ) -> None:
        assert exported
        sql(address_of(data_dir), "DELETE FROM entries WHERE leaf_index = 2")
        other = pack.with_name("other.zip")
        ended = keyledger("audit", "export", str(other), "--json")
        assert (ended.code, ended.error["code"]) == (1, "HISTORY_IN_DOUBT")
        assert list(pack.parent.glob("*other*")) == []

    def test_of_changed_entries_no_pack_is_made(
        self, exported: dict[str, Any], pack: Path, keyledger: Run, data_dir: Path
    ) -> None:
        assert exported
        sql(address_of(data_dir), "UPDATE entries SET entry = X'7B7D' WHERE leaf_index = 1")
        other = pack.with_name("other.zip")
        ended = keyledger("audit", "export", str(other))
        assert ended.code == 1
        assert "run: keyledger audit verify" in ended.err
        assert list(pack.parent.glob("*other*")) == []

    @pytest.mark.parametrize("position", range(1, 4))
    def test_after_the_last_event_of_a_key_was_deleted_no_pack_is_made(
        self, pack: Path, keyledger: Run, data_dir: Path, position: int
    ) -> None:
        sql(address_of(data_dir), "DELETE FROM events WHERE id = ?", position)
        ended = keyledger("audit", "export", str(pack), "--json")
        if position < 3:
            # The reports need only the last event of a key, and the log its entries.
            assert ended.code == 0
            return
        assert (ended.code, ended.error["code"]) == (1, "DAMAGED_HISTORY")
        assert "keyledger audit verify" in ended.error["detail"]
        assert list(pack.parent.glob("*.zip*")) == []

    @pytest.mark.parametrize("which", ["newest", "first", "between"])
    def test_a_checkpoint_that_was_replaced_by_another_is_in_no_pack(
        self, pack: Path, keyledger: Run, data_dir: Path, which: str
    ) -> None:
        address = address_of(data_dir)
        sizes = [size for (size,) in sql(address, "SELECT size FROM checkpoints ORDER BY size")]
        assert len(sizes) > 2
        place, source = {
            "newest": (sizes[-1], sizes[0]),
            "first": (sizes[0], sizes[-1]),
            "between": (sizes[1], sizes[0]),
        }[which]
        replacement = "(SELECT note FROM checkpoints WHERE size = ?)"
        sql(address, f"UPDATE checkpoints SET note = {replacement} WHERE size = ?", source, place)  # noqa: S608
        ended = keyledger("audit", "export", str(pack), "--json")
        assert (ended.code, ended.error["code"]) == (1, "HISTORY_IN_DOUBT")
        assert f"checkpoint at {place} entries was replaced" in ended.error["detail"]
        assert list(pack.parent.glob("*.zip*")) == []


class TestVerifyPack:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, exported: dict[str, Any], elsewhere: Path) -> None:
        assert exported
        assert elsewhere.is_dir()

    def test_a_valid_pack_exits_with_0_without_a_ledger(
        self, exported: dict[str, Any], pack: Path, keyledger: Run, elsewhere: Path
    ) -> None:
        people = keyledger(
            "audit", "verify-pack", str(pack), "--public-key", exported["public_key"]
        )
        assert people.code == 0
        assert f"{exported['origin']}: 3 entries of 1 key, 3 checkpoints: sound" in people.out
        assert "Without an earlier checkpoint (--previous)" in people.out
        assert list(elsewhere.iterdir()) == []

    def test_key_and_checkpoints_may_be_files(
        self, exported: dict[str, Any], pack: Path, keyledger: Run, elsewhere: Path
    ) -> None:
        (elsewhere / "key.txt").write_text(f"{exported['public_key']}\n")
        with ZipFile(pack) as archive:
            (elsewhere / "kept.txt").write_bytes(archive.read("checkpoints.txt"))
        ended = keyledger(
            "audit", "verify-pack", str(pack), "--public-key", "key.txt", "--previous", "kept.txt",
            "--json",
        )  # fmt: skip
        assert (ended.code, ended.err) == (0, "")
        assert ended.json == {
            "sound": True, "origin": exported["origin"], "entries": 3, "keys": 1, "checkpoints": 3,
            "root": exported["root"], "findings": [], "not_listed": 0,
        }  # fmt: skip

    def test_findings_are_listed_and_exit_with_1(
        self, exported: dict[str, Any], pack: Path, keyledger: Run
    ) -> None:
        pack.write_bytes(pack.read_bytes().replace(b'"leaked"', b'"normal"'))
        command = ("audit", "verify-pack", str(pack), "--public-key", exported["public_key"])
        people, programs = keyledger(*command), keyledger(*command, "--json")
        assert (people.code, programs.code) == (1, 1)
        assert (
            "at least one of entries 2 to 2 was changed or moved after it was signed" in people.out
        )
        assert programs.json["sound"] is False
        assert programs.json["findings"][0]["where"] == "checkpoint 3 in the pack"

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"--public-key": "nonsense"}, "--public-key: a public key is one line"),
            ({"--public-key": "binary"}, "--public-key: binary is not UTF-8 text"),
            ({"--public-key": "empty"}, "--public-key: in empty: a public key is one line"),
            ({"--previous": "empty"}, "--previous: the previous checkpoint cannot be used"),
            ({"--previous": "binary"}, "--previous: binary is not UTF-8 text"),
        ],
    )
    def test_invalid_options_are_reported(
        self,
        exported: dict[str, Any],
        pack: Path,
        keyledger: Run,
        given: dict[str, str],
        said: str,
    ) -> None:
        Path("empty").touch()
        Path("binary").write_bytes(b"\xff")
        options = {"--public-key": exported["public_key"]} | given
        arguments = [part for option in options.items() for part in option]
        ended = keyledger("audit", "verify-pack", str(pack), *arguments)
        assert ended.code == 2
        assert said in ended.err

    def test_a_missing_pack_is_reported(self, exported: dict[str, Any], keyledger: Run) -> None:
        ended = keyledger(
            "audit", "verify-pack", "gone.zip", "--public-key", exported["public_key"]
        )
        assert ended.code == 1
        assert f"{os.strerror(2)}: gone.zip" in ended.err


class TestReplay:
    def test_it_shows_the_key_after_each_event(
        self, exported: dict[str, Any], key_id: str, keyledger: Run
    ) -> None:
        assert exported
        people = keyledger("audit", "replay", key_id)
        assert people.code == 0
        created, renamed, revoked = people.out.splitlines()[1:]
        assert "Created" in created
        assert "payments-api" in created
        assert "active" in renamed
        assert "=renamed" in renamed
        assert "revoked" in revoked
        steps = keyledger("audit", "replay", key_id, "--json").json["data"]
        assert [step["event"]["position"] for step in steps] == [1, 2, 3]
        assert [step["key"]["version"] for step in steps] == [1, 2, 3]
        shown = keyledger("keys", "show", key_id, "--json").json
        assert steps[-1]["key"] == shown

    def test_a_pack_replays_the_same_history_without_a_ledger(
        self, exported: dict[str, Any], key_id: str, pack: Path, keyledger: Run, elsewhere: Path
    ) -> None:
        command = ("audit", "replay", key_id, "--pack", str(pack))
        told = keyledger(*command, "--json").json["data"]
        assert [moment["event"].pop("leaf_index") for moment in told] == [0, 1, 2]
        people = keyledger(*command)
        assert people.out.count("=renamed") == 2
        assert "keyledger audit verify-pack" in people.err
        assert list(elsewhere.iterdir()) == []
        data_dir = Path(exported["pack"]).with_name("keyledger-data")
        there = keyledger("audit", "replay", key_id, "--data-dir", str(data_dir), "--json").json
        for moment in there["data"]:
            del moment["event"]["position"]
        assert there["data"] == told

    def test_a_missing_key_is_reported(
        self, exported: dict[str, Any], pack: Path, keyledger: Run
    ) -> None:
        assert exported
        nobody = "apikey_00000000-0000-8000-8000-000000000000"
        for arguments in ([], ["--pack", str(pack)]):
            for key_id in (nobody, "nonsense"):
                ended = keyledger("audit", "replay", key_id, *arguments, "--json")
                assert (ended.code, ended.error["code"]) == (1, "KEY_NOT_FOUND")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda _: b"no pack", "is not an audit pack: File is not a zip file"),
            (lambda content: content.replace(b"=renamed", b"=another"), "Bad CRC-32"),
        ],
    )
    def test_a_file_that_is_not_a_pack_is_reported(  # noqa: PLR0917 - fixtures
        self,
        exported: dict[str, Any],
        pack: Path,
        key_id: str,
        keyledger: Run,
        change: Any,  # noqa: ANN401 - a function
        said: str,
    ) -> None:
        assert exported
        pack.write_bytes(change(pack.read_bytes()))
        ended = keyledger("audit", "replay", key_id, "--pack", str(pack))
        assert ended.code == 2
        assert said in ended.err
