"""Times and durations in the form in which people type and read them."""

from datetime import UTC, datetime, timedelta

import pytest

from api.command_line.time_formats import from_now, parse_duration, parse_end, parse_time
from domain.errors import Invalid

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("45s", timedelta(seconds=45)),
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        (" 2w ", timedelta(weeks=2)),
        ("0s", timedelta(0)),
    ],
)
def test_a_duration_is_a_number_and_its_unit(text: str, span: timedelta) -> None:
    assert parse_duration("grace", text) == span


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "1.5h", "1h30m", "30 d", "1y", "\u0663d", "9999999999s"]
)
def test_anything_else_is_not_a_duration(text: str) -> None:
    with pytest.raises(Invalid, match="grace: use a number and a unit"):
        parse_duration("grace", text)


@pytest.mark.parametrize("text", ["2026-03-03T12:00:00Z", " 2026-03-03T14:00+02:00 "])
def test_a_time_has_its_offset(text: str) -> None:
    assert parse_time("at", text) == NOON


def test_a_date_alone_is_midnight_utc() -> None:
    assert parse_time("at", "2026-03-03") == NOON.replace(hour=0)


@pytest.mark.parametrize("text", ["", "2026-03-03T12:00:00", "2026-02-30", "20260303", "noon"])
def test_other_texts_are_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(Invalid, match="2027-03-03T09:30:00Z, or a date, such as 2027-03-03"):
        parse_time("at", text)


@pytest.mark.parametrize("text", ["999999999w", "999999999d", "9999999w"])
def test_no_duration_leads_beyond_the_last_year(text: str) -> None:
    with pytest.raises(Invalid, match="expires_in"):
        parse_end(None, text, now=NOON)


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(days=12), "in 12 days"),
        (timedelta(days=30, seconds=-1), "in 30 days"),
        (timedelta(days=4000), "in 4,000 days"),
        (timedelta(hours=36), "in 36 hours"),
        (timedelta(hours=1), "in 60 minutes"),
        (timedelta(seconds=90), "in 90 seconds"),
        (timedelta(seconds=1), "in 1 second"),
        (timedelta(0), "0 seconds ago"),
        (-timedelta(days=3), "3 days ago"),
    ],
)
def test_a_duration_is_shown_in_one_unit(span: timedelta, words: str) -> None:
    assert from_now(NOON + span, NOON) == words
