"""Times and durations as people write and read them."""

import re
from datetime import datetime, timedelta

from api.command_line.terminal import counted
from domain import times
from domain.errors import Invalid

NEVER = "never"
TOO_LONG = "the duration is too long: use a shorter one"

_DURATION = re.compile(r"([0-9]{1,9})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_NAMES = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


def parse_duration(field: str, text: str) -> timedelta:
    """Read a duration such as ``45s``, ``90m``, ``12h``, ``30d`` or ``2w``.

    Raises:
        Invalid: the text is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise Invalid(field, "use a number and a unit, such as 45s, 90m, 12h, 30d or 2w")
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise Invalid(field, TOO_LONG) from None


def parse_time(field: str, text: str) -> datetime:
    """Read a time with its offset from UTC; a date alone means midnight UTC.

    Raises:
        Invalid: the text is not a time.
    """
    try:
        return times.from_text(times.with_time_of_day(text.strip()))
    except ValueError:
        raise Invalid(
            field,
            "use a time with its offset, such as 2027-03-03T09:30:00Z, or a date, such as"
            " 2027-03-03",
        ) from None


def parse_end(expires_at: str | None, expires_in: str | None, *, now: datetime) -> datetime | None:
    """Return the expiration time of ``--expires-at`` or ``--expires-in``; ``None`` is never.

    Raises:
        Invalid: both are given, or one is not valid.
    """
    if expires_at is not None and expires_in is not None:
        raise Invalid("expires_in", "use --expires-in or --expires-at, not both")
    if expires_at is not None:
        return None if expires_at == NEVER else parse_time("expires_at", expires_at)
    if expires_in is None or expires_in == NEVER:
        return None
    return after(now, parse_duration("expires_in", expires_in), field="expires_in")


def after(now: datetime, span: timedelta, *, field: str) -> datetime:
    """Return the time that is a duration after now.

    Raises:
        Invalid: the time is after the year 9999.
    """
    try:
        return now + span
    except OverflowError:
        raise Invalid(field, "the time is after the year 9999: use `never`") from None


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
    """Return the distance of a time from now, as in ``in 12 days`` or ``3 hours ago``."""
    seconds = abs((at - now).total_seconds())
    # At least two of a unit: "36 hours" is more precise than "2 days".
    name, length = next(
        ((name, length) for name, length in _NAMES if seconds >= 2 * length), _NAMES[-1]
    )
    span = counted(round(seconds / length), name)
    return f"in {span}" if at > now else f"{span} ago"
