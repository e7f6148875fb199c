"""Forward auth: gateways use the status, and pass on the headers."""

from unittest.mock import patch

import pytest
from structlog.testing import capture_logs

from domain.errors import LedgerError, LedgerUnavailable, Overloaded, ProjectionInconsistent
from projections.auth.freshness import Freshness
from tests.api.served import Api, Key, refused

pytestmark = pytest.mark.only_on("sqlite")

PATH = "/v1/forward-auth"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
LOOSE = [
    f"{PATH}/scopes/mcp:read",
    f"{PATH}/scopes/mcp:read/",
    f"{PATH}/scopes/mcp:read/what/was/asked",
    f"{PATH}/scopes/mcp:read,mcp:write/tools?scope=admin:write&x",
    f"{PATH}/scopes/mcp:read//scopes/admin:write/..",
    f"{PATH}/scopes/mcp%3Aread/what",
]
MISCONFIGURED = [
    f"{PATH}?scope=",
    f"{PATH}?scope",
    f"{PATH}?scope=read",
    f"{PATH}?scope=mcp:read,mcp:write",
    f"{PATH}?scope=mcp:read%20mcp:write",
    f"{PATH}?scope=mcp:read&scope=",
    f"{PATH}?scope=MCP:READ",
    f"{PATH}?scope={'a' * 127}:b",
    f"{PATH}?scopes=mcp:read",
    f"{PATH}?Scope=mcp:read",
    f"{PATH}?scope=mcp:read&workspace=acme",
    f"{PATH}?mcp:read",
    f"{PATH}?&",
    f"{PATH}?{'scope=mcp:read&' * 2000}",
    f"{PATH}?" + "&".join(f"scope=mcp:a{number}" for number in range(65)),
    f"{PATH}/",
    f"{PATH}/mcp:read",
    f"{PATH}/scope/mcp:read",
    f"{PATH}/scopes",
    f"{PATH}/scopes/",
    f"{PATH}/scopes//mcp:read",
    f"{PATH}/scopes/read/what",
    f"{PATH}/scopes/mcp:read,/what",
    f"{PATH}/scopes/mcp:read mcp:write/what",
    f"{PATH}/scopes/{'mcp:read,' * 2000}mcp:read",
    f"{PATH}/what/was/asked",
]


class TestAllowed:
    @pytest.mark.parametrize("method", METHODS)
    def test_any_method(self, api: Api, method: str) -> None:
        key = api.make("mcp:read", "mcp:write")
        answer = api.send(method, f"{PATH}?scope=mcp:read", by=key)
        assert answer.status_code == 204
        assert answer.content == b""
        assert answer.headers["X-Auth-Key-Id"] == key.key_id
        assert answer.headers["X-Auth-Workspace"] == "acme"
        assert answer.headers["X-Auth-Scopes"] == "mcp:read mcp:write"

    def test_without_a_scope_any_live_key(self, api: Api) -> None:
        for path in (PATH, f"{PATH}?"):
            for key in (api.make(), api.make(workspace="elsewhere"), api.root):
                answer = api.get(path, by=key)
                assert answer.status_code == 204
                assert answer.headers["X-Auth-Key-Id"] == key.key_id

    @pytest.mark.parametrize("header", ["X-API-Key", "X-Blnk-Key"])
    def test_the_other_headers_for_a_token(self, api: Api, header: str) -> None:
        answer = api.get(PATH, by=None, headers={header: api.make().token})
        assert answer.status_code == 204

    @pytest.mark.parametrize("path", LOOSE)
    def test_envoys_form(self, api: Api, path: str) -> None:
        key = api.make("mcp:read", "mcp:write")
        answer = api.post(path, by=key, content=b"the body")
        # ext_authz accepts no other status.
        assert answer.status_code == 200
        assert answer.content == b""
        assert answer.headers["Content-Length"] == "0"
        assert answer.headers["X-Auth-Key-Id"] == key.key_id

    def test_headers_of_the_original_request_are_not_repeated(self, api: Api) -> None:
        key = api.make()
        forged = {"X-Auth-Key-Id": "forged", "X-Auth-Scopes": "*", "X-Auth-Workspace": "root"}
        answer = api.get(PATH, by=key, headers=forged)
        assert answer.headers.get_list("X-Auth-Key-Id") == [key.key_id]
        assert answer.headers.get_list("X-Auth-Workspace") == ["acme"]
        assert answer.headers.get_list("X-Auth-Scopes") == ["mcp:read"]


class TestRefused:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("path", [PATH, f"{PATH}?scope=mcp:read", LOOSE[2]])
    def test_a_missing_credential_does_not_pass(self, api: Api, method: str, path: str) -> None:
        answer = api.send(method, path, by=None)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="keyledger"'
        self.nothing_passed_on(answer.headers)

    @pytest.mark.parametrize("path", [PATH, f"{PATH}?scope=mcp:read", LOOSE[2]])
    def test_a_bad_credential_does_not_pass(self, api: Api, path: str) -> None:
        ended: Key = api.make(expires_at="2026-03-03T12:00:01Z")
        api.clock.advance(seconds=1)
        for by, code in (
            (api.revoked("*"), "REVOKED"),
            (ended, "EXPIRED"),
            ("nonsense", "UNAUTHENTICATED"),
        ):
            answer = api.get(path, by=by)
            refused(answer, 401, code)
            self.nothing_passed_on(answer.headers)

    @pytest.mark.parametrize("path", [f"{PATH}?scope=mcp:read", *LOOSE])
    def test_a_missing_scope_does_not_pass(self, api: Api, path: str) -> None:
        answer = api.get(path, by=api.make("mcp:delete", "admin:write"))
        refused(answer, 403, "INSUFFICIENT_SCOPE")
        self.nothing_passed_on(answer.headers)

    def test_all_the_scopes_are_needed(self, api: Api) -> None:
        key = api.make("mcp:read")
        for path in (f"{PATH}?scope=mcp:read&scope=mcp:write", f"{PATH}/scopes/mcp:read,mcp:write"):
            refused(api.get(path, by=key), 403, "INSUFFICIENT_SCOPE")

    @pytest.mark.parametrize("path", MISCONFIGURED, ids=lambda path: path[:60])
    def test_a_gateway_that_demands_no_scope_lets_nobody_pass(self, api: Api, path: str) -> None:
        for _ in range(2):
            answer = api.get(path)
            problem = refused(answer, 403, "INSUFFICIENT_SCOPE")
            assert "the gateway requires a scope that is not valid" in problem["detail"]
            self.nothing_passed_on(answer.headers)

    @pytest.mark.parametrize("path", ["/v1/forward-authx", "/v1/Forward-Auth", "/forward-auth"])
    def test_an_unknown_path(self, api: Api, path: str) -> None:
        refused(api.get(path), 404, "NOT_FOUND")

    @pytest.mark.parametrize(
        "error", [LedgerUnavailable("no"), Overloaded("no"), ProjectionInconsistent("no")]
    )
    @pytest.mark.parametrize("path", [PATH, LOOSE[2]])
    def test_an_unavailable_ledger(self, api: Api, error: LedgerError, path: str) -> None:
        key = api.make()
        with patch.object(Freshness, "check", side_effect=error), capture_logs():
            answer = api.get(path, by=key)
        refused(answer, 503, error.code)
        self.nothing_passed_on(answer.headers)
        assert api.get(path, by=key).is_success

    def nothing_passed_on(self, headers: object) -> None:
        assert "x-auth" not in str(headers).lower()
