"""Workspaces: keys of another workspace do not exist for a credential."""

import pytest

from tests.api.served import UNKNOWN_KEY_ID, Api, Json, Key, refused

ASKED: Json = {"name": "a", "scopes": ["mcp:read"]}
# Every endpoint of one key: method, end of the path, and a body that it takes.
KEY_ENDPOINTS: list[tuple[str, str, Json | None]] = [
    ("GET", "", None),
    ("GET", "?as_of=2026-03-03T12:00:00Z", None),
    ("PATCH", "", {"name": "new"}),
    ("POST", "/revoke", {}),
    ("POST", "/rotate", {}),
    ("GET", "/events", None),
]


@pytest.fixture
def api(shared_api: Api) -> Api:
    return shared_api


@pytest.mark.parametrize(("method", "end", "body"), KEY_ENDPOINTS, ids=str)
class TestKeysOfAnotherWorkspace:
    def test_another_workspaces_keys_look_like_missing_keys(
        self, api: Api, method: str, end: str, body: Json | None
    ) -> None:
        theirs, admin = api.make(workspace="other"), api.admin("acme")
        before = api.position()
        problems = []
        for key_id in (theirs.key_id, UNKNOWN_KEY_ID):
            answer = api.send(method, f"/v1/keys/{key_id}{end}", by=admin, json=body)
            problem = refused(answer, 404, "KEY_NOT_FOUND")
            problem.pop("request_id")
            problem["detail"] = problem["detail"].replace(key_id, "ID")
            headers = {
                name: value
                for name, value in answer.headers.items()
                if name not in {"x-request-id", "content-length"}
            }
            problems.append((problem, headers))
        assert problems[0] == problems[1]
        assert api.position() == before

    def test_root_finds_them_by_naming_it(
        self, api: Api, method: str, end: str, body: Json | None
    ) -> None:
        theirs = api.make(workspace="other")
        path = f"{theirs.path}{end}"
        refused(api.send(method, path, json=body), 404, "KEY_NOT_FOUND")
        path += ("&" if "?" in path else "?") + "workspace=other"
        assert api.send(method, path, json=body).is_success

    def test_no_other_workspace_may_name_it(
        self, api: Api, method: str, end: str, body: Json | None
    ) -> None:
        theirs, admin = api.make(workspace="other"), api.admin("acme")
        path = f"{theirs.path}{end}"
        path += ("&" if "?" in path else "?") + "workspace=other"
        refused(api.send(method, path, by=admin, json=body), 403, "WORKSPACE_FORBIDDEN")

    def test_every_credential_may_name_its_own_workspace(
        self, api: Api, method: str, end: str, body: Json | None
    ) -> None:
        ours, admin = api.make(workspace="acme"), api.admin("acme")
        path = f"{ours.path}{end}"
        path += ("&" if "?" in path else "?") + "workspace=acme"
        assert api.send(method, path, by=admin, json=body).is_success


class TestCreate:
    @pytest.mark.parametrize("named", [None, "acme"])
    def test_a_key_creates_keys_in_its_own_workspace(self, api: Api, named: str | None) -> None:
        asked = ASKED | {"workspace": named}
        assert api.post("/v1/keys", by=api.admin(), json=asked).json()["workspace"] == "acme"

    @pytest.mark.parametrize("named", ["other", "root", ""])
    def test_and_in_no_other(self, api: Api, named: str) -> None:
        asked = ASKED | {"workspace": named}
        answer = api.post("/v1/keys", by=api.admin(), json=asked)
        refused(answer, 403, "WORKSPACE_FORBIDDEN")

    def test_root_makes_keys_in_any(self, api: Api) -> None:
        assert api.make(workspace="any.thing_at-all").document["workspace"] == "any.thing_at-all"

    def test_an_unknown_query_parameter_is_refused(self, api: Api) -> None:
        answer = api.post("/v1/keys", params={"workspace": "acme"}, json=ASKED)
        problem = refused(answer, 422, "INVALID")
        assert problem["errors"][0]["field"] == "workspace"


class TestList:
    @pytest.mark.parametrize("named", ["other", "root"])
    def test_only_root_may_name_another_workspace_at_all(self, api: Api, named: str) -> None:
        query = {"workspace": named}
        answer = api.get("/v1/keys", by=api.admin(), params=query)
        refused(answer, 403, "WORKSPACE_FORBIDDEN")

    def test_root_lists_its_own_unless_it_names_another(self, api: Api) -> None:
        theirs = api.make(workspace="listed")
        own = api.get("/v1/keys").json()["data"]
        assert [key["key_id"] for key in own] == [api.root.key_id]
        named = api.get("/v1/keys", params={"workspace": "listed"}).json()["data"]
        assert [key["key_id"] for key in named] == [theirs.key_id]


class TestVerify:
    def code(self, api: Api, token: str, by: Key, **named: str) -> str:
        code: str = api.post("/v1/verify", by=by, json={"token": token} | named).json()["code"]
        return code

    def test_an_altered_token_does_not_find_the_key(self, api: Api) -> None:
        theirs, ours = api.make(workspace="other"), api.make()
        admin = api.admin()
        assert self.code(api, ours.token, admin) == "VALID"
        assert self.code(api, theirs.token, admin) == "NOT_FOUND"

    def test_nothing_is_told_of_a_key_of_another(self, api: Api) -> None:
        revoked, admin = api.revoked(workspace="other"), api.admin()
        answer = api.post("/v1/verify", by=admin, json={"token": revoked.token}).json()
        position = answer.pop("position")
        assert position == api.position()
        assert answer == {
            "valid": False,
            "code": "NOT_FOUND",
            "key_id": None,
            "name": None,
            "workspace": None,
            "role": None,
            "scopes": None,
            "expires_at": None,
        }

    def test_root_verifies_in_its_own_unless_it_names_another(self, api: Api) -> None:
        theirs = api.make(workspace="acme")
        assert self.code(api, api.root.token, api.root) == "VALID"
        assert self.code(api, theirs.token, api.root) == "NOT_FOUND"
        assert self.code(api, theirs.token, api.root, workspace="acme") == "VALID"
        assert self.code(api, theirs.token, api.root, workspace="other") == "NOT_FOUND"

    @pytest.mark.parametrize("path", ["/v1/verify", "/v1/verify/batch", "/v1/introspect"])
    def test_no_other_credential_may_name_another_workspace(self, api: Api, path: str) -> None:
        theirs, admin = api.make(workspace="other"), api.admin()
        asked: Json = {"token": theirs.token, "workspace": "other"}
        if path.endswith("batch"):
            asked = {"tokens": [{"token": theirs.token}], "workspace": "other"}
        body: Json = {"data" if path.endswith("introspect") else "json": asked}
        refused(api.post(path, by=admin, **body), 403, "WORKSPACE_FORBIDDEN")


class TestForwardAuth:
    def test_it_lets_in_keys_of_every_workspace_and_says_which(self, api: Api) -> None:
        for workspace in ("acme", "other"):
            answer = api.get("/v1/forward-auth", by=api.make(workspace=workspace))
            assert answer.headers["X-Auth-Workspace"] == workspace
