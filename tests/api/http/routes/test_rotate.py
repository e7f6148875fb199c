"""``POST /v1/keys/{key_id}/rotate``."""

import pytest
from httpx2 import Response

from tests.api.served import KEY_FIELDS, UNKNOWN_KEY_ID, Api, Key, invalid, refused

ACME = {"workspace": "acme"}


def rotate(api: Api, key: Key, grace: int | None = None, by: Key | None = None) -> Response:
    return api.post(
        f"{key.path}/rotate",
        by=by or "root",
        params=ACME if by is None else {},
        json=None if grace is None else {"grace_seconds": grace},
    )


def code(api: Api, token: str) -> str:
    asked = {"token": token}
    verdict: str = api.post("/v1/verify", params=ACME, json=asked).json()["code"]
    return verdict


@pytest.mark.only_on("sqlite")
class TestUnauthorized:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    def test_nobody_rotates_without_a_credential(self, api: Api) -> None:
        refused(api.post(f"{api.make().path}/rotate", by=None), 401, "UNAUTHENTICATED")

    def test_a_key_that_may_only_read_rotates_nothing(self, api: Api) -> None:
        answer = rotate(api, api.make(), by=api.make("api-keys:read"))
        refused(answer, 403, "INSUFFICIENT_SCOPE")

    def test_nobody_gets_a_secret_for_more_than_they_hold(self, api: Api) -> None:
        key = api.make("mcp:read", "mcp:write")
        writer = api.make("api-keys:write", "mcp:read")
        refused(rotate(api, key, by=writer), 403, "SCOPE_NOT_HELD")
        assert api.event_types(key) == ["Created"]


class TestNotFound:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    @pytest.mark.parametrize("key_id", [UNKNOWN_KEY_ID, "apikey_", "%00"])
    def test_a_malformed_key(self, api: Api, key_id: str) -> None:
        refused(api.post(f"/v1/keys/{key_id}/rotate"), 404, "KEY_NOT_FOUND")


@pytest.mark.only_on("sqlite")
class TestRefused:
    @pytest.mark.parametrize(
        "grace", [-1, 1.5, 1.0, "60", True, None, 10**400, 10 * 365 * 86_400 + 1]
    )
    def test_a_grace_that_is_no_number_of_seconds(self, api: Api, grace: object) -> None:
        key = api.make()
        answer = api.post(f"{key.path}/rotate", params=ACME, json={"grace_seconds": grace})
        invalid(answer, "grace_seconds")
        assert api.event_types(key) == ["Created"]

    @pytest.mark.parametrize("end", ["2026-03-03T12:00:00Z", "tomorrow", 60])
    def test_an_end_that_is_not_after_now(self, api: Api, end: object) -> None:
        key = api.make()
        answer = api.post(f"{key.path}/rotate", params=ACME, json={"expires_at": end})
        invalid(answer, "expires_at")
        assert api.event_types(key) == ["Created"]

    def test_an_unknown_field(self, api: Api) -> None:
        answer = api.post(f"{api.make().path}/rotate", params=ACME, json={"name": "new"})
        invalid(answer, "name")

    def test_a_key_is_rotated_once(self, api: Api) -> None:
        key = api.make()
        successor = rotate(api, key, grace=60).json()
        before = api.position()
        problem = refused(rotate(api, key, grace=60), 409, "ALREADY_ROTATED")
        assert successor["key_id"] in problem["detail"]
        assert api.position() == before

    def test_a_revoked_key_has_no_successor(self, api: Api) -> None:
        refused(rotate(api, api.revoked()), 409, "KEY_REVOKED")

    def test_an_expired_key_has_no_successor(self, api: Api) -> None:
        key = api.make(expires_at="2026-03-03T13:00:00Z")
        api.clock.advance(hours=1)
        refused(rotate(api, key), 409, "KEY_EXPIRED")


class TestWorks:
    def test_the_answer_is_the_successor_and_its_token(self, api: Api) -> None:
        key = api.make("mcp:read", "x:y", prefix="blnk", name="payments")
        api.clock.advance(hours=1)
        answer = rotate(api, key)
        assert answer.status_code == 201
        made = answer.json()
        assert list(made) == [*KEY_FIELDS, "token"]
        assert answer.headers["ETag"] == '"1"'
        assert answer.headers["Cache-Control"] == "no-store"
        assert made["token"].startswith("blnk_")
        assert made["token"] != key.token
        assert made == key.document | {
            "key_id": made["key_id"],
            "token": made["token"],
            "prefix": made["token"][:13] + "...",
            "created_at": "2026-03-03T13:00:00.000000Z",
            "rotated_from": key.key_id,
        }

    @pytest.mark.parametrize("workspace", ["default", "root", "acme"])
    def test_the_successor_is_found_at_its_location(self, api: Api, workspace: str) -> None:
        key = api.make(workspace=workspace)
        answer = api.post(f"{key.path}/rotate", params={"workspace": workspace})
        found = api.get(answer.headers["Location"])
        assert found.json() | {"token": answer.json()["token"]} == answer.json()

    @pytest.mark.parametrize("own_end", [None, "2026-03-04T12:00:00.000000Z"])
    @pytest.mark.parametrize("end", [None, "2026-06-01T12:00:00.000000Z"])
    def test_the_end_of_the_successor_can_be_chosen(
        self, api: Api, own_end: str | None, end: str | None
    ) -> None:
        key = api.make(expires_at=own_end)
        answer = api.post(f"{key.path}/rotate", params=ACME, json={"expires_at": end})
        assert answer.json()["expires_at"] == end

    def test_without_an_end_the_successor_lives_as_long_as_the_old_key_was_meant_to(
        self, api: Api
    ) -> None:
        key = api.make(expires_at="2026-03-04T12:00:00Z")
        api.clock.advance(hours=23)
        assert rotate(api, key).json()["expires_at"] == "2026-03-05T11:00:00.000000Z"

    def test_without_grace_the_old_token_ends_at_once(self, api: Api) -> None:
        key = api.make()
        successor = rotate(api, key).json()
        assert code(api, key.token) == "EXPIRED"
        assert code(api, successor["token"]) == "VALID"
        old = api.show(key)
        assert old["rotated_to"] == successor["key_id"]
        assert old["status"] == "expired"
        assert old["expires_at"] == "2026-03-03T12:00:00.000000Z"

    def test_within_the_grace_both_tokens_are_good(self, api: Api) -> None:
        key = api.make()
        successor = rotate(api, key, grace=60).json()
        api.clock.advance(seconds=60, microseconds=-1)
        assert [code(api, key.token), code(api, successor["token"])] == ["VALID", "VALID"]
        api.clock.advance(microseconds=1)
        assert [code(api, key.token), code(api, successor["token"])] == ["EXPIRED", "VALID"]

    def test_grace_never_extends_the_old_key(self, api: Api) -> None:
        key = api.make(expires_at="2026-03-03T12:00:30Z")
        rotate(api, key, grace=60)
        assert api.show(key)["expires_at"] == "2026-03-03T12:00:30.000000Z"

    def test_the_successor_lives_as_long_from_now_as_the_old_key_was_meant_to(
        self, api: Api
    ) -> None:
        key = api.make(expires_at="2026-03-04T12:00:00Z")
        api.clock.advance(hours=12)
        assert rotate(api, key).json()["expires_at"] == "2026-03-05T00:00:00.000000Z"

    def test_the_successor_can_be_rotated_in_its_turn(self, api: Api) -> None:
        first = rotate(api, api.make(), grace=60).json()
        second = rotate(api, Key(first["key_id"], first["token"], first), grace=60)
        assert second.status_code == 201
        assert second.json()["rotated_from"] == first["key_id"]

    def test_a_key_that_may_do_everything_can_rotate_itself(self, api: Api) -> None:
        admin = api.admin()
        made = rotate(api, admin, by=admin)
        assert made.status_code == 201
        refused(api.get("/v1/keys", by=admin), 401, "EXPIRED")
        assert api.get("/v1/keys", by=made.json()["token"]).status_code == 200
