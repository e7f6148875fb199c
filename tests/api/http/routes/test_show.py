"""``GET /v1/keys/{key_id}``."""

import pytest

from tests.api.served import KEY_FIELDS, UNKNOWN_KEY_ID, Api, invalid, refused


@pytest.mark.only_on("sqlite")
class TestUnauthorized:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    def test_nobody_sees_a_key_without_a_credential(self, api: Api) -> None:
        refused(api.get(api.make().path, by=None), 401, "UNAUTHENTICATED")

    def test_a_key_does_not_even_see_itself_without_the_scope(self, api: Api) -> None:
        key = api.make("mcp:read")
        refused(api.get(key.path, by=key), 403, "INSUFFICIENT_SCOPE")


class TestNotFound:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    @pytest.mark.parametrize(
        "key_id",
        [
            UNKNOWN_KEY_ID,
            UNKNOWN_KEY_ID.upper(),
            UNKNOWN_KEY_ID.removeprefix("apikey_"),
            "apikey_",
            "%00",
            "%ff%fe",
            "a" * 5000,
        ],
    )
    @pytest.mark.parametrize("query", ["", "?as_of=2026-03-03T12:00:00Z"])
    def test_a_malformed_key(self, api: Api, key_id: str, query: str) -> None:
        refused(api.get(f"/v1/keys/{key_id}{query}"), 404, "KEY_NOT_FOUND")

    def test_a_key_before_its_creation(self, api: Api) -> None:
        key = api.make()
        query = {"workspace": "acme", "as_of": "2026-03-03T11:59:59.999999Z"}
        refused(api.get(key.path, params=query), 404, "KEY_NOT_FOUND")


@pytest.mark.only_on("sqlite")
class TestRefused:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

    @pytest.mark.parametrize("query", ["colour=red", "limit=1", "status=active"])
    def test_an_unknown_parameter(self, api: Api, query: str) -> None:
        field = query.partition("=")[0]
        invalid(api.get(f"{api.root.path}?{query}"), field)

    @pytest.mark.parametrize(
        "as_of", ["yesterday", "2026-03-03T12:00:00", "2026-03-03T12:00:00.000001Z"]
    )
    def test_an_invalid_or_future_time(self, api: Api, as_of: str) -> None:
        invalid(api.get(api.root.path, params={"as_of": as_of}), "as_of")


class TestWorks:
    def test_the_answer_is_the_key_without_its_token(self, api: Api) -> None:
        key = api.make()
        answer = api.get(key.path, params={"workspace": "acme"})
        assert answer.status_code == 200
        assert list(answer.json()) == KEY_FIELDS
        assert answer.json() | {"token": key.token} == key.document
        assert answer.headers["Cache-Control"] == "no-store"

    def test_the_etag_is_the_version(self, api: Api) -> None:
        key = api.make()
        assert api.get(key.path, params={"workspace": "acme"}).headers["ETag"] == '"1"'
        api.revoke(key)
        answer = api.get(key.path, params={"workspace": "acme"})
        assert answer.headers["ETag"] == '"2"'
        assert answer.json()["version"] == 2

    def test_the_clock_decides_whether_it_has_expired(self, api: Api) -> None:
        key = api.make(expires_at="2026-03-03T13:00:00Z")
        api.clock.advance(minutes=60, microseconds=-1)
        assert api.show(key)["status"] == "active"
        api.clock.advance(microseconds=1)
        assert api.show(key)["status"] == "expired"
        assert api.event_types(key) == ["Created"]

    def test_as_of_a_time_it_is_what_it_was(self, api: Api) -> None:
        key = api.make(expires_at="2026-03-03T14:00:00Z")
        api.clock.advance(hours=1)
        api.revoke(key)
        api.clock.advance(hours=2)
        query = {"workspace": "acme", "as_of": "2026-03-03T12:59:59Z"}
        then = api.get(key.path, params=query).json()
        assert then | {"token": key.token} == key.document
        query["as_of"] = "2026-03-03T13:00:00Z"
        then = api.get(key.path, params=query)
        assert then.json()["status"] == "revoked"
        assert then.headers["ETag"] == '"2"'
