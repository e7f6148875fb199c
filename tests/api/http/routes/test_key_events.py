"""``GET /v1/keys/{key_id}/events``."""

import hashlib

import pytest

from tests.api.served import UNKNOWN_KEY_ID, Api, invalid, refused

ACME = {"workspace": "acme"}


@pytest.mark.only_on("sqlite")
class TestUnauthorized:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    def test_nobody_reads_a_history_without_a_credential(self, api: Api) -> None:
        refused(api.get(f"{api.make().path}/events", by=None), 401, "UNAUTHENTICATED")

    def test_a_key_that_may_only_write_reads_none(self, api: Api) -> None:
        writer = api.make("api-keys:write")
        refused(api.get(f"{writer.path}/events", by=writer), 403, "INSUFFICIENT_SCOPE")


class TestNotFound:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    @pytest.mark.parametrize("key_id", [UNKNOWN_KEY_ID, "apikey_", "%00", "a" * 5000])
    def test_a_malformed_key(self, api: Api, key_id: str) -> None:
        refused(api.get(f"/v1/keys/{key_id}/events"), 404, "KEY_NOT_FOUND")


@pytest.mark.only_on("sqlite")
class TestRefused:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    @pytest.mark.parametrize("query", ["limit=0", "limit=101", "cursor=x", "as_of=x", "status=x"])
    def test_a_wrong_parameter(self, api: Api, query: str) -> None:
        invalid(api.get(f"{api.root.path}/events?{query}"), query.partition("=")[0])

    def test_a_cursor_of_another_keys_history(self, api: Api) -> None:
        keys = [api.make(), api.make()]
        for key in keys:
            api.revoke(key)
        page = api.get(f"{keys[0].path}/events", params=ACME | {"limit": 1}).json()
        query = ACME | {"cursor": page["next_cursor"]}
        invalid(api.get(f"{keys[1].path}/events", params=query), "cursor")
        assert api.get(f"{keys[0].path}/events", params=query).status_code == 200


class TestWorks:
    def test_a_replay_begins_with_the_creation(self, api: Api) -> None:
        key = api.make(expires_at="2026-04-01T00:00:00Z")
        changes = {"name": "new", "scopes": ["x:y"], "expires_at": "2026-05-01T00:00:00Z"}
        api.patch(key.path, params=ACME, json=changes)
        api.post(f"{key.path}/rotate", params=ACME, json={"grace_seconds": 60})
        api.revoke(key)
        events = api.history(key)
        assert [event["type"] for event in events] == [
            "ApiKey.Created",
            "ApiKey.Renamed",
            "ApiKey.ScopesChanged",
            "ApiKey.ExpirationChanged",
            "ApiKey.Rotated",
            "ApiKey.Revoked",
        ]
        assert [event["version"] for event in events] == [1, 2, 3, 4, 5, 6]
        positions = [event["position"] for event in events]
        assert positions == sorted(set(positions))
        assert {event["key_id"] for event in events} == {key.key_id}
        assert all(
            list(event)
            == [
                "position", "type", "key_id", "version", "occurred_at", "actor", "request_id",
                "source_ip", "data",
            ]
            for event in events
        )  # fmt: skip
        assert [event["data"] for event in events[1:4]] == [
            {"name": "new"},
            {"scopes": ["x:y"]},
            {"expires_at": "2026-05-01T00:00:00.000000Z"},
        ]

    def test_an_entry_has_only_the_hash_of_the_verifier(self, api: Api) -> None:
        [event] = api.history(api.make())
        assert "verifier" not in event["data"]
        assert len(event["data"]["verifier_sha256"]) == len(hashlib.sha256().hexdigest())
        assert "$argon2" not in str(event)

    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
    def test_following_the_cursors_gives_every_event_once(self, api: Api, limit: int) -> None:
        key = api.make()
        changes = {"name": "new", "scopes": ["x:y"]}
        api.patch(key.path, params=ACME, json=changes)
        api.revoke(key)
        whole = api.history(key)
        query: dict[str, object] = ACME | {"limit": limit}
        found = []
        while True:
            page = api.get(f"{key.path}/events", params=query).json()
            found += page["data"]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert found == whole
        assert len(whole) == 4

    def test_a_successors_history_begins_with_where_it_comes_from(self, api: Api) -> None:
        key = api.make()
        successor = api.post(f"{key.path}/rotate", params=ACME).json()
        answer = api.get(f"/v1/keys/{successor['key_id']}/events", params=ACME).json()
        assert answer["data"][0]["data"]["rotated_from"] == key.key_id
        assert api.history(key)[-1]["data"]["successor_id"] == successor["key_id"]
