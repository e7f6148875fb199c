"""Tokens in free text are found in every form in which they are usually pasted."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis.strategies import characters, integers, text

from domain.errors import Invalid
from domain.names import checked_comment, checked_name, checked_reason, checked_workspace
from domain.scopes import checked as checked_scopes
from domain.token_text import MAX_CHECKED, contains_token, hide_tokens
from domain.tokens import mint
from tests.domain.builders import PATIENT, a_random_source
from tests.domain.tokens_in_text import WAYS, Way

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)

HARMLESS = {
    "key id": "apikey_5f0c3a52-7d0e-8b4e-9d2b-1c7a4f8e6b21",
    "two key ids": "apikey_5f0c3a52-7d0e-8b4e-9d2b-1c7a4f8e6b21 follows"
    " apikey_9036e343-581f-8811-a3b9-30c7aadfe644",
    "display prefix": "key_7Rk2mQx9...",
    "SHA-1": "git_" + "0123456789abcdef0123456789abcdef01234567",
    "SHA-256": "ab" * 32,
    "SHA-512 with a name": "sha512_" + "AB" * 64,
    "digest of a container image": "registry.example/app@sha256:" + "0f" * 32,
    "subresource integrity": "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "UUID": "7d0e8b4e-9d2b-4c7a-8f6b-21a310e4f5c0",
    "trace context": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "long word": "x" * 200,
    "prose": "The nightly job of the billing team leaked it into a log; see ticket 4711. " * 20,
    "Japanese prose": "請求チームの夜間ジョブがビルドログに漏らした。" * 40,
}


@every_way
@given(seed=integers(0, 10_000), before=text(max_size=5), after=text(max_size=5))
@PATIENT
def test_a_token_is_found_in_every_form_and_at_every_place(
    way: Way, seed: int, before: str, after: str
) -> None:
    written = way(mint("key", a_random_source(seed)).reveal())

    assert contains_token(f"{before} {written} {after}")
    assert written not in hide_tokens(f"{before} {written} {after}")


@pytest.mark.parametrize("harmless", HARMLESS.values(), ids=HARMLESS)
def test_ids_digests_and_prose_are_not_tokens(harmless: str) -> None:
    assert not contains_token(harmless)


@given(prose=text(characters(codec="utf-8"), max_size=300))
@PATIENT
def test_a_text_without_a_token_is_shown_as_it_is(prose: str) -> None:
    assert not contains_token(prose)
    assert hide_tokens(prose) == prose


def test_a_message_without_a_token_is_cut_where_looking_for_one_would_be_slow() -> None:
    shown = hide_tokens("word " * MAX_CHECKED)

    assert len(shown) == MAX_CHECKED
    assert shown.startswith("word word")


@every_way
@pytest.mark.parametrize("check", [checked_name, checked_reason, checked_comment])
def test_no_text_of_a_key_may_contain_one(check: Callable[[str], str | None], way: Way) -> None:
    written = way(mint("key", a_random_source(7)).reveal())

    with pytest.raises(Invalid) as refusal:
        check(written)

    assert written not in str(refusal.value)


def test_a_scope_and_a_workspace_in_lower_case_are_searched_as_well() -> None:
    lower = mint("key", a_random_source(7)).reveal().lower()

    with pytest.raises(Invalid, match="contains a token"):
        checked_scopes([f"{lower}:read"])
    with pytest.raises(Invalid, match="contains a token"):
        checked_workspace(lower[:60])
