"""Every route requires a credential; the routes come from the app's document, so none is missed.

A guarded route is one whose operation has `security`; every other route must be in `PUBLIC`. The
path and body of a request are made from the document's own examples.
"""

import random
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import pytest
from httpx2 import Response

from api.app import create_app
from api.settings import Settings
from domain.tokens import Token, mint, parse
from tests.api.checkpoints import sign_a_checkpoint
from tests.api.console.console_routes import CONSOLE_ROUTES
from tests.api.served import Api, Json, Key, invalid, refused

PUBLIC = {"GET /healthz", "GET /readyz", "GET /metrics"}
# Not in the OpenAPI document that these routes show.
DOCUMENTATION = {"GET /docs", "GET /docs/{name}", "GET /openapi.json"}
# It answers about the presented key: its workspace and scopes. Gateways require them.
ABOUT_THE_CALLER = "GET /v1/forward-auth"
# They give everybody the same answer, with hashes and sizes.
ABOUT_THE_WHOLE_TREE = {"GET /v1/checkpoint", "GET /v1/proofs/consistency"}
# They need a credential of root.
ABOUT_ALL_WORKSPACES = {
    "GET /v1/log/checkpoint", "GET /v1/log/tile/{tile}",
    "GET /v1/projections", "POST /v1/projections/{name}/rebuild",
}  # fmt: skip
# It shows each credential the workspaces that it may act in.
ABOUT_THE_CALLERS_WORKSPACES = "GET /v1/workspaces"
LISTS = {"GET /v1/keys", "GET /v1/events", "GET /v1/proofs/inclusion"}

REALM = 'Bearer realm="keyledger"'
BASIC_REALM = 'Basic realm="keyledger"'
OAUTH_ERRORS = {401: "invalid_client", 403: "unauthorized_client"}
DOCUMENT: Json = create_app(Settings()).openapi()


@dataclass(frozen=True)
class Route:
    """A guarded operation of the document, and how callers authenticate there."""

    method: str
    path: str
    operation: Json
    authentication: str = "Bearer"

    def __str__(self) -> str:
        other = "" if self.authentication == "Bearer" else f" by {self.authentication}"
        return f"{self.method} {self.path}{other}"

    @property
    def scope(self) -> str:
        """The scope that it requires; the document has it for each way to present a token."""
        demanded = [*(each for way in self.operation["security"] for each in way.values())]
        assert demanded.count(demanded[0]) == len(demanded) == (3 if self.is_for_clients else 2)
        return " ".join(demanded[0])

    @property
    def is_for_clients(self) -> bool:
        """Whether OAuth clients can authenticate there."""
        return any("Basic" in each for each in self.operation["security"])

    @property
    def demanded(self) -> str:
        """A query with the route's required parameters."""
        if self.path == "/v1/proofs/inclusion":
            return "?leaf_index=0"
        return "?from=0" if self.path == "/v1/proofs/consistency" else ""

    @property
    def narrower(self) -> str:
        """A scope that the request itself requires, if the route allows that."""
        return "?scope=api-keys:read" if str(self) == ABOUT_THE_CALLER else ""

    def send(
        self,
        api: Api,
        by: Key | str | None,
        *,
        key_id: str,
        query: str = "",
        headers: dict[str, str] | None = None,
        **body: object,
    ) -> Response:
        """Send a request that is valid except, perhaps, for its credential."""
        values = {"key_id": key_id, "name": "key_list", "tile": "0/000.p/1"}
        path = self.path.format(**values) + (query or self.demanded)
        if by is not None and self.authentication != "Bearer":
            client = by if isinstance(by, Key) else Key(api.root.key_id, by, {})
            sent, fields = self._client(client)
            by, headers, body = None, {**(headers or {}), **sent}, {**body, **fields}
        return api.send(self.method, path, by=by, headers=headers, **self._body(body))

    def _client(self, client: Key) -> tuple[dict[str, str], dict[str, str]]:
        """Return the headers and form fields with which a client authenticates."""
        if self.authentication == "form":
            return {}, {"client_id": client.key_id, "client_secret": client.token}
        encoded = b64encode(f"{client.key_id}:{client.token}".encode()).decode()
        return {"Authorization": f"Basic {encoded}"}, {}

    def refused(self, answer: Response, status: int, code: str, challenge: str = "") -> None:
        """Assert the form of a refusal of a presented credential.

        An OAuth client gets an error of RFC 6749, section 5.2; others get a problem document.
        """
        if self.authentication == "Bearer":
            refused(answer, status, code)
            assert re.fullmatch(challenge, answer.headers.get("WWW-Authenticate", ""))
            return
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json().keys() == {"error", "error_description"}
        assert answer.json()["error"] == OAUTH_ERRORS[status]
        said = answer.headers.get("WWW-Authenticate", "")
        assert said == (BASIC_REALM if status == 401 else "")

    def _body(self, more: Json) -> Json:
        content: Json = self.operation.get("requestBody", {}).get("content", {})
        for content_type, described in content.items():
            form = content_type == "application/x-www-form-urlencoded"
            return {"data" if form else "json": example_of(described["schema"]) | more}
        assert not more
        return {}

    @property
    def takes_workspace(self) -> bool:
        """Whether the query can name a workspace."""
        return "workspace" in [each["name"] for each in self.operation.get("parameters", [])]

    def finds(self, api: Api, by: Key, key: Key, workspace: str | None) -> bool:
        """Return whether a request acts in the workspace of a key.

        Args:
            workspace: the one that the query names.
        """
        query = {"workspace": workspace} if workspace else {}
        body: Json = {}
        if self.path in {"/v1/events", "/v1/proofs/inclusion"}:
            query["key_id"] = key.key_id
        if self.path == "/v1/proofs/inclusion":
            query["version"] = "1"
        if self.path in {"/v1/verify", "/v1/introspect"}:
            body = {"token": key.token}
        if self.path == "/v1/verify/batch":
            body = {"tokens": [{"token": key.token}]}
        answer = self.send(api, by, key_id=key.key_id, query=f"?{urlencode(query)}", **body)
        if "{key_id}" in self.path or self.path == "/v1/proofs/inclusion":
            assert answer.is_success or answer.status_code == 404, answer.text
            return answer.is_success
        assert answer.is_success, answer.text
        return shows(str(self), answer.json(), key)


def shows(route: str, said: Json, key: Key) -> bool:
    """Return whether an answer is about the workspace of a key."""
    match route:
        case "POST /v1/keys":
            return bool(said["workspace"] == key.document["workspace"])
        case "GET /v1/keys" | "GET /v1/events":
            return key.key_id in [each["key_id"] for each in said["data"]]
        case "POST /v1/verify":
            return bool(said["valid"])
        case "POST /v1/verify/batch":
            return bool(said["data"][0]["valid"])
        case "POST /v1/introspect":
            return bool(said["active"])
    pytest.fail(f"say how an answer of {route} shows its workspace")


def resolved(schema: Json) -> Json:
    """Resolve references and alternatives of a schema; take the first alternative."""
    schema = schema.get("anyOf", [schema])[0]
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def example_of(schema: Json) -> Any:  # noqa: ANN401 - any JSON
    """Return an example value of a schema, from the document's own examples."""
    schema = resolved(schema)
    if schema.get("examples"):
        return schema["examples"][0]
    if schema["type"] == "object":
        properties = schema["properties"]
        return {name: example_of(properties[name]) for name in schema.get("required", [])}
    if schema["type"] == "array":
        return [example_of(schema["items"])]
    pytest.fail(f"the document has no example of {schema}")


def operations() -> Iterator[tuple[str, str, Json]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


GUARDED = [Route(*each) for each in operations() if each[2].get("security")]
FOR_CLIENTS = [each for each in GUARDED if each.is_for_clients]
BY_EACH_METHOD = GUARDED + [
    replace(each, authentication=method) for each in FOR_CLIENTS for method in ("Basic", "form")
]
for_every_guarded_route = pytest.mark.parametrize("route", BY_EACH_METHOD, ids=str)


@dataclass(frozen=True)
class World:
    """Credentials of every kind, and a key for them to be used on."""

    api: Api
    key: Key
    admin: Key
    root: Key
    revoked: Key
    expired: Key
    elsewhere: Key

    def wrong_secret(self) -> str:
        """Return a token with the lookup id of one key and the secret of another."""
        right, other = parse(self.admin.token), parse(self.root.token)
        assert right is not None
        assert other is not None
        return Token(right.prefix, right.lookup_id, other.secret).reveal()

    def credentials(self) -> list[Key]:
        return [self.admin, self.root, self.revoked, self.expired, self.elsewhere]


@pytest.fixture(scope="module")
def world(shared_api: Api) -> World:
    api = shared_api
    sign_a_checkpoint(api)
    world = World(
        api,
        key=api.make("mcp:read"),
        admin=api.admin(),
        root=api.root,
        revoked=api.revoked("*"),
        expired=api.make("*", expires_at="2026-03-03T13:00:00Z"),
        elsewhere=api.admin("other"),
    )
    api.clock.advance(hours=1)
    return world


def test_every_route_is_either_guarded_or_public_on_purpose() -> None:
    unguarded = {f"{method} {path}" for method, path, op in operations() if not op.get("security")}
    assert unguarded == PUBLIC
    assert len(GUARDED) >= 19
    assert "POST /v1/introspect" in map(str, FOR_CLIENTS)


def test_the_document_knows_every_route_of_the_app() -> None:
    """Compare with FastAPI's route table, which may have routes that the document lacks."""
    app = create_app(Settings())
    known = {f"{method} {path}" for method, path, _ in operations()} | DOCUMENTATION
    # Console routes are guarded by sessions; `console/test_every_console_route.py` tests each.
    known |= {str(route) for route in CONSOLE_ROUTES}
    for route in flat(app.routes):
        for method in route.methods - {"HEAD"}:
            assert f"{method} {path_of(route)}" in known


def path_of(route: Any) -> str:  # noqa: ANN401 - of any kind
    """Return a path in the document's notation."""
    path: str = getattr(route, "path_format", route.path)
    return path


def flat(routes: list[Any]) -> Iterator[Any]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from flat(inner.routes)


@for_every_guarded_route
class TestNobodyPasses:
    """A request without a valid credential does nothing, and learns only that it has none."""

    def refused(self, world: World, answer: Response) -> str:
        problem = refused(answer, 401, "UNAUTHENTICATED")
        self.hold_silent(world, answer)
        assert "errors" not in problem
        challenge: str = answer.headers["WWW-Authenticate"]
        return challenge

    def hold_silent(self, world: World, answer: Response) -> None:
        for key in world.credentials():
            assert key.key_id not in answer.text
            assert key.token not in str(answer.headers) + answer.text

    def test_no_credential(self, world: World, route: Route) -> None:
        answer = route.send(world.api, None, key_id=world.key.key_id)
        # RFC 6750, section 3.1: a request without a credential gets no error code.
        assert self.refused(world, answer) == REALM

    @pytest.mark.parametrize(
        "token",
        ["nonsense", "key_", "key_" + "0" * 65, "Bearer", "*", "a" * 5000],
        ids=lambda token: token[:10],
    )
    def test_malformed(self, world: World, route: Route, token: str) -> None:
        answer = route.send(world.api, token, key_id=world.key.key_id)
        self.hold_invalid(world, route, answer, "UNAUTHENTICATED")

    def test_unknown(self, world: World, route: Route) -> None:
        token = mint("key", random.Random(99).randbytes).reveal()
        answer = route.send(world.api, token, key_id=world.key.key_id)
        self.hold_invalid(world, route, answer, "UNAUTHENTICATED")

    def test_wrong_secret(self, world: World, route: Route) -> None:
        answer = route.send(world.api, world.wrong_secret(), key_id=world.key.key_id)
        self.hold_invalid(world, route, answer, "UNAUTHENTICATED")

    def test_revoked(self, world: World, route: Route) -> None:
        answer = route.send(world.api, world.revoked, key_id=world.key.key_id)
        self.hold_invalid(world, route, answer, "REVOKED")

    def test_expired(self, world: World, route: Route) -> None:
        answer = route.send(world.api, world.expired, key_id=world.key.key_id)
        self.hold_invalid(world, route, answer, "EXPIRED")

    def test_token_in_the_query_or_a_cookie(self, world: World, route: Route) -> None:
        token = world.root.token
        answer = route.send(
            world.api,
            None,
            key_id=world.key.key_id,
            query=f"?token={token}&api_key={token}&access_token={token}",
            headers={"Cookie": f"token={token}; Authorization={token}"},
        )
        assert self.refused(world, answer) == REALM

    def hold_invalid(self, world: World, route: Route, answer: Response, code: str) -> None:
        invalid = rf'{REALM}, error="invalid_token", error_description="[ -!#-\[\]-~]+"'
        route.refused(answer, 401, code, invalid)
        self.hold_silent(world, answer)
        assert "errors" not in answer.json()


@for_every_guarded_route
class TestTooSmallAScope:
    def test_each_other_scope_is_not_enough(self, world: World, route: Route) -> None:
        wanted = route.scope or "api-keys:read"
        resource, _, action = wanted.partition(":")
        others = {other.scope for other in GUARDED if other.scope} | {
            "mcp:read", f"other:{action}", f"{resource}:other", "other:*", "*:other",
        } - {wanted}  # fmt: skip
        holder = world.api.make(*sorted(others - {wanted}))
        before = world.api.position()
        answer = route.send(world.api, holder, key_id=world.key.key_id, query=route.narrower)
        challenge = f'{REALM}, error="insufficient_scope", scope="{re.escape(wanted)}"'
        route.refused(answer, 403, "INSUFFICIENT_SCOPE", challenge)
        assert world.api.position() == before

    @pytest.mark.parametrize("held", ["{}", "{resource}:*", "*:{action}", "*:*", "*"])
    def test_the_very_scope_is_enough_and_so_is_all_that_covers_it(
        self, world: World, route: Route, held: str
    ) -> None:
        wanted = route.scope or "api-keys:read"
        resource, _, action = wanted.partition(":")
        # Using a key for something also requires the scopes that this grants.
        scopes = {held.format(wanted, resource=resource, action=action), "mcp:read", "mcp:write"}
        root = route.path.startswith(("/v1/projections", "/v1/log/"))
        workspace = "root" if root else "acme"
        holder = world.api.make(*sorted(scopes), workspace=workspace)
        used_on = world.api.make("mcp:read", workspace=workspace)
        answer = route.send(world.api, holder, key_id=used_on.key_id, query=route.narrower)
        # Repeated rebuilds of one projection may overlap.
        assert answer.is_success or answer.json()["code"] == "REBUILD_RUNNING", answer.text


def answers_to_the_same_log(world: World, route: Route) -> tuple[Response, Response]:
    """Send a request as another workspace and as root, with nothing signed in between."""
    while True:
        before, answer, after = (
            route.send(world.api, by, key_id="") for by in (world.root, world.elsewhere, world.root)
        )
        if before.content == after.content:
            return answer, after


@for_every_guarded_route
class TestAnotherWorkspacesCredential:
    def test_it_matches_nothing_and_filters_nothing(self, world: World, route: Route) -> None:
        before = world.api.position()
        if str(route) == ABOUT_THE_CALLER:
            answer = route.send(world.api, world.elsewhere, key_id="")
            assert answer.headers["X-Auth-Workspace"] == "other"
            return
        if str(route) == ABOUT_THE_CALLERS_WORKSPACES:
            answer = route.send(world.api, world.elsewhere, key_id="")
            assert [each["name"] for each in answer.json()["data"]] == ["other"]
            return
        if str(route) in ABOUT_THE_WHOLE_TREE:
            answer, roots = answers_to_the_same_log(world, route)
            assert answer.is_success
            assert answer.content == roots.content
            return
        for named in ("acme", "root", "nowhere", "*") if route.takes_workspace else ():
            query = f"?workspace={named}"
            answer = route.send(world.api, world.elsewhere, key_id=world.key.key_id, query=query)
            route.refused(answer, 403, "WORKSPACE_FORBIDDEN")
        if "{key_id}" in route.path:
            answer = route.send(world.api, world.elsewhere, key_id=world.key.key_id)
            refused(answer, 404, "KEY_NOT_FOUND")
        elif not route.takes_workspace:
            answer = route.send(world.api, world.elsewhere, key_id=world.key.key_id)
            refused(answer, 403, "WORKSPACE_FORBIDDEN")
        assert world.api.position() == before


def test_every_route_acts_in_one_workspace_or_is_listed_as_an_exception() -> None:
    exceptions = ABOUT_THE_WHOLE_TREE | ABOUT_ALL_WORKSPACES
    exceptions |= {ABOUT_THE_CALLER, ABOUT_THE_CALLERS_WORKSPACES}
    assert {str(each) for each in GUARDED if not each.takes_workspace} == exceptions
    assert {str(each) for each in IN_A_WORKSPACE} > LISTS


def test_no_body_names_a_workspace() -> None:
    for _, _, operation in operations():
        for described in operation.get("requestBody", {}).get("content", {}).values():
            assert "workspace" not in resolved(described["schema"])["properties"]


IN_A_WORKSPACE = [each for each in GUARDED if each.takes_workspace]


@pytest.mark.parametrize("route", IN_A_WORKSPACE, ids=str)
class TestTheWorkspaceRule:
    @pytest.mark.parametrize("named", [None, "default"])
    def test_root_acts_in_default_unless_it_names_another(
        self, world: World, route: Route, named: str | None
    ) -> None:
        api = world.api
        assert route.finds(api, api.root, api.make(workspace="default"), named)
        assert not route.finds(api, api.root, api.make(workspace="acme"), named)

    @pytest.mark.parametrize("named", ["acme", "root"])
    def test_root_acts_in_the_workspace_that_it_names(
        self, world: World, route: Route, named: str
    ) -> None:
        api = world.api
        assert route.finds(api, api.root, api.make(workspace=named), named)
        assert not route.finds(api, api.root, api.make(workspace="default"), named)

    @pytest.mark.parametrize("named", [None, "acme"])
    def test_any_other_credential_acts_in_its_own(
        self, world: World, route: Route, named: str | None
    ) -> None:
        api = world.api
        assert route.finds(api, world.admin, api.make(workspace="acme"), named)
        assert not route.finds(api, world.admin, api.make(workspace="default"), named)

    def test_a_star_is_all_workspaces_of_a_list_and_else_invalid(
        self, world: World, route: Route
    ) -> None:
        api = world.api
        for workspace in ("acme", "default"):
            key = api.make(workspace=workspace)
            if str(route) in LISTS:
                assert route.finds(api, api.root, key, "*")
            else:
                answer = route.send(api, api.root, key_id=key.key_id, query="?workspace=*")
                invalid(answer, "workspace")

    @pytest.mark.parametrize("named", ["", "Not A Workspace", "a/b", "w" * 64])
    def test_a_name_that_no_workspace_can_have_is_invalid(
        self, world: World, route: Route, named: str
    ) -> None:
        query = "?" + urlencode({"workspace": named})
        invalid(
            route.send(world.api, world.root, key_id=world.key.key_id, query=query), "workspace"
        )

    def test_a_workspace_in_the_body_is_refused_and_the_query_is_named(
        self, world: World, route: Route
    ) -> None:
        if "requestBody" not in route.operation:
            return
        answer = route.send(world.api, world.admin, key_id=world.key.key_id, workspace="acme")
        problem = invalid(answer, "workspace")
        assert "?workspace=NAME" in problem["detail"]
