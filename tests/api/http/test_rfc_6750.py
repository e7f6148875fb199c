"""RFC 6750, bearer token usage: the rules for the server."""

import re

import pytest
from httpx2 import Response

from api.jobs.periodic import expiring
from tests.api.served import Api, Key
from tests.system.processes import eventually

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

Endpoint = tuple[str, str, dict[str, object]]
ENDPOINTS: list[Endpoint] = [
    ("GET", "/v1/keys", {}),
    ("POST", "/v1/verify", {"json": {"token": "x"}}),
    ("POST", "/v1/verify/batch", {"json": {"tokens": [{"token": "x"}]}}),
    ("POST", "/v1/introspect", {"data": {"token": "x"}}),
    ("GET", "/v1/forward-auth?scope=audit:read", {}),
    ("GET", "/v1/projections", {}),
]
EACH_ENDPOINT = pytest.mark.parametrize(
    "endpoint", ENDPOINTS, ids=[path for _, path, _ in ENDPOINTS]
)

# RFC 9110, section 11.6.1, as narrow as this server writes it: every value is quoted.
PARAMETER = r'([a-z_]+)="([^"\\]*)"'
CHALLENGE = re.compile(rf"Bearer {PARAMETER}(?:, {PARAMETER})*")
DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")
SCOPE_TOKENS = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")


def call(api: Api, endpoint: Endpoint, *headers: tuple[str, str]) -> Response:
    method, path, request = endpoint
    as_sent = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return api.send(method, path, by=None, headers=as_sent, **request)


def challenge(answer: Response) -> dict[str, str]:
    """Return the parameters of an answer's challenge."""
    (text,) = answer.headers.get_list("WWW-Authenticate")
    assert CHALLENGE.fullmatch(text), text
    found = re.findall(PARAMETER, text)
    parameters = dict(found)
    assert len(parameters) == len(found), "a parameter occurs twice"
    return parameters


def bearer(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token}"


class TestSection21:
    """Authorization request header field."""

    @EACH_ENDPOINT
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_a_token_is_taken_from_the_header(
        self, api: Api, endpoint: Endpoint, scheme: str
    ) -> None:
        answer = call(api, endpoint, ("Authorization", f"{scheme} {api.root.token}"))
        assert answer.status_code in (200, 204)
        assert "WWW-Authenticate" not in answer.headers


class TestSection2:
    """No more than one method of sending a token; and the methods that are not supported."""

    @EACH_ENDPOINT
    def test_more_than_one_credential_is_refused(self, api: Api, endpoint: Endpoint) -> None:
        admin = api.admin()
        for headers in (
            [bearer(api.root.token), bearer(admin.token)],
            [bearer(api.root.token), ("X-API-Key", admin.token)],
            [("X-API-Key", api.root.token), ("X-Blnk-Key", admin.token)],
            [bearer(api.root.token), ("X-API-Key", "")],
        ):
            for order in (headers, headers[::-1]):
                answer = call(api, endpoint, *order)
                # 401, where section 3.1 has 400: gateways accept only that status as a refusal.
                assert answer.status_code == 401
                assert challenge(answer)["error"] == "invalid_token"

    @EACH_ENDPOINT
    def test_the_same_one_twice_is_one(self, api: Api, endpoint: Endpoint) -> None:
        answer = call(api, endpoint, bearer(api.root.token), ("X-API-Key", api.root.token))
        assert answer.status_code in (200, 204)

    def test_no_token_is_taken_from_a_form(self, api: Api) -> None:
        form = {"token": "x", "access_token": api.root.token}
        assert api.post("/v1/introspect", by=None, data=form).status_code == 401

    @EACH_ENDPOINT
    def test_no_token_is_taken_from_a_url(self, api: Api, endpoint: Endpoint) -> None:
        method, path, request = endpoint
        path += f"{'&' if '?' in path else '?'}access_token={api.root.token}"
        assert call(api, (method, path, request)).status_code == 401


class TestSection3:
    """The WWW-Authenticate response header field."""

    @EACH_ENDPOINT
    def test_without_a_credential_there_is_a_challenge(self, api: Api, endpoint: Endpoint) -> None:
        answer = call(api, endpoint)
        assert answer.status_code == 401
        assert challenge(answer) == {"realm": "keyledger"}

    @EACH_ENDPOINT
    @pytest.mark.parametrize("token", ["x", "\xff", "a b", "key_" + "0" * 65, 'a"b', "k" * 5000])
    def test_a_bad_token_is_challenged_in_characters_that_are_allowed(
        self, api: Api, endpoint: Endpoint, token: str
    ) -> None:
        answer = call(api, endpoint, bearer(token))
        assert answer.status_code == 401
        parameters = challenge(answer)
        assert parameters.keys() == {"realm", "error", "error_description"}
        assert parameters["error"] == "invalid_token"
        assert DESCRIPTION.fullmatch(parameters["error_description"])
        assert token not in answer.headers["WWW-Authenticate"].split()

    @EACH_ENDPOINT
    def test_the_scope_that_lacks_is_named(self, api: Api, endpoint: Endpoint) -> None:
        answer = call(api, endpoint, bearer(api.make("mcp:read").token))
        parameters = challenge(answer)
        assert parameters.keys() == {"realm", "error", "scope"}
        assert SCOPE_TOKENS.fullmatch(parameters["scope"])
        assert re.fullmatch(r"[a-z-]+:[a-z]+", parameters["scope"])

    def test_several_scopes_are_named_with_blanks_between_them(self, api: Api) -> None:
        path = "/v1/forward-auth?scope=mcp:write&scope=mcp:read&scope=mcp:write"
        answer = call(api, ("GET", path, {}), bearer(api.make("mcp:read").token))
        assert challenge(answer)["scope"] == "mcp:write mcp:read"

    def test_no_scope_is_named_if_none_would_be_enough(self, api: Api) -> None:
        answer = call(api, ("GET", "/v1/forward-auth?scope=all of it", {}), bearer(api.root.token))
        assert answer.status_code == 403
        assert challenge(answer) == {"realm": "keyledger", "error": "insufficient_scope"}


class TestSection31:
    """Error codes."""

    @EACH_ENDPOINT
    def test_revoked_is_invalid_token(self, api: Api, endpoint: Endpoint) -> None:
        self.refused(call(api, endpoint, bearer(api.revoked("*").token)), 401, "invalid_token")

    @EACH_ENDPOINT
    def test_expired_is_invalid_token(self, api: Api, endpoint: Endpoint) -> None:
        key = api.make("*", expires_at="2026-03-03T12:00:01Z")
        api.clock.advance(seconds=1)
        self.refused(call(api, endpoint, bearer(key.token)), 401, "invalid_token")

    @EACH_ENDPOINT
    def test_expired_and_recorded_as_such_is_invalid_token(
        self, api: Api, endpoint: Endpoint
    ) -> None:
        key = api.make("*", expires_at="2026-03-03T12:00:01Z")
        api.clock.advance(seconds=1)
        with expiring(api.app.state.ledger):
            eventually(lambda: "Expired" in api.event_types(key), "the end is recorded")
        self.refused(call(api, endpoint, bearer(key.token)), 401, "invalid_token")

    @EACH_ENDPOINT
    def test_malformed_and_unknown_are_invalid_token(self, api: Api, endpoint: Endpoint) -> None:
        other = api.make("*")
        for token in ("", " ", "nonsense", other.token[:-1], other.token + "0"):
            self.refused(call(api, endpoint, bearer(token)), 401, "invalid_token")
        self.refused(call(api, endpoint, ("Authorization", "Bearer")), 401, "invalid_token")
        self.refused(call(api, endpoint, ("X-API-Key", "nonsense")), 401, "invalid_token")

    @EACH_ENDPOINT
    def test_too_small_a_scope_is_insufficient_scope(self, api: Api, endpoint: Endpoint) -> None:
        self.refused(call(api, endpoint, bearer(api.make().token)), 403, "insufficient_scope")

    @EACH_ENDPOINT
    def test_without_authentication_there_is_no_error_code(
        self, api: Api, endpoint: Endpoint
    ) -> None:
        # An OAuth client can authenticate by Basic at the introspection endpoint.
        other = "Negotiate" if "introspect" in endpoint[1] else "Basic"
        for headers in (
            [],
            [("Authorization", f"{other} YWRhOmFkYQ==")],
            [("Authorization", "Digest username=ada")],
            [("Authorization", api.root.token)],
            [("Cookie", f"token={api.root.token}")],
        ):
            answer = call(api, endpoint, *headers)
            assert answer.status_code == 401
            assert challenge(answer) == {"realm": "keyledger"}

    def test_another_authentication_scheme_does_not_hide_the_other_header(self, api: Api) -> None:
        headers = [("Authorization", "Basic YWRhOmFkYQ=="), ("X-API-Key", api.root.token)]
        assert call(api, ENDPOINTS[0], *headers).status_code == 401
        assert call(api, ENDPOINTS[0], *headers[::-1]).status_code == 401

    def refused(self, answer: Response, status: int, error: str) -> None:
        assert answer.status_code == status
        assert challenge(answer)["error"] == error


class TestSection53:
    """Recommendations: tokens are not stored where others can read them."""

    @EACH_ENDPOINT
    def test_a_refusal_is_not_cached(self, api: Api, endpoint: Endpoint) -> None:
        for headers in ([], [bearer("nonsense")], [bearer(api.make().token)]):
            assert call(api, endpoint, *headers).headers["Cache-Control"] == "no-store"

    @EACH_ENDPOINT
    def test_no_answer_repeats_a_token(self, api: Api, endpoint: Endpoint) -> None:
        key: Key = api.revoked("*")
        answer = call(api, endpoint, bearer(key.token))
        assert key.token not in answer.text + str(answer.headers)
