"""RFC 7662, token introspection."""

from urllib.parse import urlencode

import pytest
from httpx2 import Response

from tests.api.served import Api, Json, Key, refused

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

PATH = "/v1/introspect"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
INACTIVE = {"active": False}
MEMBERS = {"active", "scope", "client_id", "sub", "token_type"}


@pytest.fixture
def resource(api: Api) -> Key:
    """The client of a protected resource in the workspace acme."""
    return api.make("api-keys:verify")


def introspected(api: Api, by: Key, token: str, **more: str) -> Json:
    workspace = more.pop("workspace", None)
    params = {} if workspace is None else {"workspace": workspace}
    answer = api.post(PATH, by=by, params=params, data={"token": token, **more})
    assert answer.status_code == 200, answer.text
    document: Json = answer.json()
    return document


def sent(api: Api, by: Key, body: str, content_type: str = FORM["Content-Type"]) -> Response:
    return api.post(PATH, by=by, content=body, headers={"Content-Type": content_type})


class TestSection21:
    """Introspection request."""

    def test_the_token_comes_in_a_form(self, api: Api, resource: Key) -> None:
        assert introspected(api, resource, api.make().token)["active"] is True

    def test_the_form_may_say_its_charset(self, api: Api, resource: Key) -> None:
        body = urlencode({"token": api.make().token})
        for content_type in (
            f"{FORM['Content-Type']}; charset=UTF-8",
            FORM["Content-Type"].upper(),
        ):
            assert sent(api, resource, body, content_type).json()["active"] is True

    def test_an_escaped_token_in_json_is_accepted(self, api: Api, resource: Key) -> None:
        escaped = "".join(f"%{ord(each):02x}" for each in api.make().token)
        assert sent(api, resource, f"token={escaped}").json()["active"] is True

    @pytest.mark.parametrize("hint", ["access_token", "refresh_token", "no_such_hint", "", "☂"])
    def test_a_hint_changes_nothing(self, api: Api, resource: Key, hint: str) -> None:
        assert introspected(api, resource, api.make().token, token_type_hint=hint)["active"]
        assert introspected(api, resource, "nonsense", token_type_hint=hint) == INACTIVE

    def test_other_parameters_are_ignored(self, api: Api, resource: Key) -> None:
        assert introspected(api, resource, api.make().token, resource="https://acme.test")["active"]

    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
    def test_no_method_but_post(self, api: Api, resource: Key, method: str) -> None:
        refused(api.send(method, f"{PATH}?token=x", by=resource), 405, "METHOD_NOT_ALLOWED")

    def test_no_token_is_taken_from_a_url(self, api: Api, resource: Key) -> None:
        answer = api.post(f"{PATH}?token={api.make().token}", by=resource, headers=FORM)
        assert answer.status_code == 422

    @pytest.mark.parametrize("content_type", ["application/json", "text/plain", "", "multipart/x"])
    def test_no_other_form_is_accepted(self, api: Api, resource: Key, content_type: str) -> None:
        refused(sent(api, resource, f"token={api.make().token}", content_type), 422, "INVALID")

    @pytest.mark.parametrize("body", ["", "tokens=x", "token_type_hint=access_token", "&&=", "x"])
    def test_a_token_is_required(self, api: Api, resource: Key, body: str) -> None:
        refused(sent(api, resource, body), 422, "INVALID")

    def test_no_parameter_that_counts_comes_twice(self, api: Api, resource: Key) -> None:
        token = api.make().token
        refused(sent(api, resource, f"token={token}&token=x"), 422, "INVALID")

    @pytest.mark.parametrize("named", ["acme", "elsewhere"])
    def test_a_workspace_in_the_form_is_refused_not_ignored(
        self, api: Api, resource: Key, named: str
    ) -> None:
        body = f"token={api.make().token}&workspace={named}"
        for by in (resource, api.root):
            problem = refused(sent(api, by, body), 422, "INVALID")
            assert "?workspace=" in problem["detail"]

    @pytest.mark.parametrize("by", [None, "nonsense"])
    def test_nobody_asks_without_being_known(self, api: Api, by: str | None) -> None:
        refused(api.post(PATH, by=by, data={"token": api.make().token}), 401, "UNAUTHENTICATED")

    def test_nobody_asks_without_being_authorized(self, api: Api) -> None:
        key = api.make("mcp:read", "api-keys:read")
        refused(api.post(PATH, by=key, data={"token": key.token}), 403, "INSUFFICIENT_SCOPE")


class TestSection22:
    """Introspection response."""

    def test_an_active_token(self, api: Api, resource: Key) -> None:
        key = api.make("mcp:read", "mcp:write")
        answer = api.post(PATH, by=resource, data={"token": key.token})
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json() == {
            "active": True,
            "scope": "mcp:read mcp:write",
            "client_id": key.key_id,
            "sub": key.key_id,
            "token_type": "Bearer",
        }

    def test_the_end_is_a_number_of_seconds(self, api: Api, resource: Key) -> None:
        key = api.make(expires_at="2026-03-03T13:00:00.999Z")
        document = introspected(api, resource, key.token)
        assert document.keys() == MEMBERS | {"exp"}
        assert document["exp"] == 1_772_542_800
        assert type(document["exp"]) is int

    def test_the_end_is_reached_when_the_clock_says_so(self, api: Api, resource: Key) -> None:
        key = api.make(expires_at="2026-03-03T12:00:10Z")
        api.clock.advance(seconds=9.999999)
        assert introspected(api, resource, key.token)["active"] is True
        api.clock.advance(seconds=0.000001)
        assert introspected(api, resource, key.token) == INACTIVE

    def test_a_revoked_token(self, api: Api, resource: Key) -> None:
        assert introspected(api, resource, api.revoked().token) == INACTIVE

    def test_a_token_that_was_active_a_moment_ago(self, api: Api, resource: Key) -> None:
        key = api.make()
        assert introspected(api, resource, key.token)["active"] is True
        api.revoke(key)
        assert introspected(api, resource, key.token) == INACTIVE

    @pytest.mark.parametrize(
        "token", ["", "nonsense", "key_" + "0" * 65, "☂", "\x00", "%", "k" * 5000, "a b+c&d=e"]
    )
    def test_malformed_and_unknown_tokens(self, api: Api, resource: Key, token: str) -> None:
        assert introspected(api, resource, token) == INACTIVE

    def test_a_wrong_secret(self, api: Api, resource: Key) -> None:
        one, other = api.make().token, api.make().token
        assert introspected(api, resource, one[:20] + other[20:]) == INACTIVE

    def test_a_token_of_another_workspace(self, api: Api, resource: Key) -> None:
        elsewhere = api.make(workspace="elsewhere")
        assert introspected(api, resource, elsewhere.token) == INACTIVE
        assert introspected(api, resource, api.root.token) == INACTIVE
        assert introspected(api, api.root, elsewhere.token) == INACTIVE
        assert introspected(api, api.root, elsewhere.token, workspace="elsewhere")["active"]

    def test_only_root_may_name_another_workspace(self, api: Api, resource: Key) -> None:
        answer = api.post(
            f"{PATH}?workspace=elsewhere", by=resource, data={"token": api.make().token}
        )
        refused(answer, 403, "WORKSPACE_FORBIDDEN")


class TestSection23:
    """Error response: only about the caller."""

    def test_bad_credentials_of_the_caller(self, api: Api) -> None:
        token = api.make().token
        for by, code in ((api.revoked("*"), "REVOKED"), ("nonsense", "UNAUTHENTICATED")):
            answer = api.post(PATH, by=by, data={"token": token})
            refused(answer, 401, code)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")

    def test_a_token_that_is_not_active_is_no_error(self, api: Api, resource: Key) -> None:
        assert api.post(PATH, by=resource, data={"token": "nonsense"}).status_code == 200


class TestSection4:
    """Security considerations."""

    def test_answers_are_not_cacheable(self, api: Api, resource: Key) -> None:
        for token in (api.make().token, "nonsense"):
            answer = api.post(PATH, by=resource, data={"token": token})
            assert answer.headers["Cache-Control"] == "no-store"

    def test_the_reason_for_an_inactive_token_is_hidden(self, api: Api, resource: Key) -> None:
        tokens = (api.revoked().token, "nonsense", api.make(workspace="elsewhere").token)
        answers = {api.post(PATH, by=resource, data={"token": token}).text for token in tokens}
        assert answers == {'{"active":false}'}
