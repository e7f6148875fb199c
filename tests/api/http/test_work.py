"""Each kind of work has its own threads, and costly reads are limited per credential."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.routing import BaseRoute

from api.app import create_app
from api.http import read_limits
from api.http.query_limit import LONGEST_QUERY
from api.http.read_limits import OF_A_CREDENTIAL, OF_A_WORKSPACE, ReadLimits
from api.http.streams.server_sent_events import LiveStreams
from api.http.work import Work, WorkRoute
from api.settings import Settings
from domain.errors import LedgerError, Overloaded, TooManyReads
from projections.queries.feed import Place
from tests.api.console.console_routes import CONSOLE_ROUTES
from tests.api.served import Api, Json, Key, refused

DOCUMENT: Json = create_app(Settings()).openapi()

CHANGE, READ, COSTLY, STREAM = Work.CHANGE, Work.READ, Work.COSTLY_READ, Work.STREAM
EXPECTED = {
    "GET /": READ,
    "GET /console": READ,
    "GET /console/audit": COSTLY,
    "GET /console/audit/checkpoint.txt": READ,
    "GET /console/audit/entries/{leaf_index}": COSTLY,
    "GET /console/audit/events.csv": STREAM,
    "GET /console/audit/events.ndjson": STREAM,
    "GET /console/keys": COSTLY,
    "GET /console/keys/new": COSTLY,
    "GET /console/keys/{key_id}": COSTLY,
    "GET /console/keys/{key_id}/expiration": COSTLY,
    "GET /console/keys/{key_id}/rename": COSTLY,
    "GET /console/keys/{key_id}/revoke": COSTLY,
    "GET /console/keys/{key_id}/rotate": COSTLY,
    "GET /console/keys/{key_id}/scopes": COSTLY,
    "GET /console/projections": COSTLY,
    "GET /console/sign-in": READ,
    "GET /console/static/{version}/{name}": READ,
    "GET /docs": READ,
    "GET /docs/{name}": READ,
    "GET /healthz": Work.PROBE,
    "GET /metrics": Work.PROBE,
    "GET /readyz": Work.PROBE,
    "GET /v1/checkpoint": READ,
    "GET /v1/events": STREAM,
    "GET /v1/keys": COSTLY,
    "GET /v1/keys/{key_id}": READ,
    "GET /v1/keys/{key_id}/events": COSTLY,
    "GET /v1/log/checkpoint": READ,
    "GET /v1/log/tile/{tile:path}": COSTLY,
    "GET /v1/projections": COSTLY,
    "GET /v1/proofs/consistency": COSTLY,
    "GET /v1/proofs/inclusion": COSTLY,
    "GET /v1/workspaces": COSTLY,
    "PATCH /v1/keys/{key_id}": CHANGE,
    "POST /console/audit/verify": CHANGE,
    "POST /console/keys/new": CHANGE,
    "POST /console/keys/{key_id}/expiration": CHANGE,
    "POST /console/keys/{key_id}/rename": CHANGE,
    "POST /console/keys/{key_id}/revoke": CHANGE,
    "POST /console/keys/{key_id}/rotate": CHANGE,
    "POST /console/keys/{key_id}/scopes": CHANGE,
    "POST /console/projections/{name}/rebuild": CHANGE,
    "POST /console/sign-in": Work.VERIFY,
    "POST /console/sign-out": CHANGE,
    "POST /v1/introspect": Work.VERIFY,
    "POST /v1/keys": CHANGE,
    "POST /v1/keys/{key_id}/revoke": CHANGE,
    "POST /v1/keys/{key_id}/rotate": CHANGE,
    "POST /v1/projections/{name}/rebuild": CHANGE,
    "POST /v1/verify": Work.VERIFY,
    "POST /v1/verify/batch": Work.VERIFY,
}  # fmt: skip
"""The kind of each route; a new route must be added here with its cost in mind."""

LIMITED = [each for each, work in EXPECTED.items() if work in (COSTLY, STREAM)]
FORMS = [
    *((each, "application/json") for each in LIMITED if " /v1/" in each),
    ("GET /v1/events", "application/x-ndjson"),
    ("GET /v1/events", "text/csv"),
]
QUERIES = {
    "/v1/proofs/inclusion": "?leaf_index=0",
    "/v1/proofs/consistency": "?from=0",
}


def works() -> Iterator[tuple[str, Work]]:
    """Yield each route of the app with its kind of work."""
    for route, path in routes_of(create_app(Settings()).routes):
        if path == "/openapi.json":
            continue
        assert isinstance(route, WorkRoute), f"{path} is no WorkRoute"
        for method in sorted(route.methods or ()):
            yield f"{method} {path}", route.work


def routes_of(routes: list[BaseRoute]) -> Iterator[tuple[BaseRoute, str]]:
    for route in routes:
        included: Any = getattr(route, "effective_candidates", None)
        if included is None:
            yield route, cast("Any", route).path
            continue
        for context in included():
            yield context.original_route, context.path


def test_each_route_has_a_kind_of_work() -> None:
    assert dict(works()) == EXPECTED


def test_a_route_that_reads_is_costly_unless_it_says_otherwise() -> None:
    def look(request: Request) -> None: ...

    assert WorkRoute("/new", look, methods=["GET"]).work is COSTLY
    assert WorkRoute("/new", look, methods=["POST"]).work is CHANGE


def test_an_async_costly_read_cannot_be_registered() -> None:
    async def look(request: Request) -> None: ...

    with pytest.raises(TypeError, match="nothing would limit its reads"):
        WorkRoute("/new", look, methods=["GET"])


@pytest.mark.parametrize("route", [each for each in LIMITED if " /v1/" in each])
def test_a_limited_route_documents_its_refusal(route: str) -> None:
    method, path = route.split()
    operation = DOCUMENT["paths"][path.replace(":path", "")][method.lower()]
    assert "Retry-After" in operation["responses"]["429"]["headers"]


@contextmanager
def taken(api: Api, limits: ReadLimits, key: Key, workspace: str, count: int) -> Iterator[None]:
    """Occupy this many reads of a credential."""
    request = Request({"type": "http", "state": {"actor": key.key_id, "workspace": workspace}})
    portal = api.client.portal
    assert portal is not None
    with ExitStack() as held:
        for _ in range(count):
            held.enter_context(portal.wrap_async_context_manager(limits.admitted(request)))
        yield


@contextmanager
def all_taken(api: Api, key: Key, workspace: str, count: int = OF_A_CREDENTIAL) -> Iterator[None]:
    threads = api.app.state.threads
    with (
        taken(api, threads.pages, key, workspace, count),
        taken(api, threads.exports, key, workspace, count),
    ):
        yield


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_limits, "PATIENCE_SECONDS", 0.01)


@pytest.mark.only_on("sqlite")
@pytest.mark.usefixtures("impatient")
class TestLimitForEachCredential:
    @pytest.mark.parametrize(("route", "accept"), FORMS)
    def test_a_read_beyond_the_share_is_refused(
        self, shared_api: Api, route: str, accept: str
    ) -> None:
        api = shared_api
        path = route.split()[1].replace("{tile:path}", "0/000.p/1")
        path = path.format(key_id=api.root.key_id) + QUERIES.get(path, "")
        headers = {"Accept": accept}
        with all_taken(api, api.root, "root"):
            answer = api.get(path, headers=headers)
        refused(answer, 429, "TOO_MANY_READS")
        assert int(answer.headers["Retry-After"]) >= 1
        assert api.get(path, headers=headers).status_code != 429

    @pytest.mark.parametrize("route", [each for each in LIMITED if " /console" in each])
    def test_a_page_of_the_console_beyond_the_share_is_refused(
        self, shared_api: Api, route: str
    ) -> None:
        api = shared_api
        api.client.cookies.clear()
        api.client.post("/console/sign-in", data={"token": api.root.token})
        path = route.split()[1].format(key_id=api.root.key_id, leaf_index=0)
        with all_taken(api, api.root, "root"):
            answer = api.client.get(path)
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        assert api.client.get(path).status_code != 429
        api.client.cookies.clear()

    def test_one_less_than_the_limit_is_answered(self, shared_api: Api) -> None:
        with all_taken(shared_api, shared_api.root, "root", OF_A_CREDENTIAL - 1):
            assert shared_api.get("/v1/keys").status_code == 200

    def test_another_credential_of_the_workspace_is_answered(self, shared_api: Api) -> None:
        one, other = (shared_api.make("api-keys:read") for _ in range(2))
        with all_taken(shared_api, one, "acme"):
            assert shared_api.get("/v1/keys", by=other).status_code == 200

    def test_many_credentials_of_a_workspace_have_one_share(self, shared_api: Api) -> None:
        readers = [shared_api.make("api-keys:read") for _ in range(OF_A_WORKSPACE + 1)]
        elsewhere = shared_api.make("api-keys:read", workspace="other")
        with ExitStack() as held:
            for reader in readers[:-1]:
                held.enter_context(all_taken(shared_api, reader, "acme", 1))
            refused(shared_api.get("/v1/keys", by=readers[-1]), 429, "TOO_MANY_READS")
            assert shared_api.get("/v1/keys", by=elsewhere).status_code == 200
        assert shared_api.get("/v1/keys", by=readers[-1]).status_code == 200

    def test_a_finished_export_frees_its_place(self, shared_api: Api) -> None:
        for _ in range(OF_A_CREDENTIAL + 1):
            answer = shared_api.get("/v1/events", headers={"Accept": "text/csv"})
            assert answer.status_code == 200
        assert not shared_api.app.state.threads.exports._limiters  # noqa: SLF001


@pytest.mark.only_on("sqlite")
def test_other_requests_are_answered_while_costly_reads_use_their_threads(api: Api) -> None:
    key, other = api.make(), api.make()
    limiter = api.app.state.threads.limiters[COSTLY]
    portal = api.client.portal
    assert portal is not None

    async def take_all() -> None:
        for _ in range(int(limiter.total_tokens)):
            await limiter.acquire_on_behalf_of(object())

    portal.call(take_all)
    api.revoke(key)
    assert api.get("/healthz", by=None).status_code == 200
    assert api.get("/readyz", by=None).status_code == 200
    assert api.get("/metrics", by=None).status_code == 200
    verdict = api.post("/v1/verify?workspace=acme", json={"token": other.token})
    assert verdict.json()["code"] == "VALID"
    assert api.show(other)["status"] == "active"
    assert api.client.post("/console/sign-in", data={"token": api.root.token}).status_code == 303


class TestSharesOfTails:
    def test_a_credential_gets_a_quarter_and_a_workspace_half(self) -> None:
        asyncio.run(self.begin_tails())

    async def begin_tails(self) -> None:
        tails = LiveStreams(cast("Any", None), cast("Any", None), most=8, heartbeat_seconds=1)

        def begin(credential: str, workspace: str) -> Any:  # noqa: ANN401 - an answer
            place = Place(0, 0)
            nothing = cast("Any", None)
            return tails.begin(nothing, nothing, place, nothing, holder=(credential, workspace))

        def is_refused(credential: str, workspace: str, error: type[LedgerError]) -> bool:
            with pytest.raises(error):
                begin(credential, workspace)
            return True

        first = begin("a", "acme")
        begin("a", "acme")
        assert is_refused("a", "acme", TooManyReads)
        begin("b", "acme")
        begin("b", "acme")
        assert is_refused("c", "acme", TooManyReads)
        for credential in "defg":
            begin(credential, f"of {credential}")
        assert is_refused("h", "other", Overloaded)
        first._on_end()  # noqa: SLF001
        begin("h", "other")


@pytest.mark.only_on("sqlite")
class TestLongQuery:
    LONG = "?" + "&a" * LONGEST_QUERY

    @pytest.mark.parametrize(
        "route", [each for each in EXPECTED if "{" not in each and " /v1/" in each]
    )
    def test_it_is_refused_before_it_is_parsed(self, shared_api: Api, route: str) -> None:
        method, path = route.split()
        refused(shared_api.send(method, path + self.LONG), 414, "TARGET_TOO_LONG")

    @pytest.mark.parametrize(
        "route", [each for each in CONSOLE_ROUTES if "{" not in each.path], ids=str
    )
    def test_the_console_refuses_it_too(self, shared_api: Api, route: Any) -> None:  # noqa: ANN401
        answer = shared_api.client.request(route.method, route.path + self.LONG)
        assert answer.status_code == 414

    def test_the_longest_one_is_read(self, shared_api: Api) -> None:
        query = "?limit=" + "1".zfill(LONGEST_QUERY - len("limit="))
        assert shared_api.get(f"/v1/keys{query}").status_code != 414
