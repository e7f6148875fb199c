"""RFC 6749, OAuth 2.0: how clients authenticate, and the errors that they get."""

import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from httpx2 import Response
from structlog.testing import capture_logs

from tests.api.served import Api, Json, Key, refused

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

PATH = "/v1/introspect"
FORM = "application/x-www-form-urlencoded"
DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")


class Sent(NamedTuple):
    """The authentication of a request: headers and form fields."""

    headers: list[tuple[str, str]]
    fields: list[tuple[str, str]]


def basic(client_id: str, secret: str) -> Sent:
    encoded = b64encode(f"{client_id}:{secret}".encode()).decode()
    return Sent([("Authorization", f"Basic {encoded}")], [])


def post(client_id: str, secret: str) -> Sent:
    return Sent([], [("client_id", client_id), ("client_secret", secret)])


def bearer(_client_id: str, token: str) -> Sent:
    return Sent([("Authorization", f"Bearer {token}")], [])


def api_key(_client_id: str, token: str) -> Sent:
    return Sent([("X-API-Key", token)], [])


Method = Callable[[str, str], Sent]
METHODS: dict[str, Method] = {"Basic": basic, "form": post}
EACH_METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.fixture
def client(shared_api: Api) -> Key:
    """An OAuth client of the workspace acme."""
    return shared_api.make("api-keys:verify")


def asked(api: Api, sent: Sent, query: str = "", **fields: str) -> Response:
    body = urlencode([*sent.fields, *({"token": "nonsense"} | fields).items()])
    headers = [(b"Content-Type", FORM.encode())]
    headers += [(name.encode(), value.encode("latin-1")) for name, value in sent.headers]
    return api.post(PATH + query, by=None, content=body, headers=headers)


def both(*parts: Sent) -> Sent:
    return Sent(
        [each for part in parts for each in part.headers],
        [each for part in parts for each in part.fields],
    )


def oauth_error(answer: Response, status: int, error: str) -> Json:
    """Assert an error of section 5.2; return the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    document: Json = answer.json()
    assert document.keys() == {"error", "error_description"}
    assert document["error"] == error
    assert DESCRIPTION.fullmatch(document["error_description"])
    challenges = answer.headers.get_list("WWW-Authenticate")
    assert challenges == (['Basic realm="keyledger"'] if status == 401 else [])
    return document


class TestSection231:
    """Client password."""

    @EACH_METHOD
    def test_a_client_is_a_key_and_its_token(
        self, shared_api: Api, client: Key, method: Method
    ) -> None:
        token = shared_api.make("mcp:read").token
        answer = asked(shared_api, method(client.key_id, client.token), token=token)
        assert answer.status_code == 200
        assert answer.json()["active"] is True

    @pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
    def test_the_scheme_may_be_in_any_case(self, shared_api: Api, client: Key, scheme: str) -> None:
        header = basic(client.key_id, client.token).headers[0][1].removeprefix("Basic")
        answer = asked(shared_api, Sent([("Authorization", scheme + header)], []))
        assert answer.json() == {"active": False}

    def test_basic_credentials_are_form_urlencoded_before_base64(
        self, shared_api: Api, client: Key
    ) -> None:
        escaped = ["".join(f"%{ord(each):02X}" for each in part) for part in client_of(client)]
        assert asked(shared_api, basic(*escaped)).status_code == 200
        plus = basic(client.key_id, f"+{client.token}")
        oauth_error(asked(shared_api, plus), 401, "invalid_client")

    @EACH_METHOD
    def test_the_token_that_is_asked_about_may_be_the_client_s_own(
        self, shared_api: Api, client: Key, method: Method
    ) -> None:
        answer = asked(shared_api, method(*client_of(client)), token=client.token)
        assert answer.json()["client_id"] == client.key_id

    @EACH_METHOD
    @pytest.mark.parametrize("wrong", ["", "x", "apikey_", "☂", "other", "prefix", "token"])
    def test_the_id_must_be_the_one_of_the_token_s_key(
        self, shared_api: Api, client: Key, method: Method, wrong: str
    ) -> None:
        other = shared_api.make("api-keys:verify")
        names = {"other": other.key_id, "prefix": client.document["prefix"], "token": client.token}
        answer = asked(shared_api, method(names.get(wrong, wrong), client.token))
        if method is post and not wrong:
            oauth_error(answer, 400, "invalid_request")
        else:
            refusal = oauth_error(answer, 401, "invalid_client")
            unknown = asked(shared_api, method(client.key_id, other.token[:-1]))
            assert refusal == oauth_error(unknown, 401, "invalid_client")

    @EACH_METHOD
    def test_the_status_of_a_key_is_hidden_without_its_client_id(
        self, shared_api: Api, client: Key, method: Method
    ) -> None:
        revoked = shared_api.revoked("api-keys:verify")
        right = asked(shared_api, method(*client_of(revoked)))
        wrong = asked(shared_api, method(client.key_id, revoked.token))
        assert "revoked" in oauth_error(right, 401, "invalid_client")["error_description"]
        assert "revoked" not in oauth_error(wrong, 401, "invalid_client")["error_description"]

    @pytest.mark.parametrize(
        "header",
        [
            "Basic",
            "Basic ",
            "Basic %%%",
            "Basic YQ",
            "Basic YWRhOg",
            "Basic /w==",
            "Basic YWRh",
            "Basic Og==",
        ],
    )
    def test_an_unreadable_header_is_a_failed_authentication(
        self, shared_api: Api, header: str
    ) -> None:
        answer = asked(shared_api, Sent([("Authorization", header)], []))
        oauth_error(answer, 401, "invalid_client")

    @pytest.mark.parametrize("first", [basic, post, bearer, api_key])
    @pytest.mark.parametrize("second", [basic, post, bearer, api_key])
    def test_more_than_one_method_is_refused(
        self, shared_api: Api, client: Key, first: Method, second: Method
    ) -> None:
        if {first, second} <= {bearer, api_key}:
            return  # RFC 6750 has the rule for these
        sent = both(first(*client_of(client)), second(*client_of(client)))
        oauth_error(asked(shared_api, sent), 400, "invalid_request")
        for secret in ("nonsense", client.token):
            mixed = both(first(client.key_id, secret), second(*client_of(shared_api.root)))
            oauth_error(asked(shared_api, mixed), 400, "invalid_request")

    @pytest.mark.parametrize("name", ["client_id", "client_secret"])
    def test_a_client_field_may_occur_only_once(
        self, shared_api: Api, client: Key, name: str
    ) -> None:
        sent = post(*client_of(client))
        twice = both(sent, Sent([], [(name, dict(sent.fields)[name])]))
        oauth_error(asked(shared_api, twice), 400, "invalid_request")

    def test_a_client_id_beside_basic_is_the_same_one(self, shared_api: Api, client: Key) -> None:
        sent = basic(*client_of(client))
        same = both(sent, Sent([], [("client_id", client.key_id)]))
        other = both(sent, Sent([], [("client_id", shared_api.root.key_id)]))
        assert asked(shared_api, same).status_code == 200
        oauth_error(asked(shared_api, other), 400, "invalid_request")

    def test_a_secret_without_an_id_is_not_enough(self, shared_api: Api, client: Key) -> None:
        sent = Sent([], [("client_secret", client.token)])
        oauth_error(asked(shared_api, sent), 400, "invalid_request")

    @pytest.mark.parametrize("more", [[], [("client_secret", "")]])
    def test_an_id_without_a_secret_is_not_enough(
        self, shared_api: Api, client: Key, more: list[tuple[str, str]]
    ) -> None:
        sent = Sent([], [("client_id", client.key_id), *more])
        oauth_error(asked(shared_api, sent), 401, "invalid_client")

    def test_empty_fields_count_as_left_out(self, shared_api: Api, client: Key) -> None:
        empty = Sent([], [("client_id", ""), ("client_secret", "")])
        for method in (bearer, basic):
            sent = both(method(*client_of(client)), empty)
            assert asked(shared_api, sent).status_code == 200
        refused(asked(shared_api, empty), 401, "UNAUTHENTICATED")

    def test_a_client_id_beside_a_bearer_token_is_ignored(
        self, shared_api: Api, client: Key
    ) -> None:
        sent = both(bearer(*client_of(client)), Sent([], [("client_id", "x")]))
        assert asked(shared_api, sent).status_code == 200

    def test_no_credentials_are_taken_from_a_url(self, shared_api: Api, client: Key) -> None:
        query = urlencode(post(*client_of(client)).fields)
        answer = shared_api.post(f"{PATH}?{query}", by=None, data={"token": "x"})
        refused(answer, 401, "UNAUTHENTICATED")

    @pytest.mark.parametrize("path", ["/v1/verify", "/v1/keys", "/v1/forward-auth"])
    def test_other_endpoints_take_neither_method(
        self, shared_api: Api, client: Key, path: str
    ) -> None:
        headers = dict(basic(*client_of(client)).headers)
        for sent in ({"headers": headers}, {"data": dict(post(*client_of(client)).fields)}):
            method = "POST" if path == "/v1/verify" else "GET"
            if method == "GET":
                sent.pop("data", None)
            refused(shared_api.send(method, path, by=None, **sent), 401, "UNAUTHENTICATED")


class TestSection52:
    """Error response."""

    @EACH_METHOD
    def test_a_revoked_and_an_expired_client_are_invalid(self, api: Api, method: Method) -> None:
        expired = api.make("*", expires_at="2026-03-03T12:00:01Z")
        api.clock.advance(seconds=1)
        for key in (api.revoked("*"), expired):
            oauth_error(asked(api, method(*client_of(key))), 401, "invalid_client")

    @EACH_METHOD
    def test_a_client_without_the_scope_is_unauthorized(
        self, shared_api: Api, method: Method
    ) -> None:
        key = shared_api.make("mcp:read")
        refusal = oauth_error(
            asked(shared_api, method(*client_of(key))), 403, "unauthorized_client"
        )
        assert "api-keys:verify" in refusal["error_description"]

    @EACH_METHOD
    def test_a_client_that_names_another_workspace_is_unauthorized(
        self, shared_api: Api, client: Key, method: Method
    ) -> None:
        answer = asked(shared_api, method(*client_of(client)), "?workspace=elsewhere")
        oauth_error(answer, 403, "unauthorized_client")
        root = asked(shared_api, method(*client_of(shared_api.root)), "?workspace=elsewhere")
        assert root.json() == {"active": False}

    @EACH_METHOD
    @pytest.mark.parametrize("body", ["", "token=a&token=b", "tokens=a", "token=a&workspace=acme"])
    def test_a_wrong_form_is_invalid(
        self, shared_api: Api, client: Key, method: Method, body: str
    ) -> None:
        sent = method(*client_of(client))
        content = f"{urlencode(sent.fields)}&{body}"
        headers = {"Content-Type": FORM, **dict(sent.headers)}
        answer = shared_api.post(PATH, by=None, content=content, headers=headers)
        oauth_error(answer, 400, "invalid_request")

    def test_a_form_of_very_many_fields_is_refused_before_it_is_parsed(
        self, shared_api: Api, client: Key
    ) -> None:
        content = "a&" * 32_000
        headers = {"Content-Type": FORM}
        answer = shared_api.post(PATH, by=None, content=content, headers=headers)
        refused(answer, 422, "INVALID")
        headers |= dict(basic(*client_of(client)).headers)
        answer = shared_api.post(PATH, by=None, content=content, headers=headers)
        oauth_error(answer, 400, "invalid_request")

    def test_a_body_that_is_not_a_form_is_invalid(self, shared_api: Api, client: Key) -> None:
        headers = dict(basic(*client_of(client)).headers)
        answer = shared_api.post(PATH, by=None, json={"token": "x"}, headers=headers)
        oauth_error(answer, 400, "invalid_request")

    @EACH_METHOD
    def test_a_query_is_invalid(self, shared_api: Api, client: Key, method: Method) -> None:
        sent = method(*client_of(client))
        fields = dict(sent.fields) | {"token": "x"}
        path = f'{PATH}?{client.token}=x&"\\☂=1'
        answer = shared_api.post(path, by=None, data=fields, headers=dict(sent.headers))
        assert client.token[-40:] not in str(oauth_error(answer, 400, "invalid_request"))

    @EACH_METHOD
    def test_no_error_repeats_a_secret(
        self, shared_api: Api, client: Key, method: Method, capfd: pytest.CaptureFixture[str]
    ) -> None:
        token = shared_api.revoked("*").token
        for sent in (
            method(client.key_id, token),
            method(token, token),
            method(token, client.token),
            both(method(client.key_id, token), bearer("", token)),
        ):
            answer = asked(shared_api, sent, workspace=token, token_type_hint=token)
            assert answer.status_code in (400, 401)
            assert token[-40:] not in answer.text + str(answer.headers)
        assert token[-40:] not in "".join(capfd.readouterr())

    @EACH_METHOD
    def test_the_log_names_the_client_and_the_outcome(
        self, shared_api: Api, client: Key, method: Method
    ) -> None:
        with capture_logs() as lines:
            asked(shared_api, method(*client_of(client)))
            asked(shared_api, method(*client_of(shared_api.revoked("*"))))
        granted, *_, refusal = [line for line in lines if line.get("route") == PATH]
        assert client.key_id in granted.values()
        assert refusal["outcome"] == "REVOKED"

    def test_other_callers_are_told_by_problem_documents(self, shared_api: Api) -> None:
        refused(asked(shared_api, bearer("", "nonsense")), 401, "UNAUTHENTICATED")
        refused(asked(shared_api, Sent([], [])), 401, "UNAUTHENTICATED")


def client_of(key: Key) -> tuple[str, str]:
    """Return the id and the secret of a client."""
    return key.key_id, key.token


def test_the_document_describes_all_three_methods(shared_api: Api) -> None:
    document: Any = shared_api.app.openapi()
    operation = document["paths"][PATH]["post"]
    assert [*map(next, map(iter, operation["security"]))] == ["Bearer", "X-API-Key", "Basic"]
    assert document["components"]["securitySchemes"]["Basic"]["scheme"] == "basic"
    fields = operation["requestBody"]["content"][FORM]["schema"]["properties"]
    assert fields.keys() >= {"client_id", "client_secret"}
    for status in ("400", "401", "403"):
        assert operation["responses"][status]["content"].keys() == {
            "application/problem+json",
            "application/json",
        }
