"""CSV records are not executed by spreadsheets."""

import csv
import io

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.formats.event_formats import entry_as_json, header, lines, messages, records
from domain.errors import ProjectionInconsistent
from projections.queries.feed import FeedEntry


def entry(**values: object) -> FeedEntry:
    event = {
        "actor": {"id": "ada", "type": "cli"},
        "data": {},
        "key_id": None,
        "occurred_at": "2026-03-03T12:00:00.000000Z",
        "request_id": None,
        "source_ip": None,
        "type": "ApiKey.Renamed",
        "version": 2,
    } | values
    return FeedEntry(3, 7, "acme", orjson.dumps(event))


def read_back(written: bytes) -> dict[str, str]:
    text = io.StringIO((header() + written).decode(), newline="")
    [record] = csv.DictReader(text, strict=True)
    return record


@given(actor=st.text(st.characters(exclude_categories=["Cs"])))
def test_no_cell_begins_a_formula_and_every_other_is_as_it_was(actor: str) -> None:
    read = read_back(records([entry(actor={"type": "cli", "id": actor})]))["actor_id"]
    assert not read.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert read in (actor, f"'{actor}")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"])  # noqa: RUF001
def test_a_text_that_looks_like_a_formula_gets_an_apostrophe(text: str) -> None:
    actor = {"type": "cli", "id": text}
    assert read_back(records([entry(actor=actor)]))["actor_id"] == f"'{text}"
    assert read_back(records([entry(request_id=text)]))["request_id"] == f"'{text}"


def test_names_with_quotes_commas_and_line_ends_stay_in_their_cell() -> None:
    name = 'a "quoted", name\r\nof two lines'
    record = read_back(records([entry(data={"name": name})]))
    assert orjson.loads(record["data"]) == {"name": name}


def test_a_message_is_one_line_of_data_whatever_the_event_says() -> None:
    found = entry(data={"name": "a\r\nb\nid: 9\n\ndata: c"})
    assert messages([found]) == b"id: 7\ndata: " + lines([found])[:-1] + b"\n\n"
    assert lines([found]).count(b"\n") == 1


@pytest.mark.parametrize("form", [lambda each: records([each]), entry_as_json], ids=["CSV", "JSON"])
def test_a_damaged_entry_is_reported(form: object) -> None:
    damaged = entry()._replace(entry=b'{"type":')
    with pytest.raises(ProjectionInconsistent, match="entry 3 is damaged"):
        form(damaged)  # type: ignore[operator]
