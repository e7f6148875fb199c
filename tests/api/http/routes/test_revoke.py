"""``POST /v1/keys/{key_id}/revoke``."""

import pytest

from tests.api.served import UNKNOWN_KEY_ID, Api, Key, invalid, refused

ACME = {"workspace": "acme"}


@pytest.mark.only_on("sqlite")
class TestUnauthorized:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    def test_nobody_revokes_without_a_credential(self, api: Api) -> None:
        refused(api.post(f"{api.make().path}/revoke", by=None), 401, "UNAUTHENTICATED")

    def test_a_key_that_may_only_read_revokes_nothing(self, api: Api) -> None:
        reader, key = api.make("api-keys:read"), api.make()
        refused(api.post(f"{key.path}/revoke", by=reader), 403, "INSUFFICIENT_SCOPE")
        assert api.show(key)["status"] == "active"


class TestNotFound:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    @pytest.mark.parametrize("key_id", [UNKNOWN_KEY_ID, "apikey_", "%00", "a" * 5000])
    def test_a_malformed_key(self, api: Api, key_id: str) -> None:
        refused(api.post(f"/v1/keys/{key_id}/revoke"), 404, "KEY_NOT_FOUND")


@pytest.mark.only_on("sqlite")
class TestRefused:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"reason": "r" * 201}, "reason"),
            ({"reason": 7}, "reason"),
            ({"reason": "two\nlines"}, "reason"),
            ({"comment": "c" * 2001}, "comment"),
            ({"comment": "bell\x07"}, "comment"),
            ({"why": "because"}, "why"),
            (["reason"], "body"),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_a_wrong_value_is_refused_and_nothing_is_revoked(
        self, api: Api, body: object, field: str
    ) -> None:
        key = api.make()
        invalid(api.post(f"{key.path}/revoke", params=ACME, json=body), field)
        assert api.show(key)["status"] == "active"


class TestWorks:
    def test_the_answer_is_the_key_as_it_is_now(self, api: Api) -> None:
        key = api.make()
        api.clock.advance(minutes=5)
        answer = api.post(
            f"{key.path}/revoke", params=ACME, json={"reason": " leaked ", "comment": "a\nb"}
        )
        assert answer.status_code == 200
        assert answer.headers["ETag"] == '"2"'
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json() | {"token": key.token} == key.document | {
            "status": "revoked",
            "revoked_at": "2026-03-03T12:05:00.000000Z",
            "revoked_by": {"type": "key", "id": api.root.key_id},
            "revoke_reason": "leaked",
            "version": 2,
        }
        assert api.history(key)[1]["data"] == {"reason": "leaked", "comment": "a\nb"}

    @pytest.mark.parametrize("content", [b"", b"null", b"{}"])
    def test_a_reason_need_not_be_given(self, api: Api, content: bytes) -> None:
        key = api.make()
        answer = api.post(
            f"{key.path}/revoke",
            params=ACME,
            headers={"Content-Type": "application/json"},
            content=content,
        )
        assert answer.status_code == 200
        assert answer.json()["revoke_reason"] is None

    def test_the_next_request_with_its_token_is_refused(self, api: Api) -> None:
        key = api.admin()
        assert api.get("/v1/keys", by=key).status_code == 200
        api.revoke(key)
        refused(api.get("/v1/keys", by=key), 401, "REVOKED")

    def test_again_it_answers_the_original_record_and_appends_nothing(self, api: Api) -> None:
        key, admin = api.make(), api.admin()
        first = api.post(f"{key.path}/revoke", params=ACME, json={"reason": "leaked"})
        before = api.position()
        api.clock.advance(hours=1)
        again = api.post(f"{key.path}/revoke", by=admin, json={"reason": "another"})
        assert again.status_code == 200
        assert again.json() == first.json()
        assert api.position() == before

    def test_an_expired_key_can_still_be_revoked(self, api: Api) -> None:
        key = api.make(expires_at="2026-03-03T13:00:00Z")
        api.clock.advance(hours=2)
        answer = api.post(f"{key.path}/revoke", params=ACME)
        assert answer.json()["status"] == "revoked"

    def test_a_rotated_key_can_be_revoked_within_its_grace_and_leaves_its_successor(
        self, api: Api
    ) -> None:
        key = api.make()
        rotated = api.post(f"{key.path}/rotate", params=ACME, json={"grace_seconds": 60}).json()
        api.revoke(key)
        assert api.show(key)["status"] == "revoked"
        assert api.show(Key(rotated["key_id"], "", rotated))["status"] == "active"

    def test_a_key_can_revoke_itself(self, api: Api) -> None:
        admin = api.admin()
        assert api.post(f"{admin.path}/revoke", by=admin).status_code == 200
        refused(api.post(f"{admin.path}/revoke", by=admin), 401, "REVOKED")
