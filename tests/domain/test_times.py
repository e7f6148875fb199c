"""Times and their text form."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis.strategies import datetimes, just, timedeltas

from domain.errors import Invalid
from domain.times import checked, from_text, to_text
from tests.domain.builders import NOON, PATIENT

utc_times = datetimes(timezones=just(UTC))
offsets = timedeltas(min_value=timedelta(hours=-23), max_value=timedelta(hours=23)).map(timezone)
times_anywhere = datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 - the zone is drawn separately
    max_value=datetime(9998, 12, 31),  # noqa: DTZ001
    timezones=offsets,
)


class TestText:
    @pytest.mark.parametrize(
        ("at", "text"),
        [
            (NOON, "2026-03-03T12:00:00.000000Z"),
            (NOON.replace(microsecond=1), "2026-03-03T12:00:00.000001Z"),
            (datetime.min.replace(tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
            (datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
        ],
    )
    def test_a_time_is_written_in_full(self, at: datetime, text: str) -> None:
        assert to_text(at) == text

    @given(utc_times)
    @PATIENT
    def test_a_session_reads_back_as_written(self, at: datetime) -> None:
        again = from_text(to_text(at))

        assert again == at
        assert again.tzinfo is UTC

    @given(utc_times, utc_times)
    @PATIENT
    def test_texts_sort_as_their_times_do(self, one: datetime, other: datetime) -> None:
        assert (to_text(one) < to_text(other)) == (one < other)
        assert len(to_text(one)) == len("2026-03-03T12:00:00.000000Z")

    @given(times_anywhere)
    @PATIENT
    def test_a_time_of_another_zone_is_written_as_the_same_moment(self, at: datetime) -> None:
        assert from_text(to_text(at)) == at

    def test_a_time_without_an_offset_is_not_written(self) -> None:
        with pytest.raises(ValueError, match="offset"):
            to_text(NOON.replace(tzinfo=None))

    @pytest.mark.parametrize(
        "text",
        [
            "2026-03-03T12:00:00Z",
            "2026-03-03T12:00:00+00:00",
            "2026-03-03T13:00:00+01:00",
            "2026-03-03 06:30:00.000-05:30",
        ],
    )
    def test_other_times_with_an_offset_are_read_too(self, text: str) -> None:
        assert from_text(text) == NOON
        assert from_text(text).tzinfo is UTC

    @pytest.mark.parametrize(
        "text",
        [
            *("", "noon", "2026-03-03", "2026-03-03T12:00:00", "12:00:00Z"),
            *("2026-02-30T12:00:00Z", "2026-03-03T25:00:00Z", "0000-01-01T00:00:00Z"),
            *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"),
        ],
    )
    def test_a_text_without_time_and_offset_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            from_text(text)


class TestChecked:
    def test_none_stays_null(self) -> None:
        assert checked("expires_at", None) is None

    @pytest.mark.parametrize(
        "at",
        [
            NOON,
            NOON.astimezone(timezone(timedelta(hours=-5))),
            NOON.astimezone(ZoneInfo("Asia/Kathmandu")),
        ],
    )
    def test_a_time_becomes_utc(self, at: datetime) -> None:
        kept = checked("expires_at", at)

        assert kept == NOON
        assert kept is not None
        assert kept.tzinfo is UTC

    @pytest.mark.parametrize(
        ("at", "message"),
        [
            (NOON.replace(tzinfo=None), "offset"),
            (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "1 to 9999"),
            (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "1 to 9999"),
        ],
    )
    def test_a_time_that_cannot_be_utc_is_refused_and_named(
        self, at: datetime, message: str
    ) -> None:
        with pytest.raises(Invalid, match=message) as refusal:
            checked("expires_at", at)

        assert refusal.value.field == "expires_at"
