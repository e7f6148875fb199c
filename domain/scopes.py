"""Scopes: what a key may do, as ``resource:action``, with ``*`` for any.

``*`` alone means ``*:*``. Scopes are plain strings everywhere, also in events; these functions
interpret them.
"""

import re
from collections.abc import Iterable, Sequence

from domain.errors import Invalid, ScopeNotHeld
from domain.names import without_token

ANY = "*"
MAX_SCOPES = 64
MAX_SCOPE_LENGTH = 128

_PART = r"(?:\*|[a-z0-9][a-z0-9._-]*)"
_SCOPE = re.compile(rf"\*|{_PART}:{_PART}", re.ASCII)


def checked(scopes: Iterable[str], *, field: str = "scopes") -> list[str]:
    """Validate a list of scopes and drop duplicates; keep the order.

    Raises:
        Invalid: it is empty, has more than `MAX_SCOPES`, or a scope is malformed.
    """
    unique = list(dict.fromkeys(scopes))
    if not unique:
        raise Invalid(
            field, "no scope given: use at least one, such as mcp:read, or * for everything"
        )
    if len(unique) > MAX_SCOPES:
        raise Invalid(field, f"too many scopes: use at most {MAX_SCOPES}")
    for scope in unique:
        if len(scope) > MAX_SCOPE_LENGTH or not _SCOPE.fullmatch(scope):
            raise Invalid(
                field,
                f"{scope[:MAX_SCOPE_LENGTH]!r} is not a valid scope: use resource:action with the"
                " characters a-z 0-9 . _ -, or * for any, and at most"
                f" {MAX_SCOPE_LENGTH} characters",
            )
        without_token(field, scope)
    return unique


def matches(held: str, wanted: str) -> bool:
    """Return whether one held scope includes one wanted scope.

    A wanted scope may have wildcards itself: ``mcp:*`` is included in ``mcp:*``, ``*:*`` and ``*``,
    and not in ``mcp:read``.
    """
    if held in (ANY, wanted):
        return True
    held_resource, _, held_action = held.partition(":")
    wanted_resource, _, wanted_action = _expanded(wanted).partition(":")
    return held_resource in (ANY, wanted_resource) and held_action in (ANY, wanted_action)


def cover(held: Sequence[str], wanted: Iterable[str]) -> bool:
    """Return whether the held scopes include all wanted scopes (a subset test).

    Each wanted scope must be included in a single held scope. This is exact: there are unlimited
    resources and actions, so no list of narrower scopes adds up to a wildcard.
    """
    if ANY in held:
        return True
    # Plain loops: this runs in every token verification, and a generator takes four times as long.
    for each in wanted:
        for scope in held:
            if matches(scope, each):
                break
        else:
            return False
    return True


def check_held(held: Sequence[str], granted: Iterable[str]) -> None:
    """Raise if someone would grant scopes that they do not hold.

    Raises:
        ScopeNotHeld: a ``granted`` scope is not included in the ``held`` ones.
    """
    missing = [scope for scope in granted if not cover(held, [scope])]
    if missing:
        message = f"you do not hold {', '.join(missing)}: grant only scopes that you hold"
        raise ScopeNotHeld(message)


def _expanded(scope: str) -> str:
    return "*:*" if scope == ANY else scope
