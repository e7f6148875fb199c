"""Cursors are valid for the query that they come from, and reveal nothing to others."""

import base64
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.served import Api, invalid

pytestmark = pytest.mark.only_on("sqlite")

ACME = {"workspace": "acme", "limit": "1"}


@pytest.fixture
def api(shared_api: Api) -> Api:
    return shared_api


@pytest.fixture(scope="module")
def cursor(shared_api: Api) -> str:
    """The cursor after the first of three keys of the workspace ``acme``."""
    for _ in range(3):
        shared_api.make()
    cursor: str = shared_api.get("/v1/keys", params=ACME).json()["next_cursor"]
    return cursor


class TestOneQueryOnly:
    @pytest.mark.parametrize(
        "change",
        [
            {"workspace": "other"},
            {"workspace": "root"},
            {"status": "active"},
            {"q": "payments"},
            {"scope": "mcp:read"},
            {"created_by": "ada"},
            {"expires_before": "2027-01-01T00:00:00Z"},
            {"as_of": "2026-03-03T12:00:00Z"},
        ],
        ids=repr,
    )
    def test_it_is_refused_with_another_filter_or_workspace(
        self, api: Api, cursor: str, change: dict[str, str]
    ) -> None:
        invalid(api.get("/v1/keys", params=ACME | {"cursor": cursor} | change), "cursor")

    def test_one_query_may_change_the_length_of_its_pages(self, api: Api, cursor: str) -> None:
        page = api.get("/v1/keys", params=ACME | {"cursor": cursor, "limit": "2"}).json()
        assert len(page["data"]) == 2
        assert page["next_cursor"] is None

    def test_another_credential_of_the_workspace_may_go_on_with_it(
        self, api: Api, cursor: str
    ) -> None:
        answer = api.get("/v1/keys", by=api.admin(), params={"cursor": cursor})
        assert len(answer.json()["data"]) == 2

    def test_a_credential_of_another_workspace_may_not(self, api: Api, cursor: str) -> None:
        admin = api.admin("other")
        invalid(api.get("/v1/keys", by=admin, params={"cursor": cursor}), "cursor")

    def test_a_list_refuses_the_cursor_of_a_history(self, api: Api) -> None:
        key = api.revoked()
        page = api.get(f"{key.path}/events", params=ACME).json()
        invalid(api.get("/v1/keys", params=ACME | {"cursor": page["next_cursor"]}), "cursor")


def spelled(*content: object) -> str:
    """Encode any content as a cursor."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


class TestAltered:
    def test_no_altered_cursor_does_more_than_be_refused(self, api: Api, cursor: str) -> None:
        place = st.integers(0, len(cursor) - 1)

        @settings(
            max_examples=150,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        @given(place, place, st.text(max_size=4))
        def hold(start: int, end: int, put: str) -> None:
            altered = cursor[:start] + put + cursor[end:]
            answer = api.get("/v1/keys", params=ACME | {"cursor": altered})
            assert answer.status_code in {200, 422}
            if answer.status_code == 422:
                invalid(answer, "cursor")

        hold()

    def test_no_made_up_cursor_does_more_than_be_refused(self, api: Api, cursor: str) -> None:
        _, fingerprint = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        numbers = st.one_of(
            st.integers(), st.sampled_from([0, -1, 2**63 - 1, 2**63, 2**64]), st.floats()
        )
        anything = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5))

        @settings(
            max_examples=150,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        @given(st.one_of(anything, st.lists(anything)), st.one_of(st.just(fingerprint), anything))
        def hold(position: object, fingerprint: object) -> None:
            made_up = spelled(position, fingerprint)
            answer = api.get("/v1/keys", params=ACME | {"cursor": made_up})
            if answer.status_code == 200:
                assert type(position) is int
                assert {key["workspace"] for key in answer.json()["data"]} <= {"acme"}
            else:
                invalid(answer, "cursor")

        hold()

    @pytest.mark.parametrize(
        "made_up", ["A" * 8_000, "=" * 4, spelled(), spelled(1), "W10", "é", "\x00", spelled([[]])]
    )
    def test_a_malformed_cursor_is_refused(self, api: Api, made_up: str) -> None:
        invalid(api.get("/v1/keys", params=ACME | {"cursor": made_up}), "cursor")
