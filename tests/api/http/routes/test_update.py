"""``PATCH /v1/keys/{key_id}``."""

from typing import Any

import pytest
from httpx2 import Response

from tests.api.served import UNKNOWN_KEY_ID, Api, Key, invalid, refused

END = "2026-04-01T00:00:00.000000Z"


def update(api: Api, key: Key, by: Key | None = None, **changes: Any) -> Response:  # noqa: ANN401
    workspace = key.document["workspace"] if by is None else None
    params = {} if workspace is None else {"workspace": workspace}
    return api.patch(key.path, by=by or "root", params=params, json=changes)


@pytest.mark.only_on("sqlite")
class TestUnauthorized:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    def test_nobody_changes_a_key_without_a_credential(self, api: Api) -> None:
        refused(api.patch(api.make().path, by=None, json={"name": "x"}), 401, "UNAUTHENTICATED")

    def test_a_key_that_may_only_read_changes_nothing(self, api: Api) -> None:
        reader = api.make("api-keys:read")
        refused(update(api, api.make(), reader, name="x"), 403, "INSUFFICIENT_SCOPE")

    def test_nobody_adds_a_scope_that_they_do_not_hold(self, api: Api) -> None:
        key, writer = api.make("mcp:read"), api.make("api-keys:write", "mcp:read")
        answer = update(api, key, writer, scopes=["mcp:read", "mcp:write"])
        refused(answer, 403, "SCOPE_NOT_HELD")
        assert api.event_types(key) == ["Created"]

    def test_nobody_prolongs_a_key_that_may_do_more_than_they(self, api: Api) -> None:
        key = api.make("mcp:read", expires_at=END)
        writer = api.make("api-keys:write")
        refused(update(api, key, writer, expires_at=None), 403, "SCOPE_NOT_HELD")
        assert update(api, key, writer, expires_at="2026-03-20T00:00:00Z").status_code == 200


class TestNotFound:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    def test_a_missing_key(self, api: Api) -> None:
        answer = api.patch(f"/v1/keys/{UNKNOWN_KEY_ID}", json={"name": "x"})
        refused(answer, 404, "KEY_NOT_FOUND")


@pytest.mark.only_on("sqlite")
class TestRefused:
    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": None}, "name"),
            ({"name": " "}, "name"),
            ({"name": ["x"]}, "name"),
            ({"scopes": None}, "scopes"),
            ({"scopes": []}, "scopes"),
            ({"scopes": ["nonsense"]}, "scopes"),
            ({"expires_at": "2026-03-03T12:00:00Z"}, "expires_at"),
            ({"expires_at": "2026-05-01T00:00:00"}, "expires_at"),
            ({"expires_at": False}, "expires_at"),
            ({"expires_at": 0}, "expires_at"),
            ({"expires_in": None}, "expires_in"),
            ({"expires_in": 0}, "expires_in"),
            ({"expires_in": 60, "expires_at": None}, "expires_in"),
            ({"expires_in": 60, "expires_at": END}, "expires_in"),
            ({"workspace": "other"}, "workspace"),
            ({"status": "active"}, "status"),
            ({"revoked_at": None}, "revoked_at"),
        ],
        ids=repr,
    )
    def test_a_wrong_value_is_refused_and_nothing_changes(
        self, api: Api, change: dict[str, Any], field: str
    ) -> None:
        key = api.make()
        invalid(update(api, key, **change), field)
        assert api.event_types(key) == ["Created"]

    def test_a_body_is_required(self, api: Api) -> None:
        invalid(api.patch(api.root.path), "body")

    def test_all_changes_are_made_or_none(self, api: Api) -> None:
        key, writer = api.make("mcp:read"), api.make("api-keys:write", "mcp:read")
        answer = update(api, key, writer, name="new", scopes=["mcp:*"], expires_at=END)
        refused(answer, 403, "SCOPE_NOT_HELD")
        answer = update(api, key, name="new", scopes=["a:b"], expires_at="2026-03-03T11:00:00Z")
        invalid(answer, "expires_at")
        assert api.event_types(key) == ["Created"]
        assert api.show(key) | {"token": key.token} == key.document

    def test_a_revoked_key_changes_no_more(self, api: Api) -> None:
        refused(update(api, api.revoked(), name="x"), 409, "KEY_REVOKED")

    def test_an_expired_key_changes_no_more(self, api: Api) -> None:
        key = api.make(expires_at="2026-03-03T13:00:00Z")
        api.clock.advance(hours=1)
        refused(update(api, key, expires_at=None), 409, "KEY_EXPIRED")

    def test_the_end_of_a_rotated_key_cannot_become_later(self, api: Api) -> None:
        key = api.make()
        answer = api.post(
            f"{key.path}/rotate", params={"workspace": "acme"}, json={"grace_seconds": 60}
        )
        assert answer.status_code == 201
        invalid(update(api, key, expires_at=None), "expires_at")
        assert update(api, key, expires_at="2026-03-03T12:00:30Z").status_code == 200


class TestWorks:
    def test_each_change_is_an_event_and_all_are_in_the_answer(self, api: Api) -> None:
        key = api.make()
        answer = update(api, key, name="new", scopes=["x:y"], expires_at=END)
        assert answer.status_code == 200
        assert answer.headers["ETag"] == '"4"'
        assert answer.headers["Cache-Control"] == "no-store"
        changed = {"name": "new", "scopes": ["x:y"], "expires_at": END, "version": 4}
        assert answer.json() | {"token": key.token} == key.document | changed
        assert answer.json() == api.show(key)
        assert api.event_types(key) == ["Created", "Renamed", "ScopesChanged", "ExpirationChanged"]

    def test_a_missing_value_stays_missing(self, api: Api) -> None:
        key = api.make(expires_at=END)
        changed = update(api, key, name="new").json()
        assert changed["expires_at"] == END
        assert changed["scopes"] == key.document["scopes"]

    def test_expires_in_counts_from_now(self, api: Api) -> None:
        key = api.make()
        api.clock.advance(hours=1)
        assert update(api, key, expires_in=90).json()["expires_at"] == "2026-03-03T13:01:30.000000Z"

    def test_a_date_alone_is_midnight_utc(self, api: Api) -> None:
        changed = update(api, api.make(), expires_at="2026-04-01").json()
        assert changed["expires_at"] == END

    def test_null_takes_the_end_away(self, api: Api) -> None:
        key = api.make(expires_at=END)
        assert update(api, key, expires_at=None).json()["expires_at"] is None
        api.clock.advance(days=365)
        assert api.show(key)["status"] == "active"

    @pytest.mark.parametrize(
        "same", [{}, {"name": "payments-api"}, {"scopes": ["mcp:read"]}, {"expires_at": None}]
    )
    def test_no_change_is_no_event(self, api: Api, same: dict[str, Any]) -> None:
        key = api.make()
        answer = update(api, key, **same)
        assert answer.status_code == 200
        assert answer.json() | {"token": key.token} == key.document
        assert api.event_types(key) == ["Created"]

    def test_a_scope_taken_away_is_refused_from_then_on(self, api: Api) -> None:
        key = api.make("api-keys:read", "mcp:read")
        assert api.get("/v1/keys", by=key).status_code == 200
        update(api, key, scopes=["mcp:read"])
        refused(api.get("/v1/keys", by=key), 403, "INSUFFICIENT_SCOPE")
