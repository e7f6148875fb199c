"""Times: aware, in UTC, to the microsecond, and with one text form.

The text form (RFC 3339, section 5.6) always has six decimals and a ``Z``, so that text sorts in
chronological order.
"""

import re
from datetime import UTC, datetime

import orjson

from domain.errors import Invalid

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def to_text(at: datetime) -> str:
    """Return an aware time in UTC as text, such as ``2026-03-03T09:30:00.000000Z``.

    Raises:
        ValueError: the time has no offset, or is outside the years 1 to 9999 in UTC.
    """
    if at.tzinfo is not UTC:
        at = _in_utc(at)
    # A third of the time of `isoformat`; orjson only omits the decimals of whole seconds.
    text = orjson.dumps(at, option=orjson.OPT_UTC_Z)[1:-1].decode()
    return text if at.microsecond else f"{text[:-1]}.000000Z"


def from_text(text: str) -> datetime:
    """Parse a text from `to_text`, or any other RFC 3339 time with an offset.

    Raises:
        ValueError: the text is not a time, or has no offset.
    """
    return _in_utc(datetime.fromisoformat(text))


def with_time_of_day(text: str) -> str:
    """Return the text with midnight UTC appended if it is a date alone, else unchanged."""
    return f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text


def checked(field: str, at: datetime | None) -> datetime | None:
    """Convert a time from outside to UTC; ``None`` stays ``None``.

    Raises:
        Invalid: the time has no offset, or is outside the years 1 to 9999 in UTC.
    """
    if at is None:
        return None
    try:
        return _in_utc(at)
    except ValueError as error:
        raise Invalid(field, str(error)) from None


def _in_utc(at: datetime) -> datetime:
    if at.utcoffset() is None:
        message = "the time has no offset from UTC: use a form such as 2026-03-03T09:30:00Z"
        raise ValueError(message)
    try:
        return at.astimezone(UTC)
    except OverflowError:
        message = "the time is out of range: use the years 1 to 9999 in UTC"
        raise ValueError(message) from None
