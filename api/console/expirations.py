"""When a key expires: the choices of the forms, and the times they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from domain.errors import Invalid
from domain.times import checked

SAME = "same"
"""Keep the end that the form starts from."""

NEVER = "never"
ON_A_DATE = "date"
DEFAULT = "30"
_DAYS = ("7", "30", "60", "90")
_END_OF_DAY = time(23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of an expiration.

    Args:
        value: what the form sends.
        label: what the page calls it.
        at: the time it stands for, where that is known in advance.
    """

    value: str
    label: str
    at: datetime | None = None


def choices(now: datetime, *, latest: datetime | None = None) -> Sequence[Choice]:
    """Return the choices of an expiration.

    Args:
        latest: the latest end that is allowed; ``None`` allows every end, and none at all.
    """
    ends = [Choice(days, f"In {days} days", now + timedelta(days=int(days))) for days in _DAYS]
    allowed = [each for each in ends if latest is None or (each.at and each.at <= latest)]
    never = [Choice(NEVER, "Never")] if latest is None else []
    return [*allowed, Choice(ON_A_DATE, "On a date"), *never]


def choices_from(
    end: datetime | None, label: str, now: datetime, *, latest: datetime | None = None
) -> Sequence[Choice]:
    """Return the choices of a form that starts from an end.

    Args:
        end: the end to start from; ``None`` is never.
        label: what the page calls the choice that keeps it.
        latest: as in `choices`.
    """
    others = choices(now, latest=latest)
    if end is None:
        others = [each for each in others if each.value != NEVER]
    return [Choice(SAME, label if end else f"{label}: never", end), *others]


def end_of(choice: str, day: str, *, now: datetime) -> datetime | None:
    """Return the time that a choice other than `SAME` stands for; ``None`` is never.

    Args:
        choice: the value of one of the `choices`.
        day: the value of the date field, for `ON_A_DATE`: the key expires when that day ends in
            UTC.

    Raises:
        Invalid: there is no such choice, or the day is not a date.
    """
    if choice == NEVER:
        return None
    if choice == ON_A_DATE:
        try:
            return checked("expires_at", datetime.combine(date.fromisoformat(day), _END_OF_DAY))
        except ValueError:
            raise Invalid("expires_at", "choose a date, as in 2027-03-31") from None
    if choice not in _DAYS:
        raise Invalid("expires_at", "choose when the key expires")
    return now + timedelta(days=int(choice))
