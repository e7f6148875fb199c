"""Times as the fields of a page give them."""

from datetime import UTC, datetime

from domain.errors import Invalid
from domain.times import from_text


def read_time(field: str, text: str) -> datetime:
    """Return the time that a field gives; without an offset it is in UTC.

    Raises:
        Invalid: it not a time, or not in the years 1 to 9999 of UTC.
    """
    try:
        at = datetime.fromisoformat(text)
        if at.utcoffset() is None:
            at = at.replace(tzinfo=UTC)
        return from_text(at.isoformat())
    except ValueError:
        raise Invalid(field, "give a date and a time, as in 2027-03-03T09:30") from None
