"""Every error is a problem document, and every answer has its request id."""

import json
import re
from typing import Any

import pytest
import structlog
from fastapi import Request
from fastapi.responses import StreamingResponse

from api.http.problems import STATUSES
from api.http.work import Work, does
from domain import errors
from tests.api.served import Api, Json, invalid, refused

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")


class TestTheTable:
    def test_every_refusal_of_the_ledger_has_a_status_of_its_own(self) -> None:
        refusals = set(subclasses(errors.LedgerError))
        inside = {kind for kind in refusals if kind.__module__ == errors.__name__}
        assert set(STATUSES) == inside

    def test_a_code_has_one_status(self) -> None:
        statuses: dict[str, set[int]] = {}
        for kind, (status, _) in STATUSES.items():
            statuses.setdefault(kind.code, set()).add(status)
        assert all(len(each) == 1 for each in statuses.values()), statuses


def subclasses(kind: type[errors.LedgerError]) -> list[type[errors.LedgerError]]:
    return [each for sub in kind.__subclasses__() for each in (sub, *subclasses(sub))]


class TestRouting:
    @pytest.mark.parametrize(
        "path",
        ["/v1", "/v2/keys", "/v1/keyss", "/v1/keys/", "/v1//keys", "/healthz/", "/%00", "/%ff"],
    )
    def test_there_is_nothing_at_a_path(self, shared_api: Api, path: str) -> None:
        refused(shared_api.get(path), 404, "NOT_FOUND")

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("DELETE", "/v1/keys", "GET, HEAD, OPTIONS, POST"),
            ("PUT", "/v1/keys/x", "GET, HEAD, OPTIONS, PATCH"),
            ("GET", "/v1/keys/x/revoke", "OPTIONS, POST"),
            ("GET", "/v1/verify", "OPTIONS, POST"),
            ("POST", "/v1/projections", "GET, HEAD, OPTIONS"),
            ("POST", "/healthz", "GET, HEAD, OPTIONS"),
            ("TRACE", "/v1/keys", "GET, HEAD, OPTIONS, POST"),
            ("BREW", "/v1/keys", "GET, HEAD, OPTIONS, POST"),
        ],
    )
    def test_a_method_is_not_for_a_path_and_the_answer_says_which_are(
        self, shared_api: Api, method: str, path: str, allowed: str
    ) -> None:
        answer = shared_api.send(method, path)
        refused(answer, 405, "METHOD_NOT_ALLOWED")
        assert answer.headers["Allow"] == allowed

    def test_delete_of_a_key_names_the_call_that_revokes_it(self, shared_api: Api) -> None:
        answer = shared_api.send("DELETE", shared_api.root.path)
        problem = refused(answer, 405, "METHOD_NOT_ALLOWED")
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, PATCH"
        assert "POST /v1/keys/{key_id}/revoke" in problem["detail"]
        assert "revoke" not in shared_api.send("DELETE", "/v1/keys").json()["detail"]

    def test_no_route_is_found_by_a_redirect(self, shared_api: Api) -> None:
        answer = shared_api.post("/v1/keys/?token=x", json={"name": "a", "scopes": ["a:b"]})
        refused(answer, 404, "NOT_FOUND")
        assert "Location" not in answer.headers


class TestNotValid:
    def test_each_error_says_where_and_what(self, shared_api: Api) -> None:
        asked = {"name": "", "scopes": ["a:b", 7], "x": 1}
        problem = invalid(shared_api.post("/v1/keys", json=asked), "name", "scopes.1", "x")
        assert problem["title"] == "The request is not valid"
        assert problem["detail"] == "; ".join(
            f"{each['field']}: {each['message']}" for each in problem["errors"]
        )

    def test_only_the_first_20_errors_are_reported(self, shared_api: Api) -> None:
        asked = {f"x{number}": 1 for number in range(100)}
        problem = refused(shared_api.post("/v1/keys", json=asked), 422, "INVALID")
        assert len(problem["errors"]) == 20

    def test_malformed_json_and_an_invalid_value_have_different_errors(
        self, shared_api: Api
    ) -> None:
        headers = {"Content-Type": "application/json"}
        problem = invalid(shared_api.post("/v1/keys", headers=headers, content=b"{"), "body")
        assert "not valid JSON" in problem["detail"]

    @pytest.mark.parametrize("sent", [None, "application/x-www-form-urlencoded", "text/plain"])
    @pytest.mark.parametrize("path", ["/v1/keys", "/v1/verify", "/v1/verify/batch", "KEY/revoke"])
    def test_without_the_content_type_of_json_the_answer_names_the_header(
        self, shared_api: Api, path: str, sent: str | None
    ) -> None:
        path = path.replace("KEY", shared_api.root.path)
        headers = {} if sent is None else {"Content-Type": sent}
        problem = invalid(
            shared_api.post(path, headers=headers, content=b'{"name": "a", "scopes": ["a:b"]}'),
            "Content-Type",
        )
        assert "send the header Content-Type: application/json" in problem["detail"]

    def test_json_that_is_not_an_object_is_not_blamed_on_the_header(self, shared_api: Api) -> None:
        problem = invalid(shared_api.post("/v1/keys", json=["a"]), "body")
        assert "Content-Type" not in problem["detail"]

    def test_a_form_without_its_content_type_names_the_header(self, shared_api: Api) -> None:
        answer = shared_api.post("/v1/introspect", json={"token": "x"})
        problem = invalid(answer, "Content-Type")
        assert "Content-Type: application/x-www-form-urlencoded" in problem["detail"]


class TestRequestIds:
    @pytest.mark.parametrize(
        "path", ["/v1/keys", "/v1/nowhere", "/healthz", "/metrics", "/v1/forward-auth", "/docs"]
    )
    def test_an_id_that_is_given_comes_back(self, shared_api: Api, path: str) -> None:
        given = "0af7651916cd43dd8448eb211c80319c/a.b_c:d+e=f-g"
        answer = shared_api.get(path, headers={"X-Request-Id": given})
        assert answer.headers.get_list("X-Request-Id") == [given]

    @pytest.mark.parametrize(
        "given", [None, b"", b" ", b"two words", b"\xe9", b"a\x00", b"x" * 129, b"-x", b"<script>"]
    )
    def test_a_request_without_a_valid_id_gets_one(
        self, shared_api: Api, given: bytes | None
    ) -> None:
        headers = [] if given is None else [(b"X-Request-Id", given)]
        ids = {
            shared_api.get("/v1/keys", headers=headers).headers["X-Request-Id"] for _ in range(3)
        }
        assert len(ids) == 3
        assert all(re.fullmatch(r"req_[0-9a-f]{32}", each) for each in ids)


class TestBugs:
    """Bugs are answered too, and the log line can be found from the answer."""

    SECRET = "what-nobody-is-to-see"

    @pytest.fixture
    def broken(self, api: Api) -> Api:
        @does(Work.READ)
        def break_down(request: Request) -> None:  # noqa: ARG001 - finds its threads by it
            raise RuntimeError(self.SECRET)

        @does(Work.READ)
        def break_off(request: Request) -> StreamingResponse:  # noqa: ARG001 - as above
            def begin() -> Any:  # noqa: ANN401 - a generator that never ends well
                yield b"begun"
                raise RuntimeError(self.SECRET)

            return StreamingResponse(begin())

        api.app.add_api_route("/v1/broken", break_down)
        api.app.add_api_route("/v1/broken-off", break_off)
        return api

    def test_a_bug_is_answered_with_nothing_but_its_request_id(self, broken: Api) -> None:
        with structlog.testing.capture_logs() as lines:
            answer = broken.get("/v1/broken", headers={"X-Request-Id": "the-one"})
        problem = refused(answer, 500, "INTERNAL_ERROR")
        assert self.SECRET not in answer.text
        assert problem["request_id"] == "the-one"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        failed, request = lines
        assert (failed["event"], failed["request_id"]) == ("failed", "the-one")
        assert failed["exc_info"]
        assert (request["event"], request["status"]) == ("request", 500)
        assert request["outcome"] == "INTERNAL_ERROR"

    def test_a_head_request_is_counted_as_head(self, broken: Api) -> None:
        broken.get("/v1/broken")
        series = 'keyledger_request_seconds_count{method="GET",route="/v1/broken",status="500"}'
        assert broken.metrics()[series] == 1

    def test_an_answer_in_progress_is_aborted(self, broken: Api) -> None:
        with structlog.testing.capture_logs() as lines:
            answer = broken.get("/v1/broken-off")
        assert answer.content == b"begun"
        assert [line["event"] for line in lines] == ["failed", "request"]

    def test_a_failure_outside_the_framework_is_the_same_problem(self, api: Api) -> None:
        api.app.state.verification = None
        requests: list[tuple[str, str, Json | None]] = [
            ("GET", "/v1/forward-auth", None),
            ("POST", "/v1/verify", {"token": "x"}),
            ("GET", "/v1/keys", None),
        ]
        for method, path, body in requests:
            with structlog.testing.capture_logs() as lines:
                answer = api.send(method, path, json=body)
            problem = refused(answer, 500, "INTERNAL_ERROR")
            assert answer.headers["Cache-Control"] == "no-store"
            assert (lines[0]["event"], lines[0]["request_id"]) == ("failed", problem["request_id"])


def test_problems_are_plain_json(shared_api: Api) -> None:
    answer = shared_api.get("/v1/keys/x")
    assert json.loads(answer.content) == answer.json()
    assert answer.headers["Content-Length"] == str(len(answer.content))
