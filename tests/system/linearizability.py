"""Check whether the answers to many clients could come from one linearizable ledger.

A change takes effect at a moment between the beginning and the end of its call; if nobody learned
the end, at any moment after the beginning. A verification sees the ledger at a moment between its
own beginning and end (Herlihy and Wing, "Linearizability", 1990). Each rule below follows from
this, so a history that breaks one is certainly wrong. All times are of one clock.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf


@dataclass(frozen=True, slots=True)
class Change:
    """A call that changed a key, or perhaps did.

    Args:
        key_id: the key.
        began: when the call was made.
        ended: when its success was answered; infinite if that was never learned.
        scopes: what it gave the key in place of other scopes.
        end: the earliest and the latest time that it may have set for the key's end.
        only_sooner: the end is the key's former one if that is sooner.
        revokes: it revoked the key.
    """

    key_id: str
    began: float
    ended: float
    scopes: frozenset[str] | None = None
    end: tuple[float, float] | None = None
    only_sooner: bool = False
    revokes: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """A call that verified a key's right token, and what it answered."""

    key_id: str
    began: float
    ended: float
    wanted: str
    code: str
    by: str = field(default="", compare=False)


def violations(
    changes: Iterable[Change], checks: Iterable[Check], *, clock_error: float = 0.0
) -> list[str]:
    """Return what is wrong with a history.

    Args:
        changes: all that were asked for and not refused, the keys' creations among them.
        checks: all that were answered.
        clock_error: by how much the servers' clock may differ from that of the history.
    """
    changes_of: dict[str, list[Change]] = defaultdict(list)
    checks_of: dict[str, list[Check]] = defaultdict(list)
    for change in changes:
        changes_of[change.key_id].append(change)
    for check in checks:
        checks_of[check.key_id].append(check)
    found = []
    for key_id, its_checks in checks_of.items():
        told = min((check.ended for check in its_checks if check.code == "REVOKED"), default=inf)
        for check in its_checks:
            its_changes = changes_of[key_id]
            wrong = _against_revocations(its_changes, check, told) or (
                None if check.code == "REVOKED" else _against_state(its_changes, check, clock_error)
            )
            if wrong is not None:
                found.append(f"{wrong}: {check}")
    return found


def _against_revocations(changes: Sequence[Change], check: Check, told: float) -> str | None:
    """Tell what is wrong with a check for the key's revocations; ``told`` is when one was seen."""
    revocations = [change for change in changes if change.revokes]
    if check.code == "REVOKED":
        if not any(change.began < check.ended for change in revocations):
            return "REVOKED, and nobody had begun to revoke it"
    elif any(change.ended < check.began for change in revocations):
        return f"{check.code} after a revocation was acknowledged"
    elif told < check.began:
        return f"{check.code} after another check had said REVOKED"
    return None


def _against_state(changes: Sequence[Change], check: Check, clock_error: float) -> str | None:
    """Tell what is wrong with a check for the key's scopes and end, if it was not revoked."""
    if check.code == "EXPIRED":
        if _may_have_ended(changes, check, clock_error):
            return None
        return "EXPIRED before any end that the key may have had"
    if check.code not in ("VALID", "INSUFFICIENT_SCOPE"):
        return f"{check.code} for a key that is there"
    ends = [change.end for change in _visible(changes, "end", check) if change.end]
    if not any(latest > check.began - clock_error for _, latest in ends):
        return f"{check.code} after the key's end"
    scopes = [change.scopes or () for change in _visible(changes, "scopes", check)]
    if not any((check.wanted in each) is (check.code == "VALID") for each in scopes):
        return f"{check.code} with scopes that the key did not have"
    return None


def _may_have_ended(changes: Sequence[Change], check: Check, clock_error: float) -> bool:
    visible = _visible(changes, "end", check)
    if any(change.only_sooner for change in visible):
        visible = [change for change in changes if change.began < check.ended]
    return any(
        change.end is not None and change.end[0] <= check.ended + clock_error for change in visible
    )


def _visible(changes: Sequence[Change], what: str, check: Check) -> list[Change]:
    """Return the changes of scopes, or of the end, that may have been the last at the check.

    One is not if it began after the check, or if another, which began after it was acknowledged,
    was itself acknowledged before the check.
    """
    of_it = [change for change in changes if getattr(change, what) is not None]
    replaced = max((change.began for change in of_it if change.ended < check.began), default=-inf)
    return [
        change for change in of_it if change.began < check.ended and not change.ended < replaced
    ]
