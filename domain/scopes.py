"""Scopes: what a key may do, as ``resource:action`` with ``*`` for any.

``*`` alone means ``*:*``. Scopes stay plain strings everywhere, in events too; these functions
give them their meaning.
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
    """Check a list of scopes and drop repetitions; the order stays.

    Raises:
        Invalid: there is none, there are more than `MAX_SCOPES`, or one breaks the grammar.
    """
    unique = list(dict.fromkeys(scopes))
    if not unique:
        raise Invalid(field, "give at least one scope, such as mcp:read, or * for everything")
    if len(unique) > MAX_SCOPES:
        raise Invalid(field, f"give at most {MAX_SCOPES} scopes")
    for scope in unique:
        if len(scope) > MAX_SCOPE_LENGTH or not _SCOPE.fullmatch(scope):
            raise Invalid(
                field,
                f"{scope[:MAX_SCOPE_LENGTH]!r} is not a valid scope: write resource:action in the"
                " characters a-z 0-9 . _ -, with * for any, at most"
                f" {MAX_SCOPE_LENGTH} characters long",
            )
        without_token(field, scope)
    return unique


def matches(held: str, wanted: str) -> bool:
    """Tell whether one held scope allows all that one wanted scope names.

    A wanted scope may itself have wildcards: ``mcp:*`` is allowed by ``mcp:*``, ``*:*`` and
    ``*``, and not by ``mcp:read``.
    """
    if held in (ANY, wanted):
        return True
    held_resource, _, held_action = held.partition(":")
    wanted_resource, _, wanted_action = _expanded(wanted).partition(":")
    return held_resource in (ANY, wanted_resource) and held_action in (ANY, wanted_action)


def cover(held: Sequence[str], wanted: Iterable[str]) -> bool:
    """Tell whether the held scopes allow all that the wanted scopes name (a subset test).

    One held scope must match each wanted one. That misses nothing: resources and actions are
    without number, so no list of narrower scopes adds up to a wildcard.
    """
    if ANY in held:
        return True
    # Plain loops: this is asked at every check, and a generator takes four times as long.
    for each in wanted:
        for scope in held:
            if matches(scope, each):
                break
        else:
            return False
    return True


def check_held(held: Sequence[str], granted: Iterable[str]) -> None:
    """Refuse to let somebody grant more than they hold.

    Raises:
        ScopeNotHeld: at least one of the ``granted`` scopes is not covered by the ``held`` ones.
    """
    missing = [scope for scope in granted if not cover(held, [scope])]
    if missing:
        message = f"you can only grant scopes that you hold; you do not hold {', '.join(missing)}"
        raise ScopeNotHeld(message)


def _expanded(scope: str) -> str:
    return "*:*" if scope == ANY else scope
