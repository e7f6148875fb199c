"""Content negotiation with ``Accept`` (RFC 9110, section 12.5.1)."""

import pytest
from starlette.exceptions import HTTPException

from api.http.accept import form_of_answer

OFFERED = ("application/json", "text/csv", "text/event-stream")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ([], "application/json"),
        ([""], "application/json"),
        (["*/*"], "application/json"),
        (["text/csv"], "text/csv"),
        (["TEXT/CSV"], "text/csv"),
        (["text/*"], "text/csv"),
        (["text/csv, application/json"], "application/json"),
        (["text/csv", "application/json;q=0.9"], "text/csv"),
        (["text/csv;q=0.1, application/json;q=0.2"], "application/json"),
        (["text/csv;q=0.001, image/png"], "text/csv"),
        (["*/*;q=0.1, text/csv;q=0.2"], "text/csv"),
        # The most specific range decides (section 12.5.1).
        (["*/*, application/json;q=0"], "text/csv"),
        (["text/*;q=0.3, text/event-stream;q=0.5, */*;q=0.1"], "text/event-stream"),
        (["text/*, text/csv;q=0.1, application/*;q=0.9"], "text/event-stream"),
        (["text/csv; header=present; q=0.5, application/json;q=0.4"], "text/csv"),
        (["text/csv ; Q=1.000 ,*/*;q=0.5"], "text/csv"),
        (["nonsense, text/csv"], "text/csv"),
        (["nonsense"], "application/json"),
    ],
    ids=str,
)
def test_the_preferred_type_is_returned(accept: list[str], chosen: str) -> None:
    assert form_of_answer(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", ["image/png", "text/csv;q=0", "*/*;q=0", "image/*, text/html"])
def test_an_unacceptable_type_is_refused(accept: str) -> None:
    with pytest.raises(HTTPException) as refused:
        form_of_answer([accept], OFFERED)
    assert refused.value.status_code == 406
    assert "application/json, text/csv, text/event-stream" in refused.value.detail
