"""Peppers, and the digests under them."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.pepper import Pepper, same_digest

PEPPER = Pepper(bytes(range(32)))


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_pepper_of_another_length_than_32_bytes_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"32 bytes; this one has {length}$"):
        Pepper(bytes(length))


# RFC 4231, sections 4.2 and 4.3. HMAC fills a short key up with zeros, so the keys of these test
# cases are the same keys with 32 bytes.
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
def test_a_digest_is_the_hmac_of_the_rfc(key: bytes, text: str, digest: str) -> None:
    assert Pepper(key.ljust(32, b"\0")).digest(text).hex() == digest


def test_another_pepper_gives_another_digest_and_another_id() -> None:
    other = Pepper(bytes(32))

    assert other.digest("secret") != PEPPER.digest("secret")
    assert other.pepper_id != PEPPER.pepper_id


def test_the_id_of_a_pepper_is_the_same_for_ever() -> None:
    assert PEPPER.pepper_id == "281da1a938475416"


def test_the_id_and_the_repr_reveal_nothing_of_the_pepper() -> None:
    pepper = Pepper(b"0123456789abcdef0123456789ABCDEF")

    shown = f"{pepper!r} {pepper} {pepper.pepper_id}"

    assert "0123456789abcdef" not in shown
    assert pepper.value.hex()[:16] not in shown
    # Who knows the digest of an empty text knows nothing of the id either.
    assert pepper.digest("").hex()[:16] != pepper.pepper_id


def test_only_the_same_digest_is_the_same() -> None:
    digest = PEPPER.digest("secret")

    assert same_digest(digest, bytes(digest))
    assert not same_digest(digest, digest[:-1] + bytes([digest[-1] ^ 1]))
    assert not same_digest(digest, digest[:-1])


@given(pepper=st.binary(min_size=32, max_size=32), secret=st.text(st.characters(max_codepoint=127)))
def test_a_digest_is_what_the_standard_library_says_it_is(pepper: bytes, secret: str) -> None:
    assert Pepper(pepper).digest(secret) == hmac.digest(pepper, secret.encode(), "sha256")
