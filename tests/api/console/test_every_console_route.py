"""Every console route refuses visitors who are not signed in, forged forms, and other keys.

`console_routes.CONSOLE_ROUTES` has all routes, which is compared with the app's own table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from httpx2 import Response

from api.app import create_app
from api.settings import Settings
from tests.api.console.console_routes import CONSOLE_ROUTES, ConsoleRoute
from tests.api.console.visits import SIGN_IN, Visit, leads_to_sign_in, words_in
from tests.api.http.routes.test_every_route import flat
from tests.api.served import Api, Key
from tests.raw_sql import raw

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

GUARDED = [route for route in CONSOLE_ROUTES if route.scopes is not None]
CHANGES = [route for route in GUARDED if route.method == "POST"]
FORM = "application/x-www-form-urlencoded"
EVERYTHING = (
    "api-keys:read",
    "api-keys:write",
    "audit:read",
    "projections:read",
    "projections:write",
)
for_every_route = pytest.mark.parametrize("route", CONSOLE_ROUTES, ids=str)
for_every_guarded_route = pytest.mark.parametrize("route", GUARDED, ids=str)
for_every_change = pytest.mark.parametrize("route", CHANGES, ids=str)


@dataclass(frozen=True)
class World:
    """Visitors of every kind, and a key for them to try."""

    api: Api
    key: Key
    admin: Key
    elsewhere: Key
    leaf_index: int
    """Leaf index of the entry of the key's creation."""

    def send(
        self,
        route: ConsoleRoute,
        visit: Visit,
        *,
        csrf_token: str | None = None,
        query: str = "",
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request that is valid except for what the arguments leave out."""
        path = route.path.format(
            key_id=self.key.key_id, leaf_index=self.leaf_index, name="key_list", version="x"
        )
        path += query
        if route.method == "GET":
            return visit.get(path, headers=headers)
        fields = {"more": "", **dict(route.fields)}
        if csrf_token is not None:
            fields["csrf_token"] = csrf_token
        return visit.post(path, fields, headers=headers or {})


@pytest.fixture(scope="module")
def world(shared_api: Api) -> World:
    key = shared_api.make("mcp:read")
    return World(
        shared_api,
        key=key,
        leaf_index=leaf_index_of(shared_api, key),
        admin=shared_api.admin(),
        elsewhere=shared_api.admin("other"),
    )


@pytest.fixture
def unchanged(world: World) -> Iterator[None]:
    """Assert that the test does not change the ledger."""
    before = world.api.position()
    yield
    assert world.api.position() == before
    assert world.api.show(world.key)["status"] == "active"


def leaf_index_of(api: Api, key: Key) -> int:
    """Return the leaf index of a key's first entry."""
    answer = api.get("/v1/events", params={"workspace": "*", "key_id": key.key_id})
    index: int = answer.json()["data"][0]["leaf_index"]
    return index


def is_page(answer: Response, status: int) -> None:
    """Assert that an answer is a page in the console's layout."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert '<main id="content"' in answer.text
    assert answer.headers["X-Request-Id"] in answer.text


def test_every_console_route_is_tested() -> None:
    app = create_app(Settings())
    there = {
        f"{method} {route.path}"
        for route in flat(app.routes)
        for method in route.methods - {"HEAD"}
        if route.path == "/" or route.path.startswith("/console")
    }
    assert there == {str(route) for route in CONSOLE_ROUTES}


def test_no_page_is_in_the_document_of_the_http_api() -> None:
    paths: dict[str, Any] = create_app(Settings()).openapi()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/console")]


@pytest.mark.usefixtures("unchanged")
class TestNobodyPasses:
    @for_every_guarded_route
    def test_a_visitor_who_is_not_signed_in(self, route: ConsoleRoute, world: World) -> None:
        assert leads_to_sign_in(self.send(route, world, Visit(world.api)))

    @for_every_guarded_route
    @pytest.mark.parametrize("value", ["A" * 43, "x" * 5000], ids=len)
    def test_an_invented_session(self, route: ConsoleRoute, value: str, world: World) -> None:
        visit = Visit(world.api)
        visit.client.cookies.set("keyledger", value)
        assert leads_to_sign_in(self.send(route, world, visit))

    @for_every_guarded_route
    def test_a_token_in_a_header(self, route: ConsoleRoute, world: World) -> None:
        headers = {"Authorization": f"Bearer {world.admin.token}", "X-API-Key": world.admin.token}
        assert leads_to_sign_in(self.send(route, world, Visit(world.api), headers=headers))

    def send(self, route: ConsoleRoute, world: World, visit: Visit, **more: Any) -> Response:  # noqa: ANN401
        return world.send(route, visit, csrf_token="", **more)


@pytest.mark.usefixtures("unchanged")
class TestForgedForms:
    @for_every_change
    @pytest.mark.parametrize("forged", ["none", "empty", "wrong", "another session's"])
    def test_a_form_without_the_token_of_its_session(
        self, route: ConsoleRoute, forged: str, world: World
    ) -> None:
        visit = Visit.signed_in(world.api, world.api.root)
        other = Visit.signed_in(world.api, world.api.root)
        token = {
            "none": None,
            "empty": "",
            "wrong": "é" + visit.csrf_token()[1:],
            "another session's": other.csrf_token(),
        }[forged]
        is_page(world.send(route, visit, csrf_token=token, query="?workspace=acme"), 403)
        assert visit.is_signed_in()

    @for_every_change
    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": ""},
        ],
        ids=str,
    )
    def test_a_form_that_another_site_sends(
        self, route: ConsoleRoute, headers: dict[str, str], world: World
    ) -> None:
        visit = Visit.signed_in(world.api, world.api.root)
        token = visit.csrf_token()
        is_page(
            world.send(route, visit, csrf_token=token, query="?workspace=acme", headers=headers),
            403,
        )
        assert visit.is_signed_in()

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://testserver.evil.example", "http://["]
    )
    def test_another_origin_where_a_browser_tells_no_more(self, origin: str, world: World) -> None:
        visit = Visit.signed_in(world.api, world.admin)
        fields = {"csrf_token": visit.csrf_token()}
        for path in ("/console/sign-out", SIGN_IN):
            answer = visit.client.post(path, data=fields, headers={"Origin": origin})
            is_page(answer, 403)
            # A proxy that changes Host looks the same to the server.
            assert "proxy_set_header Host $http_host" in words_in(answer)
            assert origin not in answer.text
        assert visit.is_signed_in()

    def test_another_site_cannot_sign_anyone_in(self, world: World) -> None:
        visit = Visit(world.api)
        headers = {"Sec-Fetch-Site": "cross-site"}
        answer = visit.post(SIGN_IN, {"token": world.admin.token}, headers=headers)
        is_page(answer, 403)
        assert not visit.is_signed_in()

    def test_a_body_that_is_not_a_form(self, world: World) -> None:
        visit = Visit.signed_in(world.api, world.admin)
        token = visit.csrf_token()
        plain = {"Content-Type": "text/plain"}
        requests: list[dict[str, Any]] = [
            {"json": {"csrf_token": token}},
            {"content": f"csrf_token={token}".encode(), "headers": plain},
            {"data": {f"field{number}": "x" for number in range(301)}},
            {"data": {"csrf_token": [token, token]}},
            {"content": b"csrf_token=%ff", "headers": {"Content-Type": FORM}},
        ]
        for request in requests:
            answer = visit.client.post("/console/sign-out", **request)
            assert answer.status_code in (403, 422)
        too_long = {"csrf_token": token, "name": "x" * 70_000}
        is_page(visit.post("/console/keys/new", too_long), 413)
        assert visit.is_signed_in()


@pytest.mark.usefixtures("unchanged")
class TestTooSmallAScope:
    @for_every_guarded_route
    def test_a_key_that_lacks_one_scope_is_refused(self, route: ConsoleRoute, world: World) -> None:
        for lacking in route.scopes or ():
            held = [scope for scope in EVERYTHING if scope != lacking]
            key = world.api.make(*held, workspace="root" if route.for_root else "acme")
            visit = Visit.signed_in(world.api, key)
            is_page(world.send(route, visit, csrf_token=visit.csrf_token()), 403)

    @pytest.fixture
    def unchanged(self, world: World) -> Iterator[None]:
        """Allow for the keys that the test creates."""
        yield
        assert world.api.history(world.key)[1:] == []


@pytest.mark.usefixtures("unchanged")
class TestAnotherWorkspace:
    @for_every_guarded_route
    def test_its_key_does_not_exist_and_it_cannot_be_named(
        self, route: ConsoleRoute, world: World
    ) -> None:
        visit = Visit.signed_in(world.api, world.elsewhere)
        token = visit.csrf_token()
        if "{key_id}" in route.path or "{leaf_index}" in route.path:
            is_page(world.send(route, visit, csrf_token=token), 404)
        if route.for_root:
            is_page(world.send(route, visit, csrf_token=token), 403)
        if route.path != "/console/sign-out":
            answer = world.send(route, visit, csrf_token=token, query="?workspace=acme")
            is_page(answer, 403)


@for_every_route
class TestEveryAnswer:
    def test_it_has_the_security_headers(self, route: ConsoleRoute, world: World) -> None:
        visit = Visit.signed_in(world.api, world.admin)
        if route.path == "/":
            return
        for answer in (world.send(route, visit), world.send(route, Visit(world.api))):
            policy = answer.headers["Content-Security-Policy"]
            directives = dict(each.strip().split(" ", 1) for each in policy.split(";"))
            assert directives["default-src"] == "'none'"
            assert directives["frame-ancestors"] == "'none'"
            assert directives["base-uri"] == "'none'"
            assert directives["form-action"] == "'self'"
            assert directives["script-src"] == directives["style-src"] == "'self'"
            assert "unsafe" not in policy
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["Cache-Control"] == "no-store"


class TestWhatGoesWrong:
    """Every error in the console is shown as a page."""

    def test_a_missing_page(self, world: World) -> None:
        visit = Visit.signed_in(world.api, world.admin)
        is_page(visit.get("/console/nothing"), 404)
        answer = visit.client.delete("/console/keys")
        is_page(answer, 405)
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"

    def test_an_unavailable_ledger(self, api: Api) -> None:
        visit = Visit.signed_in(api, api.root)
        with raw(api.address) as connection:
            connection.execute("ALTER TABLE console_sessions RENAME TO elsewhere")
            answer = visit.get("/console/keys")
            is_page(answer, 503)
            assert answer.headers["Retry-After"] == "1"
            connection.execute("ALTER TABLE elsewhere RENAME TO console_sessions")
        assert visit.get("/console/keys").status_code == 200

    def test_a_bug(self, api: Api) -> None:
        visit = Visit.signed_in(api, api.root)
        # No code of ours does this: remove the app's state while it runs.
        rebuilds, api.app.state.rebuilds = api.app.state.rebuilds, None
        answer = visit.get("/console/projections")
        api.app.state.rebuilds = rebuilds
        is_page(answer, 500)
        assert "NoneType" not in answer.text
        assert answer.headers["X-Frame-Options"] == "DENY"
