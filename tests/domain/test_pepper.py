"""Peppers and digests."""

import hmac

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from domain.pepper import Mac, Pepper, same_digest

PEPPER = Pepper(bytes(range(32)))


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_pepper_of_another_length_than_32_bytes_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"32 bytes; this one has {length}$"):
        Pepper(bytes(length))


# RFC 4231, sections 4.2 and 4.3.
@pytest.mark.parametrize(
    ("key", "text", "digest"),
    [
        (
            b"\x0b" * 20,
            "Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe",
            "what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
    ],
)
def test_a_mac_is_the_hmac_of_the_rfc(key: bytes, text: str, digest: str) -> None:
    assert Mac(key).of(text.encode()).hex() == digest


@given(pepper=st.binary(min_size=32, max_size=32), label=st.text())
def test_a_derived_key_is_that_of_another_implementation_of_hkdf(pepper: bytes, label: str) -> None:
    hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=label.encode())
    assert Pepper(pepper).derived(label) == hkdf.derive(pepper)


def test_another_label_gives_another_key() -> None:
    assert PEPPER.derived("one") != PEPPER.derived("other")


def test_another_pepper_or_another_lookup_id_gives_another_digest() -> None:
    other = Pepper(bytes(32))
    digests = {
        each.digest(lookup_id * 16, "secret") for each in (PEPPER, other) for lookup_id in "ab"
    }

    assert len(digests) == 4
    assert other.pepper_id != PEPPER.pepper_id


def test_the_id_of_a_pepper_is_the_same_for_ever() -> None:
    assert PEPPER.pepper_id == "f980b45bfde7493b"


def test_digests_without_a_lookup_id_are_under_another_id() -> None:
    # These are ids from when a digest covered only the secret.
    assert PEPPER.pepper_id != "281da1a938475416"


def test_the_id_and_the_repr_reveal_nothing_of_the_pepper() -> None:
    pepper = Pepper(b"0123456789abcdef0123456789ABCDEF")

    shown = f"{pepper!r} {pepper} {pepper.pepper_id}"

    assert "0123456789abcdef" not in shown
    assert pepper.value.hex()[:16] not in shown
    # The digest of an empty text does not reveal the id either.
    assert pepper.digest("", "").hex()[:16] != pepper.pepper_id


def test_only_the_same_digest_is_the_same() -> None:
    digest = PEPPER.digest("a" * 16, "secret")

    assert same_digest(digest, bytes(digest))
    assert not same_digest(digest, digest[:-1] + bytes([digest[-1] ^ 1]))
    assert not same_digest(digest, digest[:-1])


def test_digests_are_not_compared_byte_by_byte_until_one_differs() -> None:
    class NeverEqual(bytes):
        __hash__ = bytes.__hash__

        def __eq__(self, _other: object) -> bool:
            pytest.fail("this takes longer the more bytes are right")

    digest = PEPPER.digest("a" * 16, "secret")
    assert same_digest(NeverEqual(digest), NeverEqual(digest))


@given(pepper=st.binary(min_size=32, max_size=32), secret=st.text(st.characters(max_codepoint=127)))
def test_a_digest_is_what_the_standard_library_says_it_is(pepper: bytes, secret: str) -> None:
    key = Pepper(pepper).derived("keyledger digests v2")
    expected = hmac.digest(key, b"0123456789abcdef" + secret.encode(), "sha256")
    assert Pepper(pepper).digest("0123456789abcdef", secret) == expected
