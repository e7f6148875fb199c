"""Key ids: one form, and one id for one request."""

import hashlib
from uuid import RFC_4122, UUID

import pytest
from hypothesis import example, given
from hypothesis.strategies import characters, lists, text, uuids

from domain.errors import KeyNotFound
from domain.key_ids import derived_uuid, to_key_id, to_uuid
from tests.domain.builders import PATIENT

ANY_TEXT = text(characters(codec=None, exclude_categories=()), max_size=8)
ID = "0f2a7b1c-93e4-4d5f-8a6b-7c8d9e0f1a2b"


@given(uuids())
@PATIENT
def test_a_key_id_leads_back_to_its_uuid(uuid: UUID) -> None:
    assert to_uuid(to_key_id(uuid)) == uuid


def test_a_key_id_is_written_like_this() -> None:
    assert to_key_id(UUID(ID)) == f"apikey_{ID}"


@pytest.mark.parametrize(
    "other_spelling",
    [
        "",
        "apikey_",
        ID,
        f"key_{ID}",
        f"APIKEY_{ID}",
        f"apikey_{ID.upper()}",
        f"apikey_{ID}\n",
        f" apikey_{ID}",
        f"apikey_{ID.replace('-', '')}",
        f"apikey_{{{ID}}}",
        f"apikey_urn:uuid:{ID}",
        f"apikey_{ID[:-1]}",
        f"apikey_{ID}0",
        f"apikey_{ID[:-1]}\N{FULLWIDTH DIGIT ONE}",
        f"apikey_{ID[:-1]}\N{ARABIC-INDIC DIGIT ONE}",
        f"apikey_{ID}\0",
        "apikey_\ud800",
        "' or 1=1 --",
    ],
)
def test_another_spelling_names_no_key(other_spelling: str) -> None:
    with pytest.raises(KeyNotFound):
        to_uuid(other_spelling)


def test_a_refusal_quotes_only_the_beginning_of_the_input() -> None:
    with pytest.raises(KeyNotFound) as refusal:
        to_uuid("x" * 100_000)

    assert len(str(refusal.value)) < 200


class TestDerivedUuid:
    def test_it_is_the_same_for_ever(self) -> None:
        # Ids in existing ledgers depend on this: the SHA-256 of the encoded parts, cut to a UUID of
        # version 8.
        digest = hashlib.sha256(b"7:request7:default").digest()

        derived = derived_uuid("request", "default")

        assert derived == UUID("505ae49a-cbf6-8612-869d-fd1be6ae66ce")
        assert derived.bytes[:6] == digest[:6]
        assert derived.bytes[9:] == digest[9:16]

    @given(lists(ANY_TEXT, max_size=5))
    @PATIENT
    def test_it_is_a_uuid_of_version_8(self, parts: list[str]) -> None:
        derived = derived_uuid(*parts)

        assert derived.variant == RFC_4122
        assert derived.version == 8
        assert derived == derived_uuid(*parts)

    @given(lists(ANY_TEXT, max_size=5), lists(ANY_TEXT, max_size=5))
    @example(["ab", "c"], ["a", "bc"])
    @example(["a", ""], ["a"])
    @example([""], [])
    @example(["1:a"], ["", "a"])
    @example(["a", "b"], ["b", "a"])
    @example(["\ud800"], ["?"])
    @example(["é"], ["e\u0301"])
    @PATIENT
    def test_different_texts_have_different_ids(self, one: list[str], other: list[str]) -> None:
        assert (derived_uuid(*one) == derived_uuid(*other)) == (one == other)
