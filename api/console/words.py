"""What the pages say about times, people and events, in words."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from markupsafe import Markup

from domain.caller import Actor

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_UNITS = (
    ("year", timedelta(days=365)),
    ("month", timedelta(days=30)),
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
)
_MOMENT = timedelta(minutes=1)
_AT_LEAST = 2


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number of things, as in ``1 event`` or ``1,200 events``.

    Args:
        plural: of the noun, where it takes more than an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def fitting(scopes: Sequence[str], width: int) -> Sequence[str]:
    """Return as many of the first scopes as fit into a line of some characters, at least one."""
    taken, used = 1, len(scopes[0])
    for scope in scopes[1:]:
        used += len(scope) + 1
        if used > width:
            break
        taken += 1
    return scopes[:taken]


def relative(at: datetime, now: datetime) -> str:
    """Say how far off a time is, as in ``in 12 days`` or ``3 hours ago``."""
    span = abs(at - now)
    if span < _MOMENT:
        return "in a moment" if at > now else "just now"
    # Two of a unit at least: 36 hours say more than 2 days, or than 1.
    name, length = next(
        ((name, length) for name, length in _UNITS if span >= _AT_LEAST * length), _UNITS[-1]
    )
    words = counted(round(span / length), name)
    return f"in {words}" if at > now else f"{words} ago"


def day(at: datetime) -> str:
    """Write the date of a time in UTC, as in ``3 March 2026``."""
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def moment(at: datetime, *, form: str = "minute") -> Markup:
    """Return a time as HTML: in UTC, for a script to write it in the reader's own zone.

    Args:
        form: ``date`` for the short form of the day, or ``minute`` or ``second``.
    """
    text = {
        "date": f"{at.day} {_MONTHS[at.month - 1][:3]} {at.year}",
        "minute": f"{day(at)}, {at:%H:%M} UTC",
        "second": f"{day(at)}, {at:%H:%M:%S} UTC",
    }[form]
    return Markup('<time datetime="{}" title="{} UTC" data-form="{}">{}</time>').format(
        f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at:%Y-%m-%d %H:%M:%S}", form, text
    )


def actor(who: Actor) -> str:
    """Say who did something."""
    return {
        "key": f"key {who.id}",
        "cli": f"{who.id} (command line)",
        "system": f"Keyledger ({who.id})",
    }[who.type]
