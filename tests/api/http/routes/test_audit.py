"""Audit endpoints: checkpoint, proofs and tiles, verified by code that is not ours."""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from projections.store.locks import task_lock
from tests.api import rfc_9162
from tests.api.checkpoints import sign_a_checkpoint
from tests.api.served import UNKNOWN_KEY_ID, Api, Json, Key, NewLedger, invalid, refused, served
from tests.conftest import SettableClock
from tests.engines import settings_of
from tests.raw_sql import sql
from tests.system.ledgers import make_keys
from tests.system.processes import eventually

ENTRIES = 300
HOUR = 3600


@pytest.fixture(scope="module")
def grown(new_ledger: NewLedger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An app whose tree fills one tile and starts another."""
    folder = new_ledger.copied_to(tmp_path_factory.mktemp("grown") / "keyledger-data")
    make_keys(folder, [f"key {number}" for number in range(100)], renamings=2)
    settings = settings_of(folder, expirer_seconds=HOUR)
    with served(settings, new_ledger.root, SettableClock()) as api:
        sign_a_checkpoint(api)
        yield api


@pytest.fixture(scope="module")
def entries(grown: Api) -> list[bytes]:
    """All entries, from the bundles."""
    full, partial = (tile(grown, path) for path in ("entries/000", "entries/001.p/45"))
    found = [*unbundled(full), *unbundled(partial)]
    assert len(found) == 301
    return found


def tile(api: Api, path: str) -> bytes:
    answer = api.get(f"/v1/log/tile/{path}")
    assert answer.status_code == 200, answer.text
    return answer.content


def unbundled(bundle: bytes) -> Iterator[bytes]:
    while bundle:
        length = int.from_bytes(bundle[:2])
        yield bundle[2 : 2 + length]
        bundle = bundle[2 + length :]


def ask(api: Api, path: str, by: Key | None = None, **query: object) -> Json:
    answer = api.get(path, by=by or api.root, params=query)
    assert answer.status_code == 200, answer.text
    document: Json = answer.json()
    return document


def decoded(hashes: list[str]) -> list[bytes]:
    return [b64decode(each, validate=True) for each in hashes]


class TestCheckpoint:
    def test_there_is_none_before_one_was_signed(self, api: Api) -> None:
        sign_a_checkpoint(api)
        database = api.app.state.ledger.database
        with ExitStack() as unsigned:
            # The app would sign a checkpoint immediately.
            eventually(
                lambda: unsigned.enter_context(task_lock(database, "signing")),
                "nobody signs",
            )
            sql(database.url, "DELETE FROM checkpoints")
            for path in ("/v1/checkpoint", "/v1/log/checkpoint"):
                refused(api.get(path), 404, "NO_CHECKPOINT")

    @pytest.mark.parametrize("path", ["/v1/checkpoint", "/v1/log/checkpoint"])
    def test_it_is_a_note_with_the_size_and_the_root_signed_by_the_log(
        self, grown: Api, entries: list[bytes], path: str
    ) -> None:
        answer = grown.get(path)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        text, _, signatures = answer.text.partition("\n\n")
        origin, size, root = text.split("\n")
        assert int(size) == len(entries)
        assert b64decode(root) == rfc_9162.mth(entries)
        [(dash, name, signature)] = [line.split(" ") for line in signatures.splitlines()]
        assert (dash, name) == ("—", origin)
        public_key = grown.app.state.ledger.signer.key.verifier_key.public_key
        key_id, signed = b64decode(signature)[:4], b64decode(signature)[4:]
        assert key_id == sha256(name.encode() + b"\n\x01" + public_key).digest()[:4]
        Ed25519PublicKey.from_public_bytes(public_key).verify(signed, text.encode() + b"\n")

    def test_auditors_of_all_workspaces_get_the_same_answer(self, grown: Api) -> None:
        auditor = grown.make("audit:read", workspace="acme")
        sign_a_checkpoint(grown)
        assert grown.get("/v1/checkpoint", by=auditor).text == grown.get("/v1/checkpoint").text


class TestInclusion:
    PATH = "/v1/proofs/inclusion"

    def test_proofs_are_those_of_the_standard(self, grown: Api, entries: list[bytes]) -> None:
        for size in (1, 2, 3, 7, 8, 255, 256, 257, 300, 301):
            root = rfc_9162.mth(entries[:size])
            for leaf_index in {0, 1, size // 2, size - 2, size - 1} & {*range(size)}:
                proof = ask(grown, self.PATH, leaf_index=leaf_index, size=size)
                assert (proof["leaf_index"], proof["size"]) == (leaf_index, size)
                assert b64decode(proof["leaf_hash"]) == rfc_9162.mth([entries[leaf_index]])
                assert b64decode(proof["root"]) == root
                assert decoded(proof["hashes"]) == rfc_9162.path(leaf_index, entries[:size])

    def test_an_entry_can_be_named_in_three_ways(self, grown: Api) -> None:
        for event in grown.get("/v1/events?workspace=*&limit=20&after=30").json()["data"]:
            by_leaf = ask(grown, self.PATH, leaf_index=event["leaf_index"])
            names: tuple[Json, ...] = (
                {"position": event["position"]},
                {"key_id": event["key_id"], "version": event["version"]},
            )
            for name in names:
                assert ask(grown, self.PATH, workspace="*", **name) == by_leaf

    def test_the_size_is_the_latest_checkpoints_if_that_has_the_entry(self, grown: Api) -> None:
        signed = sign_a_checkpoint(grown).size
        assert ask(grown, self.PATH, leaf_index=signed - 1)["size"] == signed
        grown.make()
        assert ask(grown, self.PATH, leaf_index=0)["size"] in (signed, signed + 1)
        assert ask(grown, self.PATH, leaf_index=signed)["size"] == signed + 1

    @pytest.mark.parametrize(
        "query",
        [
            "", "leaf_index=0&position=1", f"key_id={UNKNOWN_KEY_ID}", "version=1",
            "position=1&version=1", "leaf_index=99999", "leaf_index=5&size=5",
        ],
    )  # fmt: skip
    def test_no_name_two_names_and_names_of_nothing(self, grown: Api, query: str) -> None:
        invalid(grown.get(f"{self.PATH}?{query}"), "leaf_index")

    @pytest.mark.parametrize("size", ["-1", "99999", "9223372036854775808", "x"])
    def test_a_size_that_the_tree_never_had(self, grown: Api, size: str) -> None:
        invalid(grown.get(f"{self.PATH}?leaf_index=0&size={size}"), "size")

    @pytest.mark.parametrize("query", ["position=99999", f"key_id={UNKNOWN_KEY_ID}&version=1"])
    def test_an_unknown_event(self, grown: Api, query: str) -> None:
        refused(grown.get(f"{self.PATH}?{query}"), 404, "ENTRY_NOT_FOUND")

    def test_another_workspaces_entry_is_hidden_except_its_hash(self, grown: Api) -> None:
        auditor = grown.make("audit:read", workspace="acme")
        event = grown.get("/v1/events?workspace=default&limit=1").json()["data"][0]
        for query in (
            {"position": event["position"]},
            {"key_id": event["key_id"], "version": 1},
        ):
            answer = grown.get(self.PATH, by=auditor, params=query)
            refused(answer, 404, "ENTRY_NOT_FOUND")
        answered = ask(grown, self.PATH, by=auditor, leaf_index=event["leaf_index"])
        assert set(answered) == {"leaf_index", "leaf_hash", "size", "root", "hashes"}
        own: Json = {"key_id": auditor.key_id, "version": 1}
        assert ask(grown, self.PATH, by=auditor, **own)["leaf_index"] > event["leaf_index"]


class TestConsistency:
    PATH = "/v1/proofs/consistency"

    def test_proofs_are_those_of_the_standard(self, grown: Api, entries: list[bytes]) -> None:
        for size in (1, 2, 6, 8, 255, 256, 257, 301):
            for old_size in {0, 1, 2, 3, size // 2, size - 1, size} & {*range(size + 1)}:
                sizes: Json = {"from": old_size, "to": size}
                proof = ask(grown, self.PATH, **sizes)
                assert (proof["old_size"], proof["size"]) == (old_size, size)
                assert b64decode(proof["old_root"]) == rfc_9162.mth(entries[:old_size])
                assert b64decode(proof["root"]) == rfc_9162.mth(entries[:size])
                expected = rfc_9162.proof(old_size, entries[:size]) if old_size else []
                assert decoded(proof["hashes"]) == expected

    def test_the_larger_size_is_the_latest_checkpoints(self, grown: Api) -> None:
        signed = sign_a_checkpoint(grown)
        sizes: Json = {"from": 1}
        proof = ask(grown, self.PATH, **sizes)
        assert (proof["size"], b64decode(proof["root"])) == (signed.size, signed.root)

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("", "from"), ("from=-1", "from"), ("from=x", "from"), ("from=99999", "from"),
            ("from=5&to=4", "from"), ("from=1&to=99999", "to"), ("from=1&to=-1", "to"),
            ("old_size=1&from=1", "old_size"),
        ],
    )  # fmt: skip
    def test_sizes_that_the_tree_never_had(self, grown: Api, query: str, field: str) -> None:
        invalid(grown.get(f"{self.PATH}?{query}"), field)


class TestTiles:
    def test_the_root_follows_from_the_tiles(self, grown: Api, entries: list[bytes]) -> None:
        level_0 = tile(grown, "0/000") + tile(grown, "0/001.p/45")
        hashes = [level_0[at : at + 32] for at in range(0, len(level_0), 32)]
        assert hashes == [sha256(b"\x00" + entry).digest() for entry in entries]
        # The hash of the one full tile is all that level 1 has.
        assert tile(grown, "1/000.p/1") == rfc_9162.mth(entries[:256])
        right = rfc_9162.mth(entries[256:])
        assert sha256(b"\x01" + tile(grown, "1/000.p/1") + right).digest() == rfc_9162.mth(entries)

    @pytest.mark.parametrize("path", ["0/000", "0/001.p/45", "entries/000", "1/000.p/1"])
    def test_static_files_are_cacheable_for_ever(self, grown: Api, path: str) -> None:
        answer = grown.get(f"/v1/log/tile/{path}")
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"

    @pytest.mark.parametrize(
        "path",
        [
            "0/002", "0/001.p/255", "entries/001", "entries/002.p/1", "1/000", "2/000.p/1",
            "0/000.p/0", "0/000.p/256", "0/0", "0/x000/000", "x/000", "64/000", "", "0/%00",
            "..%2Fcheckpoint",
        ],
    )  # fmt: skip
    def test_a_tile_that_the_tree_does_not_have(self, grown: Api, path: str) -> None:
        answer = grown.get(f"/v1/log/tile/{path}")
        refused(answer, 404, "TILE_NOT_FOUND")
        assert answer.headers["Cache-Control"] == "no-store"

    @pytest.mark.parametrize("path", ["/v1/log/checkpoint", "/v1/log/tile/entries/000"])
    def test_they_contain_all_workspaces_and_need_root(self, grown: Api, path: str) -> None:
        refused(grown.get(path, by=grown.admin()), 403, "WORKSPACE_FORBIDDEN")
