"""When a key is to end: the choices of the forms, and the times they stand for."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, get_args

from domain.errors import Invalid
from domain.times import checked

Choice = Literal["7", "30", "60", "90", "date", "never"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
DEFAULT: Choice = "30"

_END_OF_DAY = time(23, 59, 59, tzinfo=UTC)


def label(choice: Choice) -> str:
    """Return what a choice is called."""
    return {"date": "On a date", "never": "Never"}.get(choice, f"{choice} days")


def end_of(choice: str, day: str, *, now: datetime) -> datetime | None:
    """Return the time that a choice stands for; ``None`` is never.

    Args:
        choice: one of `CHOICES`.
        day: as a date field sends it, for the choice ``date``: the key ends with that day, in UTC.

    Raises:
        Invalid: it is no choice, or the day is none.
    """
    if choice == "never":
        return None
    if choice == "date":
        try:
            return checked("expires_at", datetime.combine(date.fromisoformat(day), _END_OF_DAY))
        except ValueError:
            raise Invalid("expires_at", "choose a day, as in 2027-03-31") from None
    if choice not in CHOICES:
        raise Invalid("expires_at", "choose when the key is to end")
    return now + timedelta(days=int(choice))
