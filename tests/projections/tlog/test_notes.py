"""Signed notes and checkpoints, compared with the specifications' examples and another reader."""

import base64
import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from projections.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from projections.tlog.notes import (
    MAX_SIGNATURES,
    SigningKey,
    VerifierKey,
    open_note,
    sign_note,
)
from tests.domain.builders import PATIENT

# The example of C2SP's signed-note.md.
SPECIFIED_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPECIFIED_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuw"
    "HjG1Yu72IneyaQM=\n"
)
# The example of Go's golang.org/x/mod/sumdb/note, which the specification describes.
GO_SIGNING_KEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_VERIFIER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE = (
    f"{GO_TEXT}\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6"
    "KE6RyyBwJnAM=\n"
)
# The example of C2SP's tlog-checkpoint.md is a real checkpoint under a changed name; this is it
# under its own, signed by Go's checksum database.
SUM_DATABASE_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
SUM_DATABASE_NOTE = (
    "go.sum database tree\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— sum.golang.org Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+z"
    "yWE+xeMcTOAYQ8=\n"
)
SPECIFIED_CHECKPOINT = Checkpoint(
    "example.com/behind-the-sofa",
    20852163,
    base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="),
)

ORIGIN = "ledger.example/audit"
KEY = SigningKey(ORIGIN, bytes(range(32)))
OTHER = SigningKey("witness.example", bytes(range(1, 33)))
ROOT = hashlib.sha256(b"root").digest()


def signed(text: str, *keys: SigningKey) -> str:
    """A note with several signatures."""
    return text + "\n" + "".join(sign_note(text, key)[len(text) + 1 :] for key in keys)


def text_that_another_reader_finds(note: str, vkey: str) -> str:
    """Open a note as the specification says, without any code of the ledger's."""
    key_name, hex_id, key = vkey.split("+", 2)
    typed_key = base64.standard_b64decode(key)
    assert hashlib.sha256(f"{key_name}\n".encode() + typed_key).hexdigest()[:8] == hex_id
    raw = note.encode()
    split = raw.rindex(b"\n\n")
    text, lines = raw[: split + 1], raw[split + 2 :].decode().splitlines()
    for line in lines:
        dash, name, encoded = line.split(" ")
        assert dash == "\u2014"
        signature = base64.standard_b64decode(encoded)
        if name == key_name and signature[:4].hex() == hex_id:
            Ed25519PublicKey.from_public_bytes(typed_key[1:]).verify(signature[4:], text)
            return text.decode()
    raise InvalidSignature


class TestSpecification:
    @pytest.mark.parametrize(
        ("note", "key", "text"),
        [
            (SPECIFIED_NOTE, SPECIFIED_KEY, "This is an example message.\n"),
            (GO_NOTE, GO_VERIFIER_KEY, GO_TEXT),
            (SUM_DATABASE_NOTE, SUM_DATABASE_KEY, SUM_DATABASE_NOTE.partition("\n\n")[0] + "\n"),
        ],
    )
    def test_its_examples_open(self, note: str, key: str, text: str) -> None:
        verifier_key = VerifierKey.from_text(key)

        assert open_note(note, [verifier_key]) == (text, frozenset({verifier_key}))
        assert str(verifier_key) == key
        assert text_that_another_reader_finds(note, key) == text

    def test_gos_key_signs_to_the_same_note(self) -> None:
        key = SigningKey.from_text(GO_SIGNING_KEY)

        assert sign_note(GO_TEXT, key) == GO_NOTE
        assert str(key.verifier_key) == GO_VERIFIER_KEY
        assert key.reveal() == GO_SIGNING_KEY

    def test_its_checkpoint_reads_and_writes_the_same(self) -> None:
        text = "\n".join(["example.com/behind-the-sofa", *SUM_DATABASE_NOTE.split("\n")[1:3], ""])

        assert Checkpoint.from_text(text) == SPECIFIED_CHECKPOINT
        assert str(SPECIFIED_CHECKPOINT) == text


lines = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[chr(at) for at in range(32)]),
    max_size=20,
)


@PATIENT
@given(st.lists(lines, min_size=1, max_size=5))
def test_only_committed_entries_are_signed(parts: list[str]) -> None:
    text = "\n".join(parts) + "\n"

    note = sign_note(text, KEY)

    assert open_note(note, [KEY.verifier_key])[0] == text
    assert text_that_another_reader_finds(note, str(KEY.verifier_key)) == text


def test_a_signing_key_shows_its_seed_on_request_only() -> None:
    assert KEY.seed.hex() not in repr(KEY)
    assert "seed" not in repr(KEY)
    assert SigningKey.from_text(KEY.reveal()) == KEY


@pytest.mark.parametrize(
    "misprint",
    [
        KEY.reveal()[:-5],
        KEY.reveal().replace("+AQA", "+AQB"),
        KEY.reveal().removeprefix("PRIVATE+KEY+"),
        KEY.reveal() + "\n",
        "",
    ],
)
def test_a_misprinted_signing_key_is_refused_without_repeating_it(misprint: str) -> None:
    with pytest.raises(ValueError, match=r"key|base64") as refused:
        SigningKey.from_text(misprint)

    assert misprint[-20:] not in str(refused.value) or not misprint
    assert KEY.reveal()[-30:-5] not in str(refused.value)


@pytest.mark.parametrize(
    "misprint",
    [
        SPECIFIED_KEY.replace("foo", "bar"),
        SPECIFIED_KEY.replace("530d903a", "530d903b"),
        SPECIFIED_KEY.replace("530d903a", "530D903A"),
        SPECIFIED_KEY.replace("Aeky", "Beky"),
        SPECIFIED_KEY.replace("example.com/foo", ""),
        SPECIFIED_KEY.replace("example.com", "example com"),
        SPECIFIED_KEY[:-1],
        SPECIFIED_KEY + "\n",
        SPECIFIED_KEY + "=",
        f" {SPECIFIED_KEY}",
        "example.com/foo",
        "",
    ],
)
def test_a_misprinted_public_key_is_refused(misprint: str) -> None:
    with pytest.raises(ValueError, match=r"key|base64"):
        VerifierKey.from_text(misprint)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\u2028b", "a\x01b", "\ud800"])
def test_a_name_that_a_note_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"name of a key|a note"):
        SigningKey(name, bytes(32))
    with pytest.raises(ValueError, match=r"name of a key|a note"):
        VerifierKey(name, bytes(32))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey("a", bytes(length))
    with pytest.raises(ValueError, match="32 bytes"):
        VerifierKey("a", bytes(length))


class TestOpening:
    def test_signatures_by_other_keys_are_ignored(self) -> None:
        note = signed("text\n", OTHER, KEY)

        assert open_note(note, [KEY.verifier_key]) == ("text\n", frozenset({KEY.verifier_key}))
        assert open_note(note, [KEY.verifier_key, OTHER.verifier_key])[1] == {
            KEY.verifier_key,
            OTHER.verifier_key,
        }

    def test_another_key_of_the_same_name_is_another(self) -> None:
        namesake = SigningKey(ORIGIN, bytes(32))

        assert open_note(signed("text\n", namesake, KEY), [KEY.verifier_key])[0] == "text\n"
        with pytest.raises(ValueError, match=r"and not by ledger\.example/audit"):
            open_note(signed("text\n", namesake), [KEY.verifier_key])

    def test_a_wrong_signature_of_a_known_key_is_refused_even_beside_a_right_one(self) -> None:
        wrong = sign_note("another text\n", OTHER).rpartition("\n\n")[2]

        with pytest.raises(ValueError, match=r"witness\.example is invalid"):
            open_note(sign_note("text\n", KEY) + wrong, [KEY.verifier_key, OTHER.verifier_key])

    def test_a_note_that_no_known_key_signed_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"signed by witness\.example\+.*, and not by ledger"):
            open_note(sign_note("text\n", OTHER), [KEY.verifier_key])

    def test_the_text_ends_at_the_last_empty_line(self) -> None:
        assert (
            open_note(sign_note("one\n\ntwo\n\n", KEY), [KEY.verifier_key])[0] == "one\n\ntwo\n\n"
        )

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda note: note[:-1],
            lambda note: note + "\n",
            lambda note: note + "more\n",
            lambda note: note.replace("— ", "- "),
            lambda note: note.replace("— ", "—  "),
            lambda note: note.replace("\n\n", "\n"),
            lambda note: note.replace("=\n", "\n"),
            lambda note: note.replace("text\n", "text\r\n"),
            lambda note: note.replace("text\n", "t\text\n"),
            lambda note: note.replace("— ledger.example/audit", "— "),
            lambda note: note.replace(" ledger.example/audit", " ledger.example/audit+"),
            lambda note: note.rpartition(" ")[0] + " AAAA\n",
            lambda note: note.rpartition(" ")[0] + "\n",
            lambda _: "",
            lambda _: "\n\n",
            lambda _: "text\n\n",
            lambda _: "\ud800\n\n",
        ],
    )
    def test_a_malformed_note_is_refused(self, spoil: object) -> None:
        assert callable(spoil)
        with pytest.raises(ValueError, match=r"note|signature|base64|name of a key"):
            open_note(spoil(sign_note("text\n", KEY)), [KEY.verifier_key])

    def test_base64_has_one_spelling(self) -> None:
        note = sign_note("text\n", KEY)
        last = note[-3]  # 68 bytes in base64: the last digit before "=" carries two spare bits
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        twin = alphabet[alphabet.index(last) + 1]
        assert base64.b64decode(f"AAA{twin}"[1:] + "=") == base64.b64decode(f"AA{last}=")

        with pytest.raises(ValueError, match="not base64"):
            open_note(note[:-3] + twin + "=\n", [KEY.verifier_key])

    @pytest.mark.parametrize("signature", ["AAAA", "AAAAAA=="])
    def test_a_signature_of_a_key_id_alone_is_refused(self, signature: str) -> None:
        note = sign_note("text\n", KEY)

        with pytest.raises(ValueError, match="no bytes after its key id"):
            open_note(f"{note}— other.example {signature}\n", [KEY.verifier_key])

    def test_a_flood_of_signatures_is_refused(self) -> None:
        line = sign_note("text\n", OTHER).rpartition("\n\n")[2]
        note = sign_note("text\n", KEY)

        assert open_note(note + line * (MAX_SIGNATURES - 1), [KEY.verifier_key])[0] == "text\n"
        with pytest.raises(ValueError, match=f"at most {MAX_SIGNATURES} signatures"):
            open_note(note + line * MAX_SIGNATURES, [KEY.verifier_key])


@pytest.mark.parametrize("text", ["", "text", "te\x00xt\n", "te\rxt\n"])
def test_a_text_that_a_note_cannot_hold_is_not_signed(text: str) -> None:
    with pytest.raises(ValueError, match="a note"):
        sign_note(text, KEY)


class TestCheckpoint:
    def test_it_is_signed_by_its_log(self) -> None:
        checkpoint = Checkpoint(ORIGIN, 3, ROOT, ("time 7", "more"))

        note = sign_checkpoint(checkpoint, KEY)

        assert open_checkpoint(note, [KEY.verifier_key]) == checkpoint
        assert text_that_another_reader_finds(note, str(KEY.verifier_key)) == str(checkpoint)

    def test_no_log_signs_for_another(self) -> None:
        with pytest.raises(ValueError, match="does not sign for"):
            sign_checkpoint(Checkpoint("elsewhere.example", 3, ROOT), KEY)

    def test_a_witness_signature_alone_is_not_enough(self) -> None:
        text = str(Checkpoint(ORIGIN, 3, ROOT))
        keys = [KEY.verifier_key, OTHER.verifier_key]

        assert open_checkpoint(signed(text, OTHER, KEY), keys).size == 3
        with pytest.raises(ValueError, match=r"only witness\.example signed"):
            open_checkpoint(signed(text, OTHER), keys)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\n",
            f"{ORIGIN}\n3\n",
            f"{ORIGIN}\n3\n{base64.b64encode(ROOT).decode()}",
            f"{ORIGIN}\n03\n{base64.b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n-3\n{base64.b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n+3\n{base64.b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n\u0663\n{base64.b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n3 \n{base64.b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n3\n{base64.b64encode(ROOT[1:]).decode()}\n",
            f"{ORIGIN}\n3\n{base64.b64encode(ROOT).decode()[:-1]}\n",
            f"{ORIGIN}\n3\n{ROOT.hex()}\n",
            f"\n3\n{base64.b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n3\n{base64.b64encode(ROOT).decode()}\n\n",
            f"{ORIGIN}\n3\n{base64.b64encode(ROOT).decode()}\n\nmore\n",
        ],
    )
    def test_a_malformed_checkpoint_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"of a checkpoint|a checkpoint has"):
            Checkpoint.from_text(text)

    @pytest.mark.parametrize(
        "checkpoint",
        [
            Checkpoint("", 3, ROOT),
            Checkpoint("two\nlines", 3, ROOT),
            Checkpoint(ORIGIN, -1, ROOT),
            Checkpoint(ORIGIN, 3, ROOT[1:]),
            Checkpoint(ORIGIN, 3, ROOT, ("two\nlines",)),
            Checkpoint(ORIGIN, 3, ROOT, ("",)),
        ],
    )
    def test_a_note_that_could_not_be_read_back_is_not_written(
        self, checkpoint: Checkpoint
    ) -> None:
        with pytest.raises(ValueError, match="checkpoint"):
            str(checkpoint)
