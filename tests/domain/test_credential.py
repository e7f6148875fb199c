"""Issuing a credential, and its stored part."""

import pytest

from domain.credential import digest_of, issue
from domain.errors import Invalid, Overloaded
from domain.pepper import Pepper
from domain.tokens import parse
from domain.verifiers import CHEAPEST, Argon2Gate
from tests.domain.builders import PEPPER, a_random_source

GATE = Argon2Gate(at_once=1, waiting=0, profile=CHEAPEST)


def no_random_source(count: int) -> bytes:
    raise AssertionError(f"nobody should ask for {count} random bytes")


def test_the_credential_belongs_to_the_token_shown() -> None:
    token, credential = issue("acme", random=a_random_source(), gate=GATE, pepper=PEPPER)

    assert parse(token.reveal()) == token
    assert (credential.token_prefix, credential.lookup_id) == ("acme", token.lookup_id)
    assert GATE.proves(credential.verifier, token.secret)
    assert credential.digest == digest_of(token, PEPPER)


def test_a_digest_names_its_token_and_its_pepper() -> None:
    token, _ = issue("acme", random=a_random_source(), gate=GATE, pepper=PEPPER)

    digest = digest_of(token, PEPPER)

    assert (digest.lookup_id, digest.pepper_id) == (token.lookup_id, PEPPER.pepper_id)
    assert digest.digest == PEPPER.digest(token.lookup_id, token.secret)
    assert digest.digest != digest_of(token, Pepper(bytes(32))).digest


def test_nothing_that_is_kept_has_or_shows_the_secret() -> None:
    token, credential = issue("acme", random=a_random_source(), gate=GATE, pepper=PEPPER)

    shown = repr(credential)

    assert token.secret not in shown
    assert credential.verifier not in shown
    assert repr(credential.digest.digest) not in shown
    assert token.secret not in credential.verifier


@pytest.mark.parametrize("prefix", ["", "Acme", "1acme", "a_b", "a" * 17, "acme\n"])
def test_an_invalid_prefix_is_refused_before_hashing(prefix: str) -> None:
    with pytest.raises(Invalid) as refusal:
        issue(prefix, random=no_random_source, gate=GATE, pepper=PEPPER)

    assert refusal.value.field == "prefix"


def test_no_credential_is_made_past_the_limit() -> None:
    full = Argon2Gate(at_once=0, waiting=0, profile=CHEAPEST)

    with pytest.raises(Overloaded):
        issue("acme", random=a_random_source(), gate=full, pepper=PEPPER)
