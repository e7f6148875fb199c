"""Times and durations as people write and read them."""

import re
from datetime import datetime, timedelta

from api.command_line.terminal import counted
from domain import times
from domain.errors import Invalid

NEVER = "never"

_DURATION = re.compile(r"([0-9]{1,9})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_NAMES = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


def parse_duration(field: str, text: str) -> timedelta:
    """Read a duration such as ``45s``, ``90m``, ``12h``, ``30d`` or ``2w``.

    Raises:
        Invalid: it is none.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise Invalid(field, "write a number and its unit, as in 45s, 90m, 12h, 30d or 2w")
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise Invalid(field, "that is longer than time is known to go on") from None


def parse_time(field: str, text: str) -> datetime:
    """Read a time with its offset from UTC; a date alone means midnight UTC.

    Raises:
        Invalid: the text has another form.
    """
    try:
        return times.from_text(times.with_time_of_day(text.strip()))
    except ValueError:
        raise Invalid(
            field,
            "write a time with its offset, as in 2027-03-03T09:30:00Z, or a date, as in 2027-03-03",
        ) from None


def parse_end(expires_at: str | None, expires_in: str | None, *, now: datetime) -> datetime | None:
    """Return the end that ``--expires-at`` or ``--expires-in`` asks for; ``None`` is never.

    Raises:
        Invalid: both are given, or one is wrong.
    """
    if expires_at is not None and expires_in is not None:
        raise Invalid("expires_in", "give it or --expires-at, not both")
    if expires_at is not None:
        return None if expires_at == NEVER else parse_time("expires_at", expires_at)
    if expires_in is None or expires_in == NEVER:
        return None
    return after(now, parse_duration("expires_in", expires_in), field="expires_in")


def after(now: datetime, span: timedelta, *, field: str) -> datetime:
    """Return the time that lies a span after now.

    Raises:
        Invalid: no year has so many digits.
    """
    try:
        return now + span
    except OverflowError:
        raise Invalid(field, "that is after the year 9999; write never") from None


def readable(at: datetime) -> str:
    """Write a time in UTC to the second, as in ``2026-03-03 09:30:00Z``."""
    return at.strftime("%Y-%m-%d %H:%M:%SZ")


def to_the_minute(at: datetime) -> str:
    """Write a time in UTC to the minute, as in ``2026-03-03 09:30Z``."""
    return at.strftime("%Y-%m-%d %H:%MZ")


def date(at: datetime) -> str:
    """Write the date of a time in UTC, as in ``2026-03-03``."""
    return at.strftime("%Y-%m-%d")


def from_now(at: datetime, now: datetime) -> str:
    """Say how far off a time is, as in ``in 12 days`` or ``3 hours ago``."""
    seconds = abs((at - now).total_seconds())
    # Two of a unit at least: 36 hours say more than 2 days, or than 1.
    name, length = next(
        ((name, length) for name, length in _NAMES if seconds >= 2 * length), _NAMES[-1]
    )
    span = counted(round(seconds / length), name)
    return f"in {span}" if at > now else f"{span} ago"
