"""``GET /v1/events``: pages of JSON, NDJSON and CSV; live streams have system tests."""

import csv
import hashlib
import io
import json
from base64 import b64encode
from itertools import chain
from typing import Any

import pytest

from tests.api.served import Api, Json, Key, invalid, refused

EVENT_FIELDS = [
    "leaf_index", "position", "type", "key_id", "version", "occurred_at", "actor", "request_id",
    "source_ip", "data",
]  # fmt: skip
COLUMNS = (
    "leaf_index,position,occurred_at,type,key_id,version,workspace,actor_type,actor_id,request_id,"
    "source_ip,data"
)
EVERYWHERE: Json = {"workspace": "*"}
NDJSON = "application/x-ndjson"


def pages(api: Api, by: Key | None = None, **query: Any) -> list[Json]:  # noqa: ANN401
    """Return the events of all pages."""
    found: list[Json] = []
    while True:
        answer = api.get("/v1/events", by=by or api.root, params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def streamed(api: Api, accept: str, **query: Any) -> Any:  # noqa: ANN401 - a Response
    answer = api.get("/v1/events", params=query, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    return answer


@pytest.fixture(scope="module")
def told(shared_api: Api) -> Api:
    """An app with events in two workspaces."""
    for workspace in ("acme", "other"):
        key = shared_api.make(workspace=workspace, name=f"of {workspace}")
        where = {"workspace": workspace}
        shared_api.patch(key.path, params=where, json={"name": f"still of {workspace}"})
        shared_api.revoke(key)
    return shared_api


@pytest.mark.only_on("sqlite")
class TestRefused:
    @pytest.mark.parametrize(
        "query",
        [
            "limit=0", "limit=101", "limit=x", "cursor=x", "after=-1", "after=x",
            "after=99999999", "after=9223372036854775808", "from=2026-03-32", "until=noon",
            "type=ApiKey.Deleted", "key_id=x", "as_of=x", "since=2026-03-03T00:00:00Z",
        ],
    )  # fmt: skip
    def test_a_wrong_parameter(self, told: Api, query: str) -> None:
        invalid(told.get(f"/v1/events?{query}"), query.partition("=")[0])

    def test_a_cursor_of_other_filters_or_another_workspace(self, told: Api) -> None:
        query = {"workspace": "acme", "limit": 1}
        cursor = told.get("/v1/events", params=query).json()["next_cursor"]
        for other in (
            {"workspace": "other"}, EVERYWHERE, {"type": "ApiKey.Created"}, {"actor": "ada"},
            {"after": 1}, {"from": "2026-03-03T00:00:00Z"}, {"until": "2026-03-04T00:00:00Z"},
        ):  # fmt: skip
            answer = told.get("/v1/events", params={**query, **other, "cursor": cursor})
            invalid(answer, "cursor")
        assert told.get("/v1/events", params=query | {"cursor": cursor}).status_code == 200

    @pytest.mark.parametrize("accept", [NDJSON, "text/csv", "text/event-stream"])
    def test_a_page_of_a_list_without_pages(self, told: Api, accept: str) -> None:
        answer = told.get("/v1/events?limit=5", headers={"Accept": accept})
        invalid(answer, "cursor")

    @pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "*/*;q=0"])
    def test_a_missing_form(self, told: Api, accept: str) -> None:
        problem = refused(told.get("/v1/events", headers={"Accept": accept}), 406, "NOT_ACCEPTABLE")
        assert NDJSON in problem["detail"]

    def test_all_workspaces_are_for_root(self, told: Api) -> None:
        answer = told.get("/v1/events", by=told.admin(), params=EVERYWHERE)
        refused(answer, 403, "WORKSPACE_FORBIDDEN")


class TestPages:
    def test_an_event_is_as_in_its_keys_history_with_its_place_in_the_tree(self, told: Api) -> None:
        key = told.make()
        told.revoke(key)
        found = pages(told, workspace="acme", key_id=key.key_id)
        assert [list(event) for event in found] == [EVENT_FIELDS] * 2
        places = [event.pop("leaf_index") for event in found]
        assert found == told.history(key)
        assert places == [places[0], places[0] + 1]

    def test_each_workspace_has_its_own_and_root_has_all(self, told: Api) -> None:
        everywhere = pages(told, **EVERYWHERE)
        assert [event["leaf_index"] for event in everywhere] == [*range(len(everywhere))]
        parts = [pages(told, workspace=each) for each in ("root", "acme", "other")]
        together = sorted(chain(*parts), key=lambda event: event["leaf_index"])
        assert together == everywhere
        assert all(parts)
        assert pages(told) == pages(told, workspace="default")

    def test_a_workspaces_credential_sees_no_other(self, told: Api) -> None:
        found = pages(told, by=told.admin("other"))
        assert found == pages(told, workspace="other")
        assert "of other" in str(found)
        assert "of acme" not in str(found)

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    def test_following_the_cursors_gives_every_event_once(self, told: Api, limit: int) -> None:
        whole = pages(told, **EVERYWHERE)
        assert pages(told, **EVERYWHERE, limit=limit) == whole

    def test_after_continues_where_a_reader_stopped(self, told: Api) -> None:
        whole = pages(told, **EVERYWHERE)
        for number, event in enumerate(whole):
            rest = pages(told, **EVERYWHERE, after=event["position"])
            assert rest == whole[number + 1 :]

    def test_times_are_half_open(self, api: Api) -> None:
        first = api.clock()
        api.make(name="first")
        second = api.clock.advance(hours=1)
        api.make(name="second")
        span: Json = {"from": first.isoformat(), "until": second.isoformat(), "workspace": "acme"}
        assert [event["data"]["name"] for event in pages(api, **span)] == ["first"]
        later: Json = {"from": second.isoformat(), "workspace": "acme"}
        assert [event["data"]["name"] for event in pages(api, **later)] == ["second"]

    def test_a_page_may_be_empty(self, told: Api) -> None:
        assert pages(told, workspace="nobody-is-here") == []


class TestNdjson:
    def test_each_line_contains_the_entry_byte_for_byte(self, told: Api) -> None:
        answer = streamed(told, NDJSON, **EVERYWHERE)
        assert answer.headers["Content-Type"] == NDJSON
        assert answer.headers["Vary"] == "Accept"
        expected = pages(told, **EVERYWHERE)
        lines = answer.content.split(b"\n")
        assert lines.pop() == b""
        assert len(lines) == len(expected)
        for line, event in zip(lines, expected, strict=True):
            read = json.loads(line)
            places = {name: read[name] for name in ("leaf_index", "position")}
            assert places | read["entry"] == event
            entry = line.partition(b'"entry":')[2][:-1]
            proof = told.get(f"/v1/proofs/inclusion?leaf_index={event['leaf_index']}").json()
            leaf_hash = hashlib.sha256(b"\0" + entry).digest()
            assert proof["leaf_hash"] == base64_of(leaf_hash)

    def test_it_is_filtered_like_the_pages(self, told: Api) -> None:
        query: Json = {"workspace": "acme", "type": "ApiKey.Renamed"}
        lines = streamed(told, NDJSON, **query).text.splitlines()
        assert [json.loads(line)["leaf_index"] for line in lines] == [
            event["leaf_index"] for event in pages(told, **query)
        ]
        assert lines

    def test_nothing_matches(self, told: Api) -> None:
        assert streamed(told, NDJSON, workspace="nobody-is-here").content == b""


class TestCsv:
    def test_it_has_a_header_and_a_record_for_each_event(self, told: Api) -> None:
        answer = streamed(told, "text/csv", **EVERYWHERE)
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="events.csv"'
        assert answer.content.startswith(COLUMNS.encode() + b"\r\n")
        assert answer.content.endswith(b"\r\n")
        records = [*csv.DictReader(io.StringIO(answer.text, newline=""), strict=True)]
        expected = pages(told, **EVERYWHERE)
        assert len(records) == len(expected)
        for record, event in zip(records, expected, strict=True):
            assert json.loads(record["data"]) == event["data"]
            assert int(record["leaf_index"]) == event["leaf_index"]
            assert record["key_id"] == event["key_id"]
            assert record["occurred_at"] == event["occurred_at"]
            assert (record["actor_type"], record["actor_id"]) == (
                event["actor"]["type"],
                event["actor"]["id"],
            )
            assert record["source_ip"] == (event["source_ip"] or "")
        assert {record["workspace"] for record in records} >= {"root", "acme", "other"}

    def test_nothing_matches(self, told: Api) -> None:
        answer = streamed(told, "text/csv", workspace="nobody-is-here")
        assert answer.content == COLUMNS.encode() + b"\r\n"


def base64_of(value: bytes) -> str:
    return b64encode(value).decode()
