"""``POST /v1/keys``."""

import re

import pytest

from tests.api.served import KEY_FIELDS, SOURCE, Api, invalid, refused
from tests.conftest import NOON

ASKED = {"name": "payments-api", "scopes": ["mcp:read", "mcp:write"]}


@pytest.mark.only_on("sqlite")
class TestUnauthorized:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    def test_nobody_makes_a_key_without_a_credential(self, api: Api) -> None:
        refused(api.post("/v1/keys", by=None, json=ASKED), 401, "UNAUTHENTICATED")

    def test_a_key_that_may_only_read_makes_none(self, api: Api) -> None:
        reader = api.make("api-keys:read")
        refused(api.post("/v1/keys", by=reader, json=ASKED), 403, "INSUFFICIENT_SCOPE")

    def test_nobody_grants_a_scope_that_they_do_not_hold(self, api: Api) -> None:
        writer = api.make("api-keys:write", "mcp:read")
        before = api.position()
        answer = api.post("/v1/keys", by=writer, json=ASKED)
        problem = refused(answer, 403, "SCOPE_NOT_HELD")
        assert "mcp:write" in problem["detail"]
        assert "mcp:read" not in problem["detail"]
        assert api.position() == before

    def test_a_narrow_scope_does_not_grant_a_wildcard(self, api: Api) -> None:
        writer = api.make("api-keys:write", "mcp:read")
        asked = {"name": "a", "scopes": ["mcp:*"]}
        refused(api.post("/v1/keys", by=writer, json=asked), 403, "SCOPE_NOT_HELD")


@pytest.mark.only_on("sqlite")
class TestRefused:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": ""}, "name"),
            ({"name": "   "}, "name"),
            ({"name": "n" * 121}, "name"),
            ({"name": None}, "name"),
            ({"name": 7}, "name"),
            ({"name": "two\nlines"}, "name"),
            ({"scopes": []}, "scopes"),
            ({"scopes": None}, "scopes"),
            ({"scopes": "mcp:read"}, "scopes"),
            ({"scopes": [f"mcp:s{n}" for n in range(65)]}, "scopes"),
            ({"scopes": ["mcp"]}, "scopes"),
            ({"scopes": ["MCP:READ"]}, "scopes"),
            ({"scopes": ["mcp:"]}, "scopes"),
            ({"scopes": ["a:" + "b" * 127]}, "scopes.0"),
            ({"scopes": ["mcp:read", 7]}, "scopes.1"),
            ({"expires_at": "2026-03-03T12:00:00Z"}, "expires_at"),
            ({"expires_at": "2026-03-03T11:59:59Z"}, "expires_at"),
            ({"expires_at": "2027-01-01T00:00:00"}, "expires_at"),
            ({"expires_at": "2026-03-03"}, "expires_at"),
            ({"expires_at": "2027-01-32"}, "expires_at"),
            ({"expires_at": "20270101"}, "expires_at"),
            ({"expires_at": "2027-02-30T00:00:00Z"}, "expires_at"),
            ({"expires_at": 1900000000}, "expires_at"),
            ({"expires_at": ""}, "expires_at"),
            ({"expires_in": 0}, "expires_in"),
            ({"expires_in": None}, "expires_in"),
            ({"expires_in": -60}, "expires_in"),
            ({"expires_in": "60"}, "expires_in"),
            ({"expires_in": 60.0}, "expires_in"),
            ({"expires_in": True}, "expires_in"),
            ({"expires_in": 10**10}, "expires_in"),
            ({"expires_in": 60, "expires_at": "2027-01-01T00:00:00Z"}, "expires_in"),
            ({"expires_in": 60, "expires_at": None}, "expires_in"),
            ({"prefix": "Key"}, "prefix"),
            ({"prefix": "k" * 17}, "prefix"),
            ({"prefix": "key_"}, "prefix"),
            ({"workspace": "acme"}, "workspace"),
            ({"role": "Admin"}, "role"),
            ({"token": "of my own"}, "token"),
        ],
        ids=repr,
    )
    def test_a_wrong_value_is_refused_by_its_name_and_nothing_is_made(
        self, api: Api, change: dict[str, object], field: str
    ) -> None:
        before = api.position()
        invalid(api.post("/v1/keys", json=ASKED | change), field)
        assert api.position() == before

    @pytest.mark.parametrize("missing", ["name", "scopes"])
    def test_a_missing_required_field_is_named(self, api: Api, missing: str) -> None:
        asked = {name: value for name, value in ASKED.items() if name != missing}
        invalid(api.post("/v1/keys", json=asked), missing)

    def test_all_errors_are_reported_at_once(self, api: Api) -> None:
        answer = api.post("/v1/keys", json={"name": 7, "scopes": [], "colour": "red"})
        invalid(answer, "name", "scopes", "colour")


class TestWorks:
    def test_the_answer_is_the_key_and_its_token(self, api: Api) -> None:
        answer = api.post("/v1/keys", json=ASKED)
        assert answer.status_code == 201
        made = answer.json()
        assert list(made) == [*KEY_FIELDS, "token"]
        token, key_id = made.pop("token"), made.pop("key_id")
        assert re.fullmatch(r"key_[0-9A-Za-z]{65}", token)
        assert re.fullmatch(r"apikey_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", key_id)
        assert made == {
            "workspace": "default",
            "name": "payments-api",
            "prefix": token[:12] + "...",
            "scopes": ["mcp:read", "mcp:write"],
            "role": "Member",
            "status": "active",
            "expires_at": None,
            "created_at": "2026-03-03T12:00:00.000000Z",
            "created_by": {"type": "key", "id": api.root.key_id},
            "revoked_at": None,
            "revoked_by": None,
            "revoke_reason": None,
            "rotated_from": None,
            "rotated_to": None,
            "last_used_at": None,
            "version": 1,
        }

    def test_its_headers_say_where_it_is_and_that_it_is_not_to_be_kept(self, api: Api) -> None:
        answer = api.post("/v1/keys", json=ASKED)
        assert answer.headers["Location"] == f"/v1/keys/{answer.json()['key_id']}"
        assert answer.headers["ETag"] == '"1"'
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Idempotent-Replayed" not in answer.headers

    @pytest.mark.parametrize("workspace", ["default", "root", "acme"])
    def test_its_maker_finds_it_at_its_location(self, api: Api, workspace: str) -> None:
        answer = api.post("/v1/keys", params={"workspace": workspace}, json=ASKED)
        found = api.get(answer.headers["Location"])
        assert found.status_code == 200
        assert found.json() == {
            name: value for name, value in answer.json().items() if name != "token"
        }

    def test_the_token_opens_what_its_scopes_allow(self, api: Api) -> None:
        key = api.make("api-keys:read")
        assert api.get("/v1/keys", by=key).status_code == 200
        refused(api.post("/v1/keys", by=key, json=ASKED), 403, "INSUFFICIENT_SCOPE")

    def test_the_token_begins_with_the_prefix_asked_for(self, api: Api) -> None:
        key = api.make(prefix="blnk")
        assert key.token.startswith("blnk_")
        assert key.document["prefix"] == key.token[:13] + "..."

    def test_the_name_loses_the_blanks_around_it(self, api: Api) -> None:
        assert api.make(name="  payments-api ").document["name"] == "payments-api"

    def test_a_name_may_be_of_any_script(self, api: Api) -> None:
        assert api.make(name="πληρωμές 🔑").document["name"] == "πληρωμές 🔑"

    def test_repeated_scopes_are_one(self, api: Api) -> None:
        assert api.make("a:b", "c:d", "a:b").document["scopes"] == ["a:b", "c:d"]

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("2027-03-03T09:30:00Z", "2027-03-03T09:30:00.000000Z"),
            ("2027-03-03t09:30:00z", "2027-03-03T09:30:00.000000Z"),
            ("2027-03-03T09:30:00.25+02:00", "2027-03-03T07:30:00.250000Z"),
            ("2027-03-03 09:30:00-00:30", "2027-03-03T10:00:00.000000Z"),
            ("2026-03-03T12:00:00.000001Z", "2026-03-03T12:00:00.000001Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            ("2027-03-03", "2027-03-03T00:00:00.000000Z"),
            (None, None),
        ],
    )
    def test_its_end_is_shown_in_utc(self, api: Api, given: str | None, shown: str | None) -> None:
        assert api.make(expires_at=given).document["expires_at"] == shown

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (1, "2026-03-03T12:00:01.000000Z"),
            (86_400, "2026-03-04T12:00:00.000000Z"),
            (3_153_600_000, "2126-02-07T12:00:00.000000Z"),
        ],
    )
    def test_expires_in_counts_from_now(self, api: Api, seconds: int, shown: str) -> None:
        assert api.make(expires_in=seconds).document["expires_at"] == shown

    def test_two_keys_may_have_the_same_name(self, api: Api) -> None:
        assert api.make().key_id != api.make().key_id

    def test_the_history_has_actor_address_and_request_id(self, api: Api) -> None:
        answer = api.post("/v1/keys", headers={"X-Request-Id": "req-7"}, json=ASKED)
        [event] = api.get(f"/v1/keys/{answer.json()['key_id']}/events").json()["data"]
        assert event["type"] == "ApiKey.Created"
        assert event["actor"] == {"type": "key", "id": api.root.key_id}
        assert event["request_id"] == "req-7"
        assert event["source_ip"] == SOURCE
        assert event["occurred_at"] == NOON.strftime("%Y-%m-%dT%H:%M:%S.000000Z")

    def test_the_settings_say_what_tokens_begin_with(self, api: Api) -> None:
        assert api.make().token.startswith(f"{api.settings.token_prefix}_")
