"""HEAD is answered like GET without a body; ``Allow`` names the methods of a path."""

from typing import cast

import pytest
from httpx2 import Response

from api.app import create_app
from api.http.verification import gateway
from api.settings import Settings
from tests.api.http.test_work import QUERIES, routes_of
from tests.api.served import Api, refused

SKIPPED = frozenset({"date", "x-request-id"})
"""Headers that differ between all requests."""

OF_METRICS = frozenset({"content-length"})


def methods_by_path() -> dict[str, set[str]]:
    """Return the methods of each path of the app, by their routes."""
    found: dict[str, set[str]] = {}
    for route, path in routes_of(create_app(Settings()).routes):
        found.setdefault(path, set()).update(cast("set[str]", route.methods))  # type: ignore[attr-defined]
    return found


PATHS = methods_by_path()
READ = [path for path, methods in PATHS.items() if "GET" in methods]


def asked(api: Api, path: str) -> str:
    """Return a path with its parameters filled in, with root's key."""
    values = {
        "{key_id}": api.root.key_id,
        "{tile:path}": "0/000.p/1",
        "{leaf_index}": "0",
        "{version}/{name}": f"{api.app.state.console_pages.files_version}/console.css",
        "/docs/{name}": "/docs/swagger-ui.css",
        "{name}": "key_list",
    }
    for name, value in values.items():
        path = path.replace(name, value)
    return path + QUERIES.get(path, "")


def headers_of(answer: Response, *, without: frozenset[str] = frozenset()) -> dict[str, str]:
    return {
        name: value
        for name, value in answer.headers.items()
        if name.lower() not in SKIPPED | without
    }


@pytest.mark.only_on("sqlite")
class TestHead:
    @pytest.mark.parametrize("path", READ)
    @pytest.mark.parametrize("signed_in", [True, False])
    def test_it_answers_as_get_without_a_body(
        self, shared_api: Api, path: str, *, signed_in: bool
    ) -> None:
        api = shared_api
        api.client.cookies.clear()
        if signed_in:
            api.client.post("/console/sign-in", data={"token": api.root.token})
        path, by = asked(api, path), api.root if signed_in else None
        got, head = api.get(path, by=by), api.send("HEAD", path, by=by)
        assert head.status_code == got.status_code
        assert head.content == b""
        without = OF_METRICS if path in {"/metrics", "/readyz"} else frozenset[str]()
        assert headers_of(head, without=without) == headers_of(got, without=without)
        api.client.cookies.clear()

    @pytest.mark.parametrize("accept", ["application/x-ndjson", "text/csv", "text/event-stream"])
    def test_a_stream_ends_at_its_head(self, shared_api: Api, accept: str) -> None:
        answer = shared_api.send("HEAD", "/v1/events", headers={"Accept": accept})
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["Content-Type"].startswith(accept)
        assert not shared_api.app.state.threads.exports._limiters  # noqa: SLF001
        assert not shared_api.app.state.live_streams._held  # noqa: SLF001

    @pytest.mark.parametrize("by", ["root", None])
    def test_a_gateway_gets_the_same_verdict(self, shared_api: Api, by: str | None) -> None:
        for path in (gateway.PATH, f"{gateway.PATH}/scopes/mcp:read/x"):
            got, head = shared_api.get(path, by=by), shared_api.send("HEAD", path, by=by)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert headers_of(head) == headers_of(got)

    @pytest.mark.parametrize("path", [path for path in PATHS if path not in READ])
    def test_it_is_refused_where_get_is(self, shared_api: Api, path: str) -> None:
        answer = shared_api.send("HEAD", asked(shared_api, path), by=None)
        assert answer.status_code == 405

    def test_the_metrics_count_it_as_head(self, shared_api: Api) -> None:
        shared_api.send("HEAD", "/v1/keys")
        series = shared_api.metrics()
        count = 'keyledger_request_seconds_count{method="HEAD",route="/v1/keys",status="200"}'
        assert series[count] >= 1


@pytest.mark.only_on("sqlite")
class TestAllow:
    @pytest.mark.parametrize("path", PATHS)
    def test_options_and_405_name_the_methods_of_the_path(self, shared_api: Api, path: str) -> None:
        methods = PATHS[path] | {"OPTIONS"} | ({"HEAD"} if "GET" in PATHS[path] else set())
        path = asked(shared_api, path)
        options = shared_api.send("OPTIONS", path, by=None)
        assert (options.status_code, options.content) == (204, b"")
        assert set(options.headers["Allow"].split(", ")) == methods
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "key_list"} - methods:
            answer = shared_api.send(method, path, by=None)
            assert answer.status_code == 405
            assert set(answer.headers["Allow"].split(", ")) == methods
            if not path.startswith("/console"):
                refused(answer, 405, "METHOD_NOT_ALLOWED")

    def test_an_unknown_path_has_no_methods(self, shared_api: Api) -> None:
        for method in ("HEAD", "OPTIONS"):
            answer = shared_api.send(method, "/nowhere", by=None)
            assert answer.status_code == 404
            assert "Allow" not in answer.headers

    def test_forward_auth_answers_options_with_a_verdict(self, shared_api: Api) -> None:
        for path in (gateway.PATH, f"{gateway.PATH}/scopes/mcp:read/x"):
            assert shared_api.send("OPTIONS", path, by=None).status_code == 401
