"""The linearizability checker, tested with right and wrong histories made by hand."""

import random
from math import inf

import pytest

from tests.system.linearizability import Change, Check, violations

NEVER = (inf, inf)

History = list[Change | Check]


def created(began: float = 0, ended: float = 1, scopes: str = "a b", end: float = inf) -> Change:
    return Change("key", began, ended, scopes=frozenset(scopes.split()), end=(end, end))


def revoked(began: float, ended: float) -> Change:
    return Change("key", began, ended, revokes=True)


def rescoped(began: float, ended: float, scopes: str) -> Change:
    return Change("key", began, ended, scopes=frozenset(scopes.split()))


def ends_at(began: float, ended: float, end: float) -> Change:
    return Change("key", began, ended, end=(end, end))


def rotated(began: float, ended: float, grace: float) -> Change:
    return Change("key", began, ended, end=(began + grace, ended + grace), only_sooner=True)


def check(began: float, ended: float, code: str, wanted: str = "a") -> Check:
    return Check("key", began, ended, wanted, code)


RIGHT: dict[str, History] = {
    "a new key is accepted": [created(), check(2, 3, "VALID"), check(2, 3, "VALID", "b")],
    "a scope that it never had": [created(), check(2, 3, "INSUFFICIENT_SCOPE", "c")],
    "a revoked key is refused": [created(), revoked(4, 5), check(6, 7, "REVOKED")],
    "a check during a revocation may say both": [
        created(),
        revoked(4, 8),
        check(5, 6, "VALID"),
        check(5, 6, "REVOKED"),
    ],
    "a check that began before the acknowledgement may accept": [
        created(),
        revoked(4, 8),
        check(7, 20, "VALID"),
    ],
    "a check that ends after a revocation began may refuse": [
        created(),
        revoked(4, 8),
        check(1, 4.5, "REVOKED"),
    ],
    "overlapping checks may differ": [
        created(),
        revoked(4, 20),
        check(5, 9, "REVOKED"),
        check(8, 10, "VALID"),
    ],
    "a revocation of unknown outcome may have happened": [
        created(),
        revoked(4, inf),
        check(50, 51, "REVOKED"),
    ],
    "a revocation of unknown outcome may not have happened": [
        created(),
        revoked(4, inf),
        check(50, 51, "VALID"),
    ],
    "a revocation of unknown outcome may happen late": [
        created(),
        revoked(4, inf),
        check(50, 51, "VALID"),
        check(52, 53, "REVOKED"),
    ],
    "revoked twice": [created(), revoked(4, 5), revoked(6, 7), check(8, 9, "REVOKED")],
    "accepted until the end": [created(end=10), check(8, 9.5, "VALID")],
    "refused from the end on": [created(end=10), check(10, 11, "EXPIRED")],
    "either at the end": [created(end=10), check(9, 11, "EXPIRED"), check(9, 11, "VALID")],
    "put off": [created(end=10), ends_at(4, 5, 20), check(15, 16, "VALID")],
    "brought forward": [created(end=20), ends_at(4, 5, 10), check(15, 16, "EXPIRED")],
    "revoked outranks expired": [
        created(end=10),
        revoked(4, 5),
        check(15, 16, "REVOKED"),
    ],
    "rotated without grace": [created(), rotated(4, 5, 0), check(6, 7, "EXPIRED")],
    "accepted while it is rotated": [created(), rotated(4, 8, 0), check(5, 6, "VALID")],
    "rotated with grace": [
        created(),
        rotated(4, 5, 10),
        check(13, 13.5, "VALID"),
        check(14.5, 14.6, "VALID"),
        check(14.5, 14.6, "EXPIRED"),
        check(16, 17, "EXPIRED"),
    ],
    "a rotation does not put the end off": [
        created(end=6),
        rotated(4, 5, 10),
        check(7, 8, "EXPIRED"),
    ],
    "rotated perhaps": [
        created(),
        rotated(4, inf, 0),
        check(50, 51, "VALID"),
        check(60, 61, "EXPIRED"),
    ],
    "a scope taken away": [
        created(),
        rescoped(4, 5, "b"),
        check(6, 7, "INSUFFICIENT_SCOPE"),
        check(6, 7, "VALID", "b"),
    ],
    "a scope taken away and given again": [
        created(),
        rescoped(4, 5, "b"),
        rescoped(6, 7, "a b"),
        check(8, 9, "VALID"),
    ],
    "of two changes at once either may be the last": [
        created(),
        rescoped(4, 6, "b"),
        rescoped(5, 7, "a"),
        check(8, 9, "VALID"),
        check(8, 9, "INSUFFICIENT_SCOPE"),
    ],
    "a change of scopes leaves the end alone": [
        created(end=10),
        rescoped(4, 5, "a"),
        check(6, 7, "VALID"),
        check(11, 12, "EXPIRED"),
    ],
}

WRONG: dict[str, History] = {
    "accepted after a revocation was acknowledged": [
        created(),
        revoked(4, 5),
        check(5.1, 5.2, "VALID"),
    ],
    "accepted after the first of two revocations": [
        created(),
        revoked(4, 5),
        revoked(4.5, 50),
        check(6, 7, "VALID"),
    ],
    "a scope judged after a revocation was acknowledged": [
        created(),
        revoked(4, 5),
        check(6, 7, "INSUFFICIENT_SCOPE", "c"),
    ],
    "expired after a revocation was acknowledged": [
        created(end=3),
        revoked(4, 5),
        check(6, 7, "EXPIRED"),
    ],
    "a live key refused": [created(), check(2, 3, "REVOKED")],
    "refused before its revocation began": [created(), revoked(4, 5), check(2, 3.9, "REVOKED")],
    "not found": [created(), check(2, 3, "NOT_FOUND")],
    "malformed": [created(), check(2, 3, "MALFORMED")],
    "accepted after another check said revoked": [
        created(),
        revoked(4, 20),
        check(5, 6, "REVOKED"),
        check(7, 8, "VALID"),
    ],
    "the same with a revocation of unknown outcome": [
        created(),
        revoked(4, inf),
        check(5, 6, "REVOKED"),
        check(60, 61, "VALID"),
    ],
    "accepted after its end": [created(end=10), check(10, 11, "VALID")],
    "expired before its end": [created(end=10), check(8, 9.9, "EXPIRED")],
    "expired without an end": [created(), check(8, 9, "EXPIRED")],
    "accepted after an end brought forward": [
        created(end=20),
        ends_at(4, 5, 10),
        check(11, 12, "VALID"),
    ],
    "expired at an end that was put off": [
        created(end=10),
        ends_at(4, 5, 20),
        check(11, 12, "EXPIRED"),
    ],
    "accepted after a rotation without grace": [
        created(),
        rotated(4, 5, 0),
        check(5.1, 6, "VALID"),
    ],
    "expired before a rotation": [created(), rotated(4, 5, 0), check(2, 3, "EXPIRED")],
    "expired during the grace": [created(), rotated(4, 5, 10), check(6, 13, "EXPIRED")],
    "accepted after the grace": [created(), rotated(4, 5, 10), check(15.1, 16, "VALID")],
    "accepted with a scope taken away": [created(), rescoped(4, 5, "b"), check(6, 7, "VALID")],
    "refused for a scope given": [
        created(scopes="b"),
        rescoped(4, 5, "a b"),
        check(6, 7, "INSUFFICIENT_SCOPE"),
    ],
    "accepted with a scope given later": [
        created(scopes="b"),
        rescoped(4, 5, "a b"),
        check(2, 3, "VALID"),
    ],
    "refused for a scope that it always had": [created(), check(2, 3, "INSUFFICIENT_SCOPE")],
    "accepted by scopes replaced twice": [
        created(scopes="b"),
        rescoped(2, 3, "a"),
        rescoped(4, 5, "b"),
        rescoped(6, 7, "b"),
        check(8, 9, "VALID"),
    ],
    "a key that nobody made": [check(2, 3, "VALID")],
}


def wrongs(history: History, clock_error: float = 0) -> list[str]:
    changes = [each for each in history if isinstance(each, Change)]
    checks = [each for each in history if isinstance(each, Check)]
    return violations(changes, checks, clock_error=clock_error)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_history_is_accepted(name: str) -> None:
    assert wrongs(RIGHT[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_is_rejected_for_the_one_call_that_is_wrong(name: str) -> None:
    assert len(wrongs(WRONG[name])) == 1


def test_each_key_is_checked_by_its_own_changes() -> None:
    other = Change("other", 0, 1, scopes=frozenset("a"), end=NEVER)
    other_check = Check("other", 6, 7, "a", "VALID")
    assert wrongs([created(), revoked(4, 5), other, other_check]) == []
    assert len(wrongs([created(), revoked(4, 5), other, other_check, check(6, 7, "VALID")])) == 1


def test_the_clocks_may_differ_by_as_much_as_is_said() -> None:
    history: History = [created(end=10), check(10.5, 11, "VALID"), check(8, 9.5, "EXPIRED")]
    assert len(wrongs(history)) == 2
    assert wrongs(history, clock_error=1) == []


def history_of_a_model(chance: random.Random, *, stale: float = 0) -> History:
    """Let a model of one key answer calls one by one, each at a moment within its call.

    Args:
        chance: decides what is called, and how long before and after its moment a call lasts.
        stale: a check is answered with what held that long ago.
    """
    history: History = [created(end=200)]
    states = [(1.0, frozenset("ab"), 200.0, False)]
    for moment in range(2, 300):
        began, ended = moment - chance.uniform(0, 4), moment + chance.uniform(0, 4)
        _, scopes, end, gone = states[-1]
        command = chance.choice(["check"] * 20 + ["scopes", "scopes", "end"])
        if moment == 150:
            command = "revoke" if chance.random() < 0.5 else "rotate"
        active = not gone and moment < end
        if command == "check":
            seen = max(state for state in states if state[0] <= max(1.0, moment - stale))
            wanted = chance.choice("abc")
            history.append(check(began, ended, answer(*seen[1:], wanted, moment), wanted))
        elif command == "scopes" and active:
            scopes = frozenset(chance.choice(["a", "b", "ab", "c"]))
            history.append(rescoped(began, ended, " ".join(scopes)))
        elif command == "end" and active:
            end = moment + chance.uniform(5, 100)
            history.append(ends_at(began, ended, end))
        elif command == "revoke":
            gone = True
            history.append(revoked(began, chance.choice([ended, inf])))
        elif command == "rotate" and active:
            end = min(end, moment + 20)
            history.append(rotated(began, ended, 20))
        states.append((moment, scopes, end, gone))
    return history


def answer(scopes: frozenset[str], end: float, gone: bool, wanted: str, moment: float) -> str:  # noqa: FBT001
    if gone:
        return "REVOKED"
    if moment >= end:
        return "EXPIRED"
    return "VALID" if wanted in scopes else "INSUFFICIENT_SCOPE"


@pytest.mark.parametrize("seed", range(100))
def test_answers_of_a_single_ledger_are_accepted(seed: int) -> None:
    assert wrongs(history_of_a_model(random.Random(seed))) == []


def test_the_checker_rejects_stale_reads() -> None:
    histories = [history_of_a_model(random.Random(seed), stale=30) for seed in range(100)]
    # In a few the key ends so soon that there is nothing to be stale about.
    assert sum(wrongs(history) != [] for history in histories) >= 95
