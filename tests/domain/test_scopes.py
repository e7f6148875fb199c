"""Scopes: their grammar, and which scope includes which."""

import string
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis.strategies import builds, lists, sampled_from, text

from domain.errors import Invalid, ScopeNotHeld
from domain.scopes import check_held, checked, cover, matches
from tests.domain.builders import PATIENT

LOWER_OR_DIGIT = string.ascii_lowercase + string.digits
parts = builds(
    "{}{}".format,
    sampled_from(LOWER_OR_DIGIT),
    text(sampled_from(LOWER_OR_DIGIT + "._-"), max_size=12),
)
sides = parts | sampled_from(["*"])
scopes = builds("{}:{}".format, sides, sides) | sampled_from(["*"])


class TestGrammar:
    @given(lists(scopes, min_size=1, max_size=10))
    @PATIENT
    def test_scopes_are_kept_in_their_order_and_once(self, given_scopes: list[str]) -> None:
        kept = checked(given_scopes)

        assert kept == sorted(set(given_scopes), key=given_scopes.index)
        assert checked(kept) == kept

    @given(text(sampled_from("az09._-:*A \n\0é\ud800"), max_size=8))
    @settings(PATIENT, max_examples=500)
    def test_accepted_scopes_match_the_grammar(self, typed: str) -> None:
        assert _is_kept(typed) == _is_scope(typed)

    @pytest.mark.parametrize(
        "no_scope",
        [
            *("", " ", ":", "a", "a:", ":a", "a:b:c", "**", "*:", ":*", "a:**", "a*:b", "a:b*"),
            *("A:b", "a:B", "a b:c", "a:b ", " a:b", "a:b\n", "-a:b", ".a:b", "_a:b", "a:-b"),
            *("a,b:c", "a:b,c:d", "a/b:c", "é:a", "a:\N{DIGIT ONE}\N{FULLWIDTH DIGIT ONE}"),
            *("a:b\0", "a\u202e:b", "a:\ud800", "a\N{FULLWIDTH COLON}b"),
        ],
    )
    def test_anything_else_is_refused(self, no_scope: str) -> None:
        with pytest.raises(Invalid, match="use resource:action") as refusal:
            checked(["mcp:read", no_scope], field="wanted")

        assert refusal.value.field == "wanted"
        # The refusal itself can be shown safely.
        assert str(refusal.value).isprintable()

    def test_none_at_all_is_refused(self) -> None:
        with pytest.raises(Invalid, match="no scope given") as refusal:
            checked([])

        assert refusal.value.field == "scopes"

    def test_there_are_64_different_ones_at_most(self) -> None:
        many = [f"a:{number}" for number in range(64)]

        assert checked(many + many) == many
        with pytest.raises(Invalid, match="use at most 64"):
            checked([*many, "a:64"])

    def test_one_is_128_characters_long_at_most(self) -> None:
        longest = "a:" + "b" * 126

        assert checked([longest]) == [longest]
        with pytest.raises(Invalid, match="at most 128 characters") as refusal:
            checked([longest + "b" * 1000])
        assert len(str(refusal.value)) < 400


# Two resources and two actions that rules name. `fresh` is not named by any scope: it stands for
# all other names, of which there are unlimited ones.
NAMED_RESOURCES, NAMED_ACTIONS = ["a", "b"], ["r", "w"]
WORLD = [*product([*NAMED_RESOURCES, "fresh"], [*NAMED_ACTIONS, "fresh"])]
SMALL_SCOPES = sampled_from(
    ["*"] + [f"{r}:{a}" for r, a in product([*NAMED_RESOURCES, "*"], [*NAMED_ACTIONS, "*"])]
)


class TestMeaning:
    @pytest.mark.parametrize(
        ("held", "allowed", "not_allowed"),
        [
            ("*", ["*", "*:*", "mcp:*", "*:read", "mcp:read"], []),
            ("*:*", ["*", "*:*", "mcp:*", "*:read", "mcp:read"], []),
            ("mcp:*", ["mcp:*", "mcp:read"], ["*", "*:*", "*:read", "audit:read", "mcp2:read"]),
            ("*:read", ["*:read", "mcp:read"], ["*", "*:*", "mcp:*", "mcp:write", "mcp:reads"]),
            ("mcp:read", ["mcp:read"], ["*", "*:*", "mcp:*", "*:read", "mcp:write", "mc:read"]),
        ],
    )
    def test_a_star_matches_everything_on_its_side(
        self, held: str, allowed: list[str], not_allowed: list[str]
    ) -> None:
        assert [wanted for wanted in allowed + not_allowed if matches(held, wanted)] == allowed

    @given(held=lists(SMALL_SCOPES, max_size=6), wanted=lists(SMALL_SCOPES, max_size=4))
    @settings(PATIENT, max_examples=1000)
    def test_scopes_cover_what_is_wanted_if_and_only_if_they_allow_all_that_it_names(
        self, held: list[str], wanted: list[str]
    ) -> None:
        named = [each for each in WORLD if any(_allows(scope, *each) for scope in wanted)]

        covered = all(any(_allows(scope, *each) for scope in held) for each in named)

        assert cover(held, wanted) == covered

    def test_an_empty_list_is_included_in_anything_and_includes_nothing(self) -> None:
        assert cover([], [])
        assert cover(["mcp:read"], [])
        assert not cover([], ["mcp:read"])


class TestGranting:
    def test_held_scopes_may_be_granted(self) -> None:
        check_held(("mcp:*", "audit:read"), ["mcp:read", "mcp:*", "audit:read"])

    def test_every_scope_that_is_not_held_is_named(self) -> None:
        with pytest.raises(ScopeNotHeld, match=r"do not hold \*, mcp:delete: grant only"):
            check_held(("mcp:read",), ["*", "mcp:read", "mcp:delete"])


def _allows(scope: str, resource: str, action: str) -> bool:
    if scope == "*":
        return True
    allowed_resource, allowed_action = scope.split(":")
    return allowed_resource in {"*", resource} and allowed_action in {"*", action}


def _is_kept(typed: str) -> bool:
    try:
        return checked([typed]) == [typed]
    except Invalid:
        return False


def _is_scope(typed: str) -> bool:
    return typed == "*" or (typed.count(":") == 1 and all(map(_is_side, typed.split(":"))))


def _is_side(side: str) -> bool:
    plain = set(LOWER_OR_DIGIT)
    return side == "*" or (side[:1] in plain and set(side) <= plain | set("._-"))
