"""Workspaces: keys of another workspace do not exist for a credential."""

import pytest

from tests.api.served import UNKNOWN_KEY_ID, Api, Json, invalid, refused

# Every endpoint of one key: method, end of the path, and a body that it takes.
KEY_ENDPOINTS: list[tuple[str, str, Json | None]] = [
    ("GET", "", None),
    ("GET", "?as_of=2026-03-03T12:00:00Z", None),
    ("PATCH", "", {"name": "new"}),
    ("POST", "/revoke", {}),
    ("POST", "/rotate", {}),
    ("GET", "/events", None),
]


@pytest.mark.parametrize(("method", "end", "body"), KEY_ENDPOINTS, ids=str)
class TestKeysOfAnotherWorkspace:
    @pytest.fixture
    def api(self, shared_api: Api) -> Api:
        return shared_api

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


class TestList:
    @pytest.fixture
    def listed(self, api: Api) -> list[str]:
        """The ids of new keys in three workspaces, newest first."""
        keys = [api.make(workspace=each) for each in ("one", "two", "three", "one")]
        return [key.key_id for key in reversed(keys)]

    @pytest.mark.parametrize("limit", [1, 3, 100])
    @pytest.mark.parametrize("more", [{}, {"as_of": "2026-03-03T12:00:00Z"}])
    def test_the_pages_of_all_workspaces_have_each_key_once(
        self, api: Api, listed: list[str], limit: int, more: Json
    ) -> None:
        found: list[Json] = []
        cursor: Json = {}
        while True:
            query = {"workspace": "*", "limit": limit} | more | cursor
            page = api.get("/v1/keys", params=query).json()
            found += page["data"]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        ids = [key["key_id"] for key in found]
        assert len(set(ids)) == len(ids)
        assert ids[:4] == listed
        assert api.root.key_id in ids
        assert {"one", "two", "three", "root"} <= {key["workspace"] for key in found}

    def test_a_cursor_of_one_workspace_is_not_one_of_all(self, api: Api, listed: list[str]) -> None:
        assert listed
        cursor = api.get("/v1/keys", params={"workspace": "one", "limit": 1}).json()["next_cursor"]
        answer = api.get("/v1/keys", params={"workspace": "*", "limit": 1, "cursor": cursor})
        invalid(answer, "cursor")


class TestListOfAllWorkspaces:
    """The filters hold in all workspaces as in one."""

    @pytest.mark.parametrize(
        "query",
        [
            {"status": "active"}, {"status": "revoked"}, {"status": "expired"}, {"q": "wanted"},
            {"scope": "a:b"}, {"expires_before": "2026-03-03T12:30:00Z"}, {"never_used": "true"},
            {"unused_since": "2026-03-03T12:30:00Z"},
        ],
        ids=str,
    )  # fmt: skip
    @pytest.mark.parametrize("past", [False, True])
    def test_a_filter(self, api: Api, query: Json, *, past: bool) -> None:
        for workspace in ("one", "two"):
            api.make("a:b", name="wanted", workspace=workspace)
            api.make(workspace=workspace, expires_at="2026-03-03T12:20:00Z")
            api.revoke(api.make(workspace=workspace))
        api.clock.advance(hours=1)
        if past:
            if not query.keys().isdisjoint({"never_used", "unused_since"}):
                return
            query = query | {"as_of": "2026-03-03T13:00:00Z"}
            api.clock.advance(hours=1)
            # What happened since must not matter.
            for key in api.get("/v1/keys?workspace=one&status=active").json()["data"]:
                api.post(f"/v1/keys/{key['key_id']}/revoke?workspace=one")

        def found(workspace: str) -> list[Json]:
            asked = query | {"workspace": workspace, "limit": 100}
            data: list[Json] = api.get("/v1/keys", params=asked).json()["data"]
            return data

        parts = [key for each in ("one", "two", "root") for key in found(each)]
        assert len(parts) > 1
        everywhere = found("*")
        assert sorted(parts, key=str) == sorted(everywhere, key=str)
        assert [key["key_id"] for key in everywhere if key["workspace"] == "two"] == [
            key["key_id"] for key in found("two")
        ]


class TestVerify:
    def test_nothing_is_told_of_a_key_of_another(self, shared_api: Api) -> None:
        api = shared_api
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


class TestForwardAuth:
    def test_it_lets_in_keys_of_every_workspace_and_says_which(self, shared_api: Api) -> None:
        for workspace in ("acme", "other"):
            answer = shared_api.get("/v1/forward-auth", by=shared_api.make(workspace=workspace))
            assert answer.headers["X-Auth-Workspace"] == workspace
