"""Tokens: minted, shown once, parsed, and never confused with one another."""

import string
import zlib
from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis.strategies import binary, builds, from_regex, text

from domain.tokens import ALPHABET, RandomSource, Token, hide_secrets, mint, parse, split
from tests.domain.builders import PATIENT, a_random_source

# The format once more, as numbers: 16 + 43 + 6 characters of base62.
TAIL = 16 + 43 + 6
TYPED = string.ascii_letters + string.digits + "_-. \n\0é\N{FULLWIDTH DIGIT ONE}\ud800"


CLOTHES: dict[str, Callable[[str], str]] = {
    "a line break behind it": lambda text: text + "\n",
    "a blank before it": lambda text: " " + text,
    "a null behind it": lambda text: text + "\0",
    "upper case": str.upper,
    "no prefix": lambda text: text[3:],
    "a hyphen": lambda text: text.replace("_", "-"),
    "too long a prefix": lambda text: "a" * 14 + text,
    "a prefix with a digit first": lambda text: "1" + text,
    "twice": lambda text: text + text,
    "a megabyte": lambda text: text + "0" * 1_000_000,
}


def bytes_first(drawn: bytes) -> RandomSource:
    """Return the drawn bytes first, then zeros."""
    rest = [drawn]
    return lambda count: rest.pop().ljust(count, b"\0")[:count] if rest else bytes(count)


prefixes = from_regex(r"[a-z][a-z0-9]{0,15}", fullmatch=True)
tokens = builds(mint, prefixes, binary(min_size=59, max_size=59).map(bytes_first))


def a_token() -> Token:
    return mint("key", a_random_source())


class TestForm:
    def test_the_token_format_does_not_change(self) -> None:
        token = Token("key", "0123456789ABCDEF", "x" * 43)

        assert token.reveal() == "key_0123456789ABCDEF" + "x" * 43 + "4A8Nsq"

    @given(tokens)
    @PATIENT
    def test_a_token_is_a_prefix_a_lookup_id_a_secret_and_a_checksum(self, token: Token) -> None:
        prefix, _, tail = token.reveal().partition("_")

        assert (prefix, tail[:16], tail[16:59]) == (token.prefix, token.lookup_id, token.secret)
        assert len(tail) == TAIL
        assert set(tail) <= set(string.ascii_letters + string.digits)

    @given(tokens)
    @PATIENT
    def test_the_checksum_is_the_crc_32_in_base62(self, token: Token) -> None:
        digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
        number = 0
        for character in token.reveal()[-6:]:
            number = number * 62 + digits.index(character)

        assert number == zlib.crc32((token.lookup_id + token.secret).encode())

    @given(tokens)
    @PATIENT
    def test_a_revealed_token_is_read_back(self, token: Token) -> None:
        assert parse(token.reveal()) == token

    def test_every_fair_byte_gives_each_character_equally_often(self) -> None:
        counts = dict.fromkeys(ALPHABET, 0)
        for byte in range(256):
            # After a rejected byte the source's next byte decides; that one is 61: "z".
            first = mint("key", _first_byte(byte, then=61)).lookup_id[0]
            counts[first] += 1

        # 248 accepted bytes make 62 characters, four bytes for each; the other eight are rejected.
        assert counts.pop("z") == 4 + 8
        assert set(counts.values()) == {4}

    def test_every_character_is_random(self) -> None:
        minted = [mint("key", a_random_source(seed)) for seed in range(500)]
        texts = [token.lookup_id + token.secret for token in minted]

        assert {len(text) for text in texts} == {16 + 43}
        for column in zip(*texts, strict=True):
            assert len(set(column)) > 50


def _first_byte(byte: int, *, then: int) -> RandomSource:
    rest = [byte]
    return lambda count: bytes([rest.pop() if rest else then] + [then] * (count - 1))


class TestMistakes:
    """A mistyped token is refused, or has another prefix, which is compared later."""

    @given(tokens)
    @settings(PATIENT, max_examples=50)
    def test_one_character_exchanged(self, token: Token) -> None:
        text = token.reveal()
        for place, was in enumerate(text):
            for typed in TYPED:
                if typed != was:
                    _check_refused(token, text[:place] + typed + text[place + 1 :])

    @given(tokens)
    @PATIENT
    def test_one_character_left_out(self, token: Token) -> None:
        text = token.reveal()
        for place in range(len(text)):
            _check_refused(token, text[:place] + text[place + 1 :])

    @given(tokens)
    @settings(PATIENT, max_examples=50)
    def test_one_character_too_many(self, token: Token) -> None:
        text = token.reveal()
        for place in range(len(text) + 1):
            for typed in TYPED:
                _check_refused(token, text[:place] + typed + text[place:])

    @given(tokens)
    @settings(PATIENT, max_examples=50)
    def test_a_token_with_two_swapped_characters(self, token: Token) -> None:
        text = token.reveal()
        for left, right in combinations(range(len(text)), 2):
            if text[left] != text[right]:
                swapped = [*text]
                swapped[left], swapped[right] = text[right], text[left]
                _check_refused(token, "".join(swapped))


def _check_refused(token: Token, mistyped: str) -> None:
    read = parse(mistyped)
    assert read is None or read.prefix != token.prefix


class TestParse:
    @given(text(max_size=100))
    @example("")
    @example("key_")
    @example("_" * 82)
    @PATIENT
    def test_garbage_is_refused(self, garbage: str) -> None:
        assert parse(garbage) is None

    @pytest.mark.parametrize("change", CLOTHES.values(), ids=CLOTHES)
    def test_a_token_in_another_encoding_is_refused(self, change: Callable[[str], str]) -> None:
        assert parse(change(a_token().reveal())) is None

    def test_the_prefix_is_not_under_the_checksum(self) -> None:
        # This is why the presented prefix is compared with the key's own.
        token = a_token()

        assert parse("other" + token.reveal()[3:]) == Token("other", token.lookup_id, token.secret)


class TestSplit:
    @given(tokens)
    @PATIENT
    def test_a_token_is_split_at_its_secret(self, token: Token) -> None:
        public, secret, checksum = split(token.reveal())

        assert public == f"{token.prefix}_{token.lookup_id}"
        assert secret == token.secret
        assert public + secret + checksum == token.reveal()

    @given(text(max_size=100))
    @PATIENT
    def test_two_different_texts_never_come_apart_alike(self, garbage: str) -> None:
        assert "".join(split(garbage)) == garbage


class TestShowing:
    @given(tokens)
    @PATIENT
    def test_nothing_but_reveal_shows_the_secret(self, token: Token) -> None:
        for shown in (repr(token), str(token), f"{token}", f"{[token]}", token.display_prefix):
            assert token.secret not in shown

    def test_a_token_is_shown_by_its_beginning(self) -> None:
        token = Token("key", "0123456789ABCDEF", "x" * 43)

        assert str(token) == token.display_prefix == "key_01234567..."
        assert repr(token) == "Token(prefix='key', lookup_id='0123456789ABCDEF')"

    @pytest.mark.parametrize("prefix", ["k", "key", "a" * 16])
    def test_a_message_that_quotes_a_token_loses_the_secret(self, prefix: str) -> None:
        for seed in range(100):
            token = mint(prefix, a_random_source(seed))
            text = token.reveal()
            for quoted in (text, text[:60], text[-45:], token.secret, f"{text}x"):
                shown = hide_secrets(f"there is no {quoted!r} here")

                assert token.secret[:8] not in shown
                assert shown.startswith("there is no '")
                assert shown.endswith("(not shown)' here")

    @pytest.mark.parametrize(
        "harmless",
        ["apikey_5f0c3a52-7d0e-8b4e-9d2b-1c7a4f8e6b21", "ab" * 32, "key_7Rk2mQx9...", "x" * 39],
    )
    def test_a_message_keeps_ids_and_hashes(self, harmless: str) -> None:
        assert hide_secrets(f"there is no {harmless} here") == f"there is no {harmless} here"
